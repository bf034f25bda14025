"""Signing a checkpoint, and knowing whose it is.

The manifest's CRC-32 finds accidents. Whoever forges a file computes it anew; so a signature covers a SHA-256 of
every byte of the file, and says nothing about what the file says of itself.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from holdfast.engine.keys import fingerprint, is_genuine, private_key, public_key
from holdfast.engine.load import check_whole, opened
from holdfast.errors import DamagedCheckpointError, SignatureError
from holdfast.format import signature as form
from holdfast.records import Manifest
from holdfast.source import FileSource, TellingSource
from holdfast.storage import Store, open_store, split_path

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_BLOCK = 1 << 20


def sign(path: str | os.PathLike[str], key: str | os.PathLike[str] | Ed25519PrivateKey) -> str:
    """Sign a whole checkpoint file; the signature is committed beside it, as ``PATH.sig``, whose path is returned.

    An earlier signature is replaced. The checkpoint is not touched.

    Args:
        path: file or fsspec URL.
        key: an ed25519 private key: the path of a PEM or OpenSSH file without a password, or the object of
            ``cryptography``.

    Raises:
        CheckpointNotFoundError: if there is nothing at the path.
        DamagedCheckpointError: if the checkpoint is damaged: nobody should put a name to it.
        ConfigurationError: if the key is none.
        MissingExtraError: if the package ``cryptography`` is not installed.
        OSError: if the signature cannot be written.

    """
    secret = private_key(key)
    with opened(os.fspath(path)) as (source, file):
        check_whole(source, file)
        digest, size = _digest(source)
    signed = secret.sign(form.message(digest, size))
    store, name = _place(path)
    store.put(name, [form.encode(form.Signature(digest, size, fingerprint(secret.public_key()), signed))])
    return store.path(name)


def verify(
    path: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str] | Ed25519PublicKey | None = None,
    progress: Callable[[int], None] | None = None,
) -> Manifest | None:
    """Check every byte of a checkpoint file against its manifest, and return the manifest.

    Returns None for a whole file that was saved without a manifest.

    Args:
        path: file or fsspec URL.
        key: an ed25519 public key: the path of a PEM or OpenSSH file, or the object of ``cryptography``. With
            it the file must also have been signed, with ``sign``, by the owner of the private one.
        progress: called with each amount of bytes checked, from several threads, for a file with a manifest.

    Raises:
        CheckpointNotFoundError: if there is nothing at the path.
        DamagedCheckpointError: if the bytes are not those that were saved; it names the record.
        SignatureError: if there is no signature, or not that key's, or not of these bytes.
        ConfigurationError: if the key is none.
        MissingExtraError: if a key is given and the package ``cryptography`` is not installed.

    """
    public = None if key is None else public_key(key)
    with opened(os.fspath(path)) as (source, file):
        if public is not None:
            _check_signature(source, path, public)
        return check_whole(source if progress is None else TellingSource(source.path, file, progress), file)


def _check_signature(source: FileSource, path: str | os.PathLike[str], key: Ed25519PublicKey) -> None:
    store, name = _place(path)
    try:
        found = form.decode(store.read(name, 0, form.LONGEST))
    except FileNotFoundError as error:
        raise SignatureError(source.path, f"there is no signature {store.path(name)}") from error
    except form.SignatureFormError as error:
        raise SignatureError(source.path, f"{store.path(name)} cannot be read: {error}") from error
    # What the file says of its key is only for the message: whose signature it is, the signature shows.
    if not is_genuine(key, found.signature, form.message(found.sha256, found.size)):
        own = f"it names the key {found.key:.60}, and the key given is {fingerprint(key)}"
        raise SignatureError(source.path, f"{store.path(name)} was not made with the given key: {own}")
    digest, size = _digest(source)
    if size != found.size or not hmac.compare_digest(digest, found.sha256):
        problem = f"{store.path(name)} is of other bytes: the file was changed, or written anew, after it was signed"
        raise SignatureError(source.path, problem)


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
