"""A signature says whose a checkpoint is, and holds for every byte of it."""

from __future__ import annotations

import json
import os
import stat
import sys

import pytest
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast import (
    Checkpointer,
    ConfigurationError,
    DamagedCheckpointError,
    MissingExtraError,
    SaveError,
    SignatureError,
)
from holdfast.cli import main
from holdfast.format import signature as form
from holdfast.front.opening import checkpoints
from holdfast.front.saving import remove_path
from holdfast.testing.damage import damages
from tests.support.files import content, listing, put, save, small_state
from tests.support.properties import examples


@pytest.fixture
def keys(tmp_path):
    """A pair of keys, and another's."""
    (tmp_path / "keys").mkdir()
    for name in ("mine", "other"):
        holdfast.keygen(tmp_path / "keys" / name)
    return tmp_path / "keys"


@pytest.fixture
def signed(tmp_path, keys):
    """A checkpoint with a signature of mine."""
    path = save(tmp_path / "run" / "x.ckpt", small_state(), step=2)
    assert holdfast.sign(path, keys / "mine") == f"{path}.sig"
    return path


def refused(path, key, match):
    with pytest.raises(SignatureError, match=match) as caught:
        holdfast.verify(path, key=key)
    assert caught.value.path == path
    return caught.value


def test_a_signed_file_is_verified(signed, keys):
    """Verifying with the signer's public key returns the manifest; without a key the signature plays no part."""
    assert holdfast.verify(signed, key=keys / "mine.pub").facts.step == 2
    os.remove(f"{signed}.sig")
    assert holdfast.verify(signed).facts.step == 2


def test_no_signature_and_anothers(signed, keys):
    """A missing signature and one by another key are errors that say which, with both keys' names."""
    error = refused(signed, keys / "other.pub", "not made with the given key")
    assert str(error).count("SHA256:") == 2
    os.remove(f"{signed}.sig")
    refused(signed, keys / "mine.pub", "there is no signature")


def test_every_damage_and_every_forgery_is_refused(signed, keys, tmp_path):
    """No damage of a signed file, and no other whole checkpoint in its place with right checksums, verifies."""
    whole = content(signed)
    other = content(save(tmp_path / "other.ckpt", small_state(seed=1), step=2))
    public = holdfast.engine.keys.public_key(keys / "mine.pub")
    for made in (other, *(damage.apply(whole) for damage in list(damages(whole, other))[::5])):
        put(signed, made)
        with pytest.raises(SignatureError, match="of other bytes"):
            holdfast.verify(signed, key=public)
    holdfast.verify(put(signed, other))  # its checksums are right: only the signature tells


def test_every_bit_of_a_signature_counts(signed, keys):
    """A flip in any byte of the signature's file is refused, but for one in the name of the key."""
    whole = content(f"{signed}.sig")
    public = holdfast.engine.keys.public_key(keys / "mine.pub")
    verified = set()
    for at in range(len(whole)):
        put(f"{signed}.sig", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            holdfast.verify(signed, key=public)
        except SignatureError:
            continue
        verified.add(at)
    start = whole.index(b"SHA256:")
    assert verified <= set(range(start, whole.index(b'"', start)))
    found = form.decode(whole)
    assert (found.size, len(found.sha256)) == (len(content(signed)), 32)


def test_a_signature_for_something_else_is_none(signed, keys):
    """The same key's signature of the bare digest, without the words of what it is for, is no signature here."""
    secret = holdfast.engine.keys.private_key(keys / "mine")
    found = form.decode(content(f"{signed}.sig"))
    bare = secret.sign(found.sha256 + found.size.to_bytes(8, "big"))
    put(f"{signed}.sig", form.encode(form.Signature(found.sha256, found.size, found.key, bare)))
    refused(signed, keys / "mine.pub", "not made with the given key")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("holdfast_signature", "algorithm", "sha256", "size", "key", "signature")


@examples(200)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_signature_is_said_to_be_none(data):
    """Arbitrary bytes and arbitrary JSON are no signature, and never another error."""
    with pytest.raises(form.SignatureFormError):
        form.decode(data)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, True, -1, 1.5, 2**64, "", "x", "\ud800", "ff" * 32, [], {}, [[]]], ids=repr)
def test_wrong_values_in_a_signature(signed, keys, field, value):
    """Any field with a value of another kind is refused (the name of the key plays no part)."""
    whole = json.loads(content(f"{signed}.sig"))
    put(f"{signed}.sig", json.dumps({**whole, field: value}).encode())
    if field == "key" and isinstance(value, str):
        assert holdfast.verify(signed, key=keys / "mine.pub") is not None
    else:
        refused(signed, keys / "mine.pub", "")


def test_a_damaged_checkpoint_is_not_signed(signed, keys):
    """Signing refuses what is damaged, and leaves the earlier signature."""
    before = content(f"{signed}.sig")
    put(signed, content(signed)[:-1])
    with pytest.raises(DamagedCheckpointError):
        holdfast.sign(signed, keys / "mine")
    assert content(f"{signed}.sig") == before


def test_a_signature_is_no_checkpoint(signed, keys, capsys):
    """A signature is never listed or counted, though it be a whole checkpoint by its content."""
    put(f"{signed}.sig", content(signed))
    folder = os.path.dirname(signed)
    assert [item.name for item in checkpoints(folder)] == ["x.ckpt"]
    assert main(["verify", folder]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    refused(signed, keys / "mine.pub", "cannot be read")


@pytest.mark.parametrize("async_save", [True, False])
def test_a_dropped_checkpoint_takes_its_signature_with_it(tmp_path, keys, async_save):
    """Retention removes the signature of what it drops, and keeps that of what it keeps."""
    folder = tmp_path / "run"
    words = {"monitor": "loss", "save_top_k": 1, "filename": "{epoch}", "async_save": async_save}
    with Checkpointer(folder, model=torch.nn.Linear(2, 2), **words) as ckpt:
        for epoch, loss in enumerate((3.0, 2.0, 1.0)):
            ckpt.step()
            ckpt.end_epoch({"loss": loss})
            ckpt.wait()
            if epoch < 2:
                holdfast.sign(ckpt.best_model_path, keys / "mine")
    (name,) = (name for name in listing(folder) if name.endswith(".ckpt"))
    assert listing(folder) == [name]


@pytest.mark.parametrize("async_save", [True, False])
def test_lightning_drops_signatures_too(tmp_path, keys, async_save):
    """The callback's retention removes the signature of what it drops, whether it retires files or removes them."""
    from tests.support.lightning_cases import ModelCheckpoint, fit

    signatures = []

    class Signing(ModelCheckpoint):
        def on_train_epoch_start(self, trainer, module):
            super().on_train_epoch_start(trainer, module)
            signatures.extend(holdfast.sign(item.path, keys / "mine") for item in checkpoints(self.dirpath))

    folder = tmp_path / "run"
    callback = Signing(folder, monitor="val_loss", save_top_k=1, filename="{epoch}", async_save=async_save)
    fit(tmp_path, callback, max_epochs=4)
    kept = [item.name for item in checkpoints(folder)]
    assert (len(kept), len(set(signatures)) > 1) == (1, True)
    assert set(listing(folder)) <= {kept[0], f"{kept[0]}.sig"}


def test_remove_path_takes_the_signature(tmp_path, keys):
    """The removal that ``CheckpointIO`` offers to the Trainer takes the signature too."""
    path = save(tmp_path / "x.ckpt")
    holdfast.sign(path, keys / "mine")
    remove_path(path)
    assert listing(tmp_path) == ["keys"]


def test_a_second_name_has_a_signature_of_its_own(tmp_path, keys):
    """``last`` shares the bytes and not the signature; when it moves on, its old signature no longer fits."""
    first = save(tmp_path / "a.ckpt", step=1)
    os.link(first, tmp_path / "last.ckpt")
    holdfast.sign(first, keys / "mine")
    last = str(tmp_path / "last.ckpt")
    refused(last, keys / "mine.pub", "there is no signature")
    holdfast.sign(last, keys / "mine")
    save(last, step=2)
    refused(last, keys / "mine.pub", "of other bytes")
    assert holdfast.verify(first, key=keys / "mine.pub").facts.step == 1


def test_the_keys_files(keys):
    """The private key is for its owner alone; both are OpenSSH's; neither is ever written over."""
    assert stat.S_IMODE(os.stat(keys / "mine").st_mode) == 0o600
    assert content(keys / "mine.pub").startswith(b"ssh-ed25519 ")
    assert content(keys / "mine").startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    before = content(keys / "mine")
    with pytest.raises(SaveError, match="written over"):
        holdfast.keygen(keys / "mine")
    os.remove(keys / "mine.pub")
    with pytest.raises(SaveError, match="written over"):
        holdfast.keygen(keys / "mine")
    assert content(keys / "mine") == before


def test_keys_of_other_forms_and_other_kinds(tmp_path, signed, keys):
    """PEM keys and keys as objects do; RSA, passwords, the wrong half, pipes, noise and nothing are errors by name."""
    mine = Ed25519PrivateKey.generate()
    plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
    form8 = serialization.PrivateFormat.PKCS8
    put(tmp_path / "pem", mine.private_bytes(pem, form8, plain))
    put(tmp_path / "pem.pub", mine.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    holdfast.sign(signed, tmp_path / "pem")
    holdfast.verify(signed, key=tmp_path / "pem.pub")
    holdfast.sign(signed, mine)
    holdfast.verify(signed, key=mine.public_key())
    put(tmp_path / "rsa", generate_private_key(65537, 2048).private_bytes(pem, form8, plain))
    put(tmp_path / "locked", mine.private_bytes(pem, form8, serialization.BestAvailableEncryption(b"word")))
    put(tmp_path / "noise", b"\0" * 100)
    os.mkfifo(tmp_path / "pipe")
    for name in ("rsa", "locked", "noise", "pipe", "none", "pem.pub"):
        with pytest.raises(ConfigurationError, match=name):
            holdfast.sign(signed, tmp_path / name)
    for name in ("rsa", "noise", "pipe", "none", "pem"):
        with pytest.raises(ConfigurationError, match=name):
            holdfast.verify(signed, key=tmp_path / name)
    for key in (b"bytes", 7):
        with pytest.raises(ConfigurationError):
            holdfast.sign(signed, key)


def test_the_commands(tmp_path, capsys):
    """keygen, sign and verify of a file and a directory end with 0, or with 1, 2 and 3 as the page says."""
    folder, key = str(tmp_path / "run"), str(tmp_path / "key")
    for name in ("a", "b"):
        save(f"{folder}/{name}.ckpt")
    assert main(["keygen", key]) == 0
    assert main(["keygen", key]) == 1
    assert main(["sign", f"{folder}/a.ckpt", "--key", key]) == 0
    assert main(["verify", f"{folder}/a.ckpt", "--key", f"{key}.pub"]) == 0
    capsys.readouterr()
    assert main(["verify", folder, "--key", f"{key}.pub"]) == 1
    shown = sorted(capsys.readouterr().out.splitlines()[:2])
    assert shown[0].startswith(f"UNSIGNED {folder}/b.ckpt: there is no signature")
    assert shown[1] == f"signed   {folder}/a.ckpt"
    assert main(["verify", folder, "--json", "--key", f"{key}.pub"]) == 1
    results = {os.path.basename(item["path"]): item for item in json.loads(capsys.readouterr().out)}
    assert (results["a.ckpt"]["whole"], results["a.ckpt"]["signed"]) == (True, True)
    assert (results["b.ckpt"]["whole"], results["b.ckpt"]["signed"]) == (None, False)
    assert main(["sign", folder, "--key", key]) == 0
    assert main(["verify", folder, "--key", f"{key}.pub"]) == 0
    assert main(["verify", folder, "--key", key]) == 2
    assert main(["sign", folder, "--key", f"{key}.none"]) == 2
    assert main(["sign", f"{folder}/none.ckpt", "--key", key]) == 3
    put(f"{folder}/b.ckpt", content(f"{folder}/b.ckpt")[:-1])
    assert main(["sign", folder, "--key", key]) == 1


def test_without_cryptography(signed, keys, monkeypatch):
    """Without the package, signing and verifying with a key name the extra; verifying without one works."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    for use in (lambda: holdfast.sign(signed, keys / "mine"), lambda: holdfast.verify(signed, key=keys / "mine.pub")):
        with pytest.raises(MissingExtraError, match=r"pip install 'holdfast\[sign\]'"):
            use()
    assert holdfast.verify(signed) is not None


def test_a_remote_checkpoint_is_signed_where_it_lies(keys):
    """A blob behind a URL is signed and verified like a file."""
    import fsspec

    save("memory://signed/x.ckpt")
    try:
        assert holdfast.sign("memory://signed/x.ckpt", keys / "mine") == "memory://signed/x.ckpt.sig"
        assert holdfast.verify("memory://signed/x.ckpt", key=keys / "mine.pub") is not None
    finally:
        fsspec.filesystem("memory").store.clear()
