"""A signature as bytes: JSON in a file of its own beside the checkpoint, ``NAME.sig``.

It holds what was signed (SHA-256 and length of the checkpoint file, whole), by which key, and the signature.
Of a sharded checkpoint it lies beside the directory, and the SHA-256 is that of the list of its files with theirs.
Nothing else is ever read from it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

SUFFIX = ".sig"
LONGEST = 1 << 16  # bytes that are read of a signature's file

_FORMAT, _ALGORITHM = 1, "ed25519"
_DOMAIN = b"holdfast checkpoint signature 1\0"  # so that no signature made for something else can stand for one
_DIRECTORY_DOMAIN = b"holdfast checkpoint directory signature 1\0"
_DIGEST_SIZE, _SIGNATURE_SIZE = 32, 64
_LARGEST = 2**63


class SignatureFormError(ValueError):
    """The bytes are no signature of the form that this holdfast reads."""


@dataclass(frozen=True)
class Signature:
    """What stands in the file.

    Attributes:
        sha256: of all bytes of the checkpoint file; of the list of files of a sharded one.
        size: how many they are.
        key: the fingerprint of the public key, as OpenSSH shows it.
        signature: of ``message(sha256, size)``.

    """

    sha256: bytes
    size: int
    key: str
    signature: bytes


def message(sha256: bytes, size: int, *, directory: bool = False) -> bytes:
    """Return the bytes that are signed: of a file, or of a directory with its list of files."""
    return (_DIRECTORY_DOMAIN if directory else _DOMAIN) + sha256 + size.to_bytes(8, "big")


def encode(signature: Signature) -> bytes:
    """Return the file's bytes."""
    value = {
        "holdfast_signature": _FORMAT,
        "algorithm": _ALGORITHM,
        "sha256": signature.sha256.hex(),
        "size": signature.size,
        "key": signature.key,
        "signature": base64.b64encode(signature.signature).decode(),
    }
    return json.dumps(value, indent=2).encode() + b"\n"


def decode(data: bytes) -> Signature:
    """Read the file's bytes.

    Raises:
        SignatureFormError: if they are none.

    """
    try:
        value: Any = json.loads(data)
        kind = (value["holdfast_signature"], value["algorithm"])
        signed = base64.b64decode(value["signature"], validate=True)
        found = Signature(bytes.fromhex(value["sha256"]), value["size"], value["key"], signed)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        msg = f"it is not of a signature's form: {type(error).__name__}"
        raise SignatureFormError(msg) from error
    if kind != (_FORMAT, _ALGORITHM):
        msg = f"its form {kind[0]!r:.20} or algorithm {kind[1]!r:.20} is unknown to this holdfast"
        raise SignatureFormError(msg)
    if type(kind[0]) is not int or base64.b64encode(signed).decode() != value["signature"]:
        msg = "it is not written as a signature is"
        raise SignatureFormError(msg)
    sizes = len(found.sha256) == _DIGEST_SIZE and len(found.signature) == _SIGNATURE_SIZE
    number = type(found.size) is int and 0 <= found.size < _LARGEST
    if not (sizes and number and isinstance(found.key, str)):
        msg = "its values are not those of a signature"
        raise SignatureFormError(msg)
    return found
