"""What the two Lightning packages have in common: a class of theirs with none of its logic."""

from __future__ import annotations

from typing import Any, NoReturn


def without_logic(stock: type, core: type) -> dict[str, Any]:
    """Return what hides every method of the stock class that ours does not replace.

    Our class has to be a subclass of theirs for ``isinstance``; but a method of theirs that
    worked on our attributes would be wrong in silence, so each one says that it is not there.
    """
    ours = {name for base in core.__mro__[:-1] for name in vars(base)}
    hidden = {}
    for name, value in vars(stock).items():
        if name not in ours and (callable(value) or isinstance(value, property)) and not _is_plumbing(name):
            hidden[name] = _absent(name)
    return hidden


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
