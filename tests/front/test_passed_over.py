"""Damaged checkpoints on the way to the newest whole one: what is told, what is set aside, what is left alone."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets

import pytest
import torch

import holdfast
from holdfast import Checkpointer, ConfigurationError, DamagedCheckpointError, LoadError
from holdfast.cli import main
from holdfast.storage import open_store
from holdfast.testing.store_suite.bundles import put_bundle
from tests.front.loops import Loop, names, step_of
from tests.support.files import content, line, put, save, with_manifest
from tests.support.lightning_cases import quietly
from tests.support.states import same

SCORES = [5.0, 2.0, 4.0, 1.0]
WORDS = {"monitor": "val_loss", "save_top_k": 2, "save_last": True}
NEWEST, OLDER = "epoch=2-step=12.ckpt", "epoch=1-step=8.ckpt"


def flip(path):
    """Turn one bit over in the middle."""
    data = bytearray(content(path))
    data[len(data) // 2] ^= 1
    put(path, bytes(data))


def cut(path):
    put(path, content(path)[:-700])


def empty(path):
    put(path, b"")


def run(folder, epochs=3, **words):
    """Train, and keep everything unless told otherwise."""
    loop = Loop()
    loop.run(loop.checkpointer(folder, **({"save_top_k": -1} | words)), epochs, scores=SCORES)


@pytest.mark.parametrize("harm", [flip, cut, empty])
def test_the_report(tmp_path, caplog, harm):
    """A damaged newest one is set aside with all its bytes; one warning, the answer and the log name both places."""
    run(tmp_path)
    harm(tmp_path / NEWEST)
    bytes_then = content(tmp_path / NEWEST)
    caplog.set_level(logging.INFO, "holdfast")
    ckpt = Loop().checkpointer(tmp_path, save_top_k=-1)
    start, said = quietly(ckpt.resume)
    aside = str(tmp_path / f"{NEWEST}.damaged")
    (skipped,) = start.skipped
    assert (skipped.path, skipped.aside) == (str(tmp_path / NEWEST), aside)
    assert skipped.reason.startswith("damaged: ")
    (warned,) = [text for text in said if "passed over" in text]
    assert skipped.path in warned
    assert aside in warned
    assert content(aside) == bytes_then
    assert names(tmp_path) == sorted(["epoch=0-step=4.ckpt", OLDER, f"{NEWEST}.damaged"])
    parts = ("model", "optimizer 0", "lr_scheduler 0", "counter", "random number generators", "loop position")
    assert (start.path, start.missed, start.restored) == (str(tmp_path / OLDER), (), parts)
    told = str(start).splitlines()
    assert OLDER in told[0]
    assert "optimizer 0" in told[1]
    assert skipped.path in told[-1]
    assert str(start) in caplog.text


def test_what_is_set_aside_is_no_checkpoint(tmp_path, capsys):
    """It is neither listed, ranked, counted nor removed, however long training goes on; ``ls`` counts it, ``verify`` names it."""  # noqa: E501
    run(tmp_path, 2, **WORDS)
    flip(tmp_path / OLDER)  # the best, the newest, and last, which is another name of it
    loop = Loop()
    ckpt = loop.checkpointer(tmp_path, **WORDS)
    start, _ = quietly(ckpt.resume)
    aside = {f"{OLDER}.damaged", "last.ckpt.damaged"}
    assert {os.path.basename(skipped.aside) for skipped in start.skipped} == aside
    assert (ckpt.best_model_path, ckpt.last_model_path) == (str(tmp_path / "epoch=0-step=4.ckpt"), "")
    loop.run(ckpt, 4, start=start, scores=SCORES)
    assert {*names(tmp_path)} == {
        "epoch=0-step=4.ckpt",
        OLDER,
        "epoch=3-step=16.ckpt",
        "last.ckpt",
    } | aside
    assert ckpt.best_model_path == str(tmp_path / "epoch=3-step=16.ckpt")
    assert step_of(ckpt.last_model_path) == 16
    assert main(["ls", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "2 damaged, set aside" in out
    assert "ckpt.damaged" not in out
    assert main(["verify", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {os.path.basename(text.split()[1].rstrip(":")) for text in lines if text.startswith("aside")} == aside
    assert main(["verify", "--json", str(tmp_path)]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert {os.path.basename(item["path"]) for item in answers if item.get("set_aside")} == aside
    assert holdfast.newest(tmp_path) == str(tmp_path / "last.ckpt")
    assert Checkpointer(tmp_path)._run.store.sweep(3) == []
    assert main(["verify", str(tmp_path / f"{OLDER}.damaged")]) == 1


def test_a_taken_name(tmp_path):
    """What was set aside before stays as it was: the next of that name gets a number."""
    for lap in range(3):
        run(tmp_path, 1)
        empty(tmp_path / "epoch=0-step=4.ckpt")
        put(tmp_path / "epoch=0-step=4.ckpt.damaged-3", b"mine") if lap == 0 else None
        quietly(Loop().checkpointer(tmp_path).resume)
    tails = ["", "-2", "-3", "-4"]
    assert names(tmp_path) == [f"epoch=0-step=4.ckpt.damaged{tail}" for tail in tails]
    assert content(tmp_path / "epoch=0-step=4.ckpt.damaged-3") == b"mine"


def test_a_fresh_start_tells_of_those_set_aside(tmp_path):
    """If none is whole the start is fresh, and says so now and the next time how many are set aside."""
    run(tmp_path, 1)
    flip(tmp_path / "epoch=0-step=4.ckpt")
    first, _ = quietly(Loop().checkpointer(tmp_path).resume)
    second, _ = quietly(Loop().checkpointer(tmp_path).resume)
    assert [len(start.skipped) for start in (first, second)] == [1, 0]
    for start in (first, second):
        assert start.path is None
        assert "1 that were damaged are set aside" in start.reason


@pytest.fixture
def unreadable(monkeypatch):
    """Let every read of certain files fail with EIO."""
    paths = set()

    def failing(real):
        def read(descriptor, *rest):
            if os.readlink(f"/proc/self/fd/{descriptor}") in paths:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(descriptor, *rest)

        return read

    for name in ("pread", "preadv"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    return paths


def _newer(folder):
    return with_manifest(folder / "z.ckpt", line({"holdfast": 2}) + line([]) + line([]))


def test_what_cannot_be_read_is_no_damage(tmp_path, unreadable):
    """An I/O error and a format of the future: passed over by name, the files stay, and are there the next time."""
    run(tmp_path)
    newer = _newer(tmp_path)
    before = names(tmp_path)
    unreadable.add(str(tmp_path / NEWEST))
    start, said = quietly(Loop().checkpointer(tmp_path).resume)
    assert start.path == str(tmp_path / OLDER)
    assert {(item.path, item.aside) for item in start.skipped} == {(str(tmp_path / NEWEST), ""), (newer, "")}
    assert len([text for text in said if "passed over" in text and "left where it is" in text]) == 2
    assert any("newer than this holdfast" in text for text in said)
    assert names(tmp_path) == before
    unreadable.clear()
    again, _ = quietly(Loop().checkpointer(tmp_path).resume)
    assert again.path == str(tmp_path / NEWEST)


def test_a_file_of_a_later_holdfast_is_not_called_damaged(tmp_path, capsys):
    """``ls``, ``show`` and ``verify`` say that it cannot be read; ``load`` and ``verify`` raise NewerFormatError."""
    path = _newer(tmp_path)
    for act in (holdfast.load, holdfast.verify):
        with pytest.raises(holdfast.NewerFormatError, match=r"format 2 is newer.*Install a newer holdfast"):
            act(path)
    for verb, target in (("ls", tmp_path), ("verify", tmp_path), ("verify", path), ("show", path)):
        assert main([verb, str(target)]) == 1
        said = capsys.readouterr()
        assert "newer than this holdfast" in said.out + said.err
        assert "amaged" not in said.out + said.err


def test_another_programs_file_is_left(tmp_path):
    """A file that was never a checkpoint of ours stays, whatever it is called."""
    put(tmp_path / "last.ckpt", b"safetensors or so")
    run(tmp_path, 1)
    start, _ = quietly(Loop().checkpointer(tmp_path).resume)
    assert start.skipped == ()
    assert content(tmp_path / "last.ckpt") == b"safetensors or so"


def test_another_runs_file_is_left(tmp_path):
    """A damaged newest one of another run stays, and is not taken for one of ours."""
    run(tmp_path, 1, filename="ours-{epoch}")
    save(tmp_path / "theirs.ckpt", run="ffff", time="2999-01-01T00:00:00.000+00:00", sequence=9)
    flip(tmp_path / "theirs.ckpt")
    ckpt = Loop().checkpointer(tmp_path, filename="ours-{epoch}", save_top_k=-1)
    start, said = quietly(ckpt.resume)
    assert start.path == str(tmp_path / "ours-epoch=0.ckpt")
    assert [item.aside for item in start.skipped] == [""]
    assert any("another run" in text for text in said)
    assert names(tmp_path) == ["ours-epoch=0.ckpt", "theirs.ckpt"]


def test_a_file_elsewhere_is_never_moved(tmp_path):
    """A damaged checkpoint that was asked for by its path is an error, and stays."""
    run(tmp_path / "else", 1)
    path = tmp_path / "else" / "epoch=0-step=4.ckpt"
    flip(path)
    with pytest.raises(DamagedCheckpointError, match=r"epoch=0-step=4\.ckpt"):
        Loop().checkpointer(tmp_path / "run").resume(path)
    assert names(tmp_path / "else") == ["epoch=0-step=4.ckpt"]


def spoilt(store, *spoil):
    """Turn a bit over in the middle of files behind a URL."""
    for name in spoil:
        data = bytearray(store.read(name, 0, store.size(name)))
        data[len(data) // 2] ^= 1
        store.put(name, [bytes(data)])


@pytest.fixture(params=["memory", "s3"])
def url(request):
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://bucket/passed-over-{secrets.token_hex(4)}"
    return f"memory://passed-over-{secrets.token_hex(4)}"


def test_behind_a_url_it_is_set_aside_as_well(url):
    """Copied by the server and removed: the bytes are kept; ranking, best, last and the next resume do without them."""
    words = {"monitor": "val_loss", "save_last": True, "save_top_k": -1}
    store = open_store(url)
    run(url, 2, **words)
    spoilt(store, OLDER, "last.ckpt")
    bytes_then = store.read(OLDER, 0, 1 << 20)
    with Loop().checkpointer(url, **words) as ckpt:
        start, said = quietly(ckpt.resume)
        aside = {OLDER: f"{url}/{OLDER}.damaged", "last.ckpt": f"{url}/last.ckpt.damaged"}
        assert {os.path.basename(item.path): item.aside for item in start.skipped} == aside
        assert len([text for text in said if "set aside as" in text]) == 2
        assert list(ckpt.best_k_models) == [ckpt.best_model_path] == [f"{url}/epoch=0-step=4.ckpt"]
        assert ckpt.last_model_path == ""
    assert not store.exists(OLDER)
    assert store.read(f"{OLDER}.damaged", 0, 1 << 20) == bytes_then
    assert [item.kind for item in holdfast.doctor(url) if item.kind == "set-aside"] == ["set-aside"] * 2
    with Loop().checkpointer(url, **words) as ckpt:
        assert ckpt.resume().skipped == ()


def test_behind_a_url_of_others_it_stays():
    """Who only looks moves nothing: the message says why."""
    url = f"memory://passed-over-{secrets.token_hex(4)}"
    run(url, 2)
    spoilt(open_store(url), OLDER)
    path, said = quietly(lambda: holdfast.newest(url))
    assert path == f"{url}/epoch=0-step=4.ckpt"
    assert len(said) == 1
    assert open_store(url).exists(OLDER)


def test_a_bundle_gets_another_name():
    """A damaged sharded checkpoint goes aside with all its files, and with what is wrong with them."""
    store = open_store(f"memory://passed-over-{secrets.token_hex(4)}")
    made = put_bundle(store, "x.ckpt")
    shard = next(name for name in made if name.endswith(".distcp"))
    store.remove(f"x.ckpt/{shard}")
    store.move_by_copy("x.ckpt", "x.ckpt.damaged")
    assert [blob.name for blob in store.blobs()] == ["x.ckpt.damaged"]
    assert {blob.name for blob in store.files("x.ckpt.damaged")} == made.keys() - {shard}
    with pytest.raises(FileNotFoundError):
        store.move_by_copy("x.ckpt", "y")


class Wide(torch.nn.Module):
    """Large enough that a load writes over its very memory."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(256, 256)


@pytest.mark.parametrize("harm", [flip, cut])
@pytest.mark.parametrize("where", ["constructor", "call"])
def test_stopping_at_damage(tmp_path, where, harm):
    """``on_damage="raise"``: the damaged newest is the error, nothing is moved, and the model is as it was."""
    model = Wide()
    with Checkpointer(tmp_path, model=model, every_n_train_steps=1, save_top_k=-1) as ckpt:
        for _ in range(3):
            with torch.no_grad():
                model.layer.weight.add_(1)
            ckpt.step()
    harm(tmp_path / "epoch=0-step=3.ckpt")
    content(tmp_path / "epoch=0-step=3.ckpt")
    before = names(tmp_path)
    fresh = Wide()
    state = {name: value.clone() for name, value in fresh.state_dict().items()}
    ckpt = Checkpointer(tmp_path, model=fresh, **({"on_damage": "raise"} if where == "constructor" else {}))
    with pytest.raises(DamagedCheckpointError, match=r"epoch=0-step=3\.ckpt"):
        ckpt.resume() if where == "constructor" else ckpt.resume(on_damage="raise")
    assert same(dict(fresh.state_dict()), state)
    assert names(tmp_path) == before
    start, _ = quietly(ckpt.resume, on_damage="skip")
    assert start.step == 2


def test_stopping_at_an_error(tmp_path, unreadable):
    """``on_damage="raise"`` stops at what cannot be read as well, rather than go back behind it."""
    run(tmp_path)
    unreadable.add(str(tmp_path / NEWEST))
    with pytest.raises(LoadError, match=r"epoch=2-step=12\.ckpt cannot be read: .*Input/output error"):
        Loop().checkpointer(tmp_path).resume(on_damage="raise")


@pytest.mark.parametrize(
    "act", [lambda path: Checkpointer(path, on_damage="stop"), lambda path: Checkpointer(path).resume(on_damage=True)]
)
def test_a_wrong_word(tmp_path, act):
    """Any other ``on_damage`` is an error that names it and the two that there are."""
    with pytest.raises(ConfigurationError, match="`on_damage` can be 'skip' or 'raise' but got"):
        act(tmp_path)


def test_a_directory_that_cannot_be_renamed_in(tmp_path, monkeypatch):
    """If the rename fails, training goes on from the newest whole one all the same, and the message says why."""
    run(tmp_path)
    flip(tmp_path / NEWEST)

    def refuse(*paths):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "rename", refuse)
    ckpt = Loop().checkpointer(tmp_path, save_top_k=-1)
    start, said = quietly(ckpt.resume)
    assert start.step == 8
    assert any("could not be renamed" in text and "Read-only" in text for text in said)
    assert str(tmp_path / NEWEST) not in ckpt.best_k_models
