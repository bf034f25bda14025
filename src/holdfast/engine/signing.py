"""Signing a checkpoint, and knowing whose it is.

The manifest's CRC-32 finds accidents. Whoever forges a file computes it anew; so a signature covers a SHA-256 of
every byte of the file, and says nothing about what the file says of itself.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.directories import Directory, digest_directory, far_blob, is_sharded_at, verify_directory, with_directory
from holdfast.engine.keys import fingerprint, is_genuine, private_key, public_key
from holdfast.engine.load import check_whole, opened, verify_far
from holdfast.errors import DamagedCheckpointError, SignatureError
from holdfast.format import signature as form
from holdfast.records import Manifest
from holdfast.source import FileSource, TellingSource
from holdfast.storage import Store, open_store, split_path, use_options

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_BLOCK = 1 << 20


def sign(
    path: str | os.PathLike[str],
    key: str | os.PathLike[str] | Ed25519PrivateKey,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """Sign a whole checkpoint; the signature is committed beside it, as ``PATH.sig``, whose path is returned.

    An earlier signature is replaced. The checkpoint is not touched.

    Args:
        path: file or fsspec URL.
        key: an ed25519 private key: the path of a PEM or OpenSSH file without a password, or the object of
            ``cryptography``.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        CheckpointNotFoundError: if there is nothing at the path.
        DamagedCheckpointError: if the checkpoint is damaged: nobody should put a name to it.
        ConfigurationError: if the key is none.
        MissingExtraError: if the package ``cryptography`` is not installed.
        OSError: if the signature cannot be written.

    """
    use_options(storage_options, path)
    secret = private_key(key)
    sharded = is_sharded_at(path)
    digest, size = with_directory(path, _checked_digest) if sharded else _checked_file_digest(path)
    signed = secret.sign(form.message(digest, size, directory=sharded))
    store, name = _place(path)
    store.put(name, [form.encode(form.Signature(digest, size, fingerprint(secret.public_key()), signed))])
    return store.path(name)


def _checked_file_digest(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    with opened(os.fspath(path)) as (source, file):
        check_whole(source, file)
        return _digest(source)


def _checked_digest(found: Directory) -> tuple[bytes, int]:
    verify_directory(found)
    return digest_directory(found)


def verify(
    path: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str] | Ed25519PublicKey | None = None,
    progress: Callable[[int], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Manifest | None:
    """Check every byte of a checkpoint against its manifest, and return the manifest.

    Returns None for a whole file that was saved without a manifest, and for a directory without one: those of plain
    ``torch.distributed.checkpoint`` have no checksums.

    Args:
        path: file, directory of a sharded checkpoint, or fsspec URL.
        key: an ed25519 public key: the path of a PEM or OpenSSH file, or the object of ``cryptography``. With
            it the file must also have been signed, with ``sign``, by the owner of the private one.
        progress: called with each amount of bytes checked, from several threads, for one with a manifest.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        CheckpointNotFoundError: if there is nothing at the path.
        DamagedCheckpointError: if the bytes are not those that were saved; it names the record, or the file
            of a directory and the tensor in it.
        SignatureError: if there is no signature, or not that key's, or not of these bytes.
        ConfigurationError: if the key is none.
        MissingExtraError: if a key is given and the package ``cryptography`` is not installed.

    """
    use_options(storage_options, path)
    public = None if key is None else public_key(key)
    known = far_blob(path)
    if known is None and is_sharded_at(path):

        def check(found: Directory) -> Manifest | None:
            if public is not None:
                _check_signature(path, public, partial(digest_directory, found), directory=True)
            return verify_directory(found, progress)

        return with_directory(path, check)
    if public is None and known is not None and (far := verify_far(path, known, progress)) is not None:
        return far
    with opened(os.fspath(path)) as (source, file):
        if public is not None:
            _check_signature(path, public, partial(_digest, source))
        return check_whole(source if progress is None else TellingSource(source.path, file, progress), file)


def _check_signature(
    path: str | os.PathLike[str],
    key: Ed25519PublicKey,
    digest_now: Callable[[], tuple[bytes, int]],
    *,
    directory: bool = False,
) -> None:
    store, name = _place(path)
    what = os.fspath(path)
    try:
        found = form.decode(store.read(name, 0, form.LONGEST))
    except FileNotFoundError as error:
        raise SignatureError(what, f"there is no signature {store.path(name)}") from error
    except form.SignatureFormError as error:
        raise SignatureError(what, f"{store.path(name)} cannot be read: {error}") from error
    # What the file says of its key is only for the message: whose signature it is, the signature shows.
    if not is_genuine(key, found.signature, form.message(found.sha256, found.size, directory=directory)):
        own = f"it names the key {found.key:.60}, and the key given is {fingerprint(key)}"
        raise SignatureError(what, f"{store.path(name)} was not made with the given key: {own}")
    digest, size = digest_now()
    if size != found.size or not hmac.compare_digest(digest, found.sha256):
        problem = f"{store.path(name)} is of other bytes: it was changed, or written anew, after it was signed"
        raise SignatureError(what, problem)


def _place(path: str | os.PathLike[str]) -> tuple[Store, str]:
    """Return where the signature of a checkpoint is kept."""
    root, name = split_path(path)
    return open_store(root), name + form.SUFFIX


def _digest(source: FileSource) -> tuple[bytes, int]:
    """Return the SHA-256 of all bytes of a file, and how many they are."""
    digest, at = hashlib.sha256(), 0
    while block := source.read(at, _BLOCK):
        digest.update(block)
        at += len(block)
    if at != source.size:
        raise DamagedCheckpointError(source.path, "the file", "it was written to while it was read")
    return digest.digest(), at
