"""What the two Lightning packages have in common: a class of theirs with none of its logic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

C = TypeVar("C")


def without_logic_of(stock: type) -> Callable[[type[C]], type[C]]:
    """Hide every method of the stock class that the decorated subclass does not replace.

    It has to be a subclass for ``isinstance``; but a method of theirs that worked on our attributes
    would be wrong in silence, so each one says that it is not there.
    """

    def hide(ours: type[C]) -> type[C]:
        for name, value in vars(stock).items():
            inherited = getattr(ours, name) is getattr(stock, name)
            if inherited and (callable(value) or isinstance(value, property)) and not _is_plumbing(name):
                setattr(ours, name, _absent(name))
        return ours

    return hide


def described_by(core: type) -> Callable[[type[C]], type[C]]:
    """Give the decorated class the description of the class that does its work."""

    def describe(ours: type[C]) -> type[C]:
        ours.__doc__ = core.__doc__
        return ours

    return describe


def _is_plumbing(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _absent(name: str) -> Any:
    def absent(self: object, *_: object, **__: object) -> NoReturn:
        msg = (
            f"{type(self).__name__}.{name} is a private method of Lightning's class that holdfast's does not "
            "have: use save_checkpoint(trainer) to save now"
        )
        raise NotImplementedError(msg)

    absent.__name__ = name
    return absent
