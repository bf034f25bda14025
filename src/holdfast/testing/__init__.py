"""Instruments that find out whether a saver keeps what it promises, of holdfast's or of your own.

``holdfast.testing.kills``: a process is killed, or a call of it fails, at each call that touches a folder.
``holdfast.testing.power``: every state that a power cut may leave of what a saver has written.
``holdfast.testing.damage``: damages of every region of a file, and what a reader makes of them.
``holdfast.testing.objects``: requests of an object store that are counted, or that fail on purpose.
``holdfast.testing.object_faults``: what may go wrong with one.
``holdfast.testing.StoreSuite``: the exam that every store passes; yours by a short subclass (``docs/stores.md``).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.storage.remote.connect import wrapping
    from holdfast.testing.objects import CountingObjects, FaultyObjects
    from holdfast.testing.store_suite import BundleSuite, StoreSuite

__all__ = ["BundleSuite", "CountingObjects", "FaultyObjects", "StoreSuite", "wrapping"]

_SUITES = ("BundleSuite", "StoreSuite")
_HOMES = {
    "CountingObjects": "holdfast.testing.objects",
    "FaultyObjects": "holdfast.testing.objects",
    "wrapping": "holdfast.storage.remote.connect",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: nothing here costs a program that tests nothing.

    Raises:
        ImportError: for the exam, where pytest or hypothesis is missing, naming what to install.

    """
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    if name in _SUITES:
        return getattr(_store_suite(), name)
    return getattr(importlib.import_module(_HOMES[name]), name)


def _store_suite() -> ModuleType:
    place = f"{__name__}.store_suite"
    try:
        import pytest  # noqa: PLC0415 - see above

        if place not in sys.modules:
            pytest.register_assert_rewrite(place)  # or a failed assertion would not show what it has compared
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name not in {"pytest", "hypothesis"}:
            raise
        msg = f"the exam of a store needs {error.name}: pip install 'holdfast[testing]'"
        raise ImportError(msg) from error
