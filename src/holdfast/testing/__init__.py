"""Instruments that find out whether a saver keeps what it promises, of holdfast's or of your own.

``holdfast.testing.kills``: a process is killed, or a call of it fails, at each call that touches a folder.
``holdfast.testing.power``: every state that a power cut may leave of what a saver has written.
``holdfast.testing.damage``: damages of every region of a file, and what a reader makes of them.
``holdfast.testing.objects``: requests of an object store that are counted, or that fail on purpose.
``holdfast.testing.object_faults``: what may go wrong with one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.testing.objects import CountingObjects, FaultyObjects

__all__ = ["CountingObjects", "FaultyObjects"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: nothing here costs a program that tests nothing."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from holdfast.testing import objects  # noqa: PLC0415 - see above

    return getattr(objects, name)
