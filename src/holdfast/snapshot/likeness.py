"""Whether two ranks hold the same state: told by a few bytes that they can send each other."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from typing import Any

import torch

from holdfast.format.digest import crc32

_LARGE = 1 << 20  # bytes from which a tensor goes by its CRC-32: a cryptographic digest of it would be felt


def fingerprint(state: object) -> bytes:
    """Return 16 bytes that are the same for states with the same structure and values, on whatever device.

    States of mappings, lists, tuples, tensors and whatever can be pickled. The order of a mapping counts.
    """
    digest = hashlib.blake2b(digest_size=16)
    _feed(digest, state)
    return digest.digest()


def on_host(state: Any) -> Any:
    """Return the state with its tensors in this host's memory, each a copy of its own, to be sent to another rank."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: on_host(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(on_host(item) for item in state)
    return state


def _feed(digest: hashlib.blake2b, value: object) -> None:
    if isinstance(value, torch.Tensor):
        _feed_tensor(digest, value)
    elif isinstance(value, Mapping):
        digest.update(b"{%d" % len(value))
        for key, item in value.items():
            _feed(digest, key)
            _feed(digest, item)
    elif isinstance(value, (list, tuple)):
        digest.update(b"[%d" % len(value))
        for item in value:
            _feed(digest, item)
    else:
        data = pickle.dumps(value, protocol=4)
        digest.update(b"%d:" % len(data))
        digest.update(data)


def _feed_tensor(digest: hashlib.blake2b, tensor: torch.Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    data: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    digest.update(crc32(data).to_bytes(4, "little") if data.nbytes >= _LARGE else data)
