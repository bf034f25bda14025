"""Which classes the safe loader may use.

A fallback from the safe to the unsafe loader would hand the choice to whoever wrote the file. So the
list grows only by what the caller names, and by the plain values below, whose construction runs no
code of the file's choosing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import io
import pathlib
import pickle
import pickletools
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import torch


def _empty_bytes() -> bytes:
    """Stand in for ``bytes``, which a pickle calls to build an empty one; with a number it takes memory."""
    return b""


_ONE_AT_A_TIME = threading.RLock()

# No class that iterates over, or allocates by, a number that the file names.
HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
    dt.timezone,
    pathlib.Path,
    pathlib.PosixPath,
    pathlib.PurePath,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
    pathlib.WindowsPath,
    uuid.UUID,
    (_empty_bytes, "builtins.bytes"),
    set,
    frozenset,
    complex,
    slice,
)


@contextlib.contextmanager
def permitting(allow: Sequence[Any]) -> Iterator[None]:
    """Let torch's safe loader use the plain values and these classes; one at a time, as its list is the process's.

    What the user has added to the list stays there: torch's own context manager would take it away.
    """
    with _ONE_AT_A_TIME:
        known = torch.serialization.get_safe_globals()
        with torch.serialization.safe_globals([item for item in (*HARMLESS, *allow) if item not in known]):
            yield


def needed_globals(file: BinaryIO) -> list[str]:
    """Return what the safe loader would have to be allowed for a file, by name; none where that cannot be told."""
    file.seek(0)
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # noqa: BLE001 - what a pickle can make of the bytes of a stranger knows no bounds
        return []


def globals_of(values: Iterable[object]) -> list[Any]:
    """Return the classes and functions that pickles of these live objects refer to.

    What the running program itself holds is what it trusts: the hyperparameters it was started
    with may be loaded back, and nothing else.
    """
    found: dict[tuple[str, str], Any] = {}
    for value in values:
        for module, name in _references(value):
            found[module, name] = _resolve(module, name)
    return [item for item in found.values() if item is not None]


def _references(value: object) -> set[tuple[str, str]]:
    buffer = io.BytesIO()
    try:
        _StorageFree(buffer, protocol=2).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError):
        return set()  # what cannot be pickled was not saved either
    names = set()
    for opcode, argument, _ in pickletools.genops(buffer.getvalue()):
        if opcode.name == "GLOBAL" and isinstance(argument, str):
            module, _, name = argument.partition(" ")
            names.add((module, name))
    return names


class _StorageFree(pickle.Pickler):
    """Pickles without the bytes of tensors."""

    def persistent_id(self, obj: Any) -> str | None:
        storages = (torch.UntypedStorage, torch.storage.TypedStorage)
        return "storage" if isinstance(obj, storages) else None


def _resolve(module: str, name: str) -> Any:
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value
