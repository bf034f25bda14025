"""ed25519 keys, by the package ``cryptography``, which only this module imports."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.errors import ConfigurationError, MissingExtraError, SaveError
from holdfast.storage import open_regular
from holdfast.storage.durable import write_new

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Path = str | os.PathLike[str]

T = TypeVar("T")

_LONGEST = 1 << 16  # bytes of a key's file


def keygen(path: Path) -> str:
    """Make a key pair: the private key at the path, for its owner's eyes alone, the public one at ``PATH.pub``.

    Both are OpenSSH's kind of file. Nothing that is there is written over. Returns the fingerprint of the
    public key, as ``ssh-keygen -l`` shows it.

    Raises:
        MissingExtraError: if the package ``cryptography`` is not installed.
        SaveError: if one of the files is there already, or cannot be written.

    """
    forms, ed25519 = _cryptography()
    private = ed25519.Ed25519PrivateKey.generate()
    secret = private.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())
    name = os.fspath(path)
    public = private.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH)
    file = f"{name}.pub"  # first: a secret without its public key would be in the way of the next attempt
    try:
        write_new(file, public + b" holdfast\n", 0o644)
        file = name
        write_new(file, secret, 0o600)
    except OSError as error:
        msg = f"the key {file} was not written: {error.strerror}. Choose another path: no key is written over"
        raise SaveError(msg, path=file, errno=error.errno) from error
    return fingerprint(private.public_key())


def private_key(key: Path | Ed25519PrivateKey) -> Ed25519PrivateKey:
    """Return a private key: one of ``cryptography`` as it is, or from a PEM or OpenSSH file.

    Raises:
        ConfigurationError: if there is no unencrypted ed25519 private key there.
        MissingExtraError: if the package ``cryptography`` is not installed.

    """
    forms, ed25519 = _cryptography()
    loaders = (forms.load_ssh_private_key, forms.load_pem_private_key)
    kind: type[Ed25519PrivateKey] = ed25519.Ed25519PrivateKey
    return _key(key, kind, [lambda data, load=load: load(data, None) for load in loaders])


def public_key(key: Path | Ed25519PublicKey) -> Ed25519PublicKey:
    """Return a public key: one of ``cryptography`` as it is, or from a PEM or OpenSSH file.

    Raises:
        ConfigurationError: if there is no ed25519 public key there.
        MissingExtraError: if the package ``cryptography`` is not installed.

    """
    forms, ed25519 = _cryptography()
    kind: type[Ed25519PublicKey] = ed25519.Ed25519PublicKey
    return _key(key, kind, [forms.load_ssh_public_key, forms.load_pem_public_key])


def is_genuine(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Tell whether the owner of a key has signed a message."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra

    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return what ``ssh-keygen -l`` shows of a public key: ``SHA256:`` and 43 letters."""
    forms, _ = _cryptography()
    line = key.public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _key(key: Any, kind: type[T], loaders: list[Any]) -> T:
    if isinstance(key, kind):
        return key
    what = "private" if "Private" in kind.__name__ else "public"
    if not isinstance(key, (str, os.PathLike)):
        msg = f"`key`={key!r}: give the path of an ed25519 {what} key, or a {kind.__name__}"
        raise ConfigurationError(msg)
    try:
        with open_regular(os.fspath(key)) as file:
            data = file.read(_LONGEST)
    except OSError as error:
        msg = f"`key`={os.fspath(key)!r} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from error
    for load in loaders:
        try:
            found = load(data)
        except Exception:  # noqa: BLE001, S112 - of another form; cryptography has an error of its own for each
            continue
        if isinstance(found, kind):
            return found
    msg = (
        f"`key`={os.fspath(key)!r} is no ed25519 {what} key in PEM or OpenSSH form, without a password. "
        "`holdfast keygen PATH` makes a private key PATH and a public key PATH.pub"
    )
    raise ConfigurationError(msg)


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - an extra
    except ImportError as error:
        package, extra = "cryptography", "sign"
        raise MissingExtraError(package, extra) from error
    return serialization, ed25519
