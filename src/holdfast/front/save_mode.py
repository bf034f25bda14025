"""How saves are carried out: what both front doors are told of it, checked in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.policy.moment import Event

# Saves that nothing comes after, or that were asked for.
FINAL = frozenset({Event.TRAIN_END, Event.EXCEPTION, Event.SIGNAL, Event.DEADLINE, Event.REQUEST})


@dataclass(frozen=True)
class SaveMode:
    """How saves are carried out.

    Attributes:
        async_save: take the state and go on training; write and commit behind it.
        overlap: copy parameters and the optimizer's state during the next forward and backward.
        zero_copy: have parameters and the optimizer's state live in the image of the file, so that nothing
            of them is copied; the optimizer's step waits until they are written.
        on_busy: what happens to a save that comes while an earlier one is being written: ``"wait"`` or
            ``"skip"``. Those at the end, after an exception or asked for always wait.
        images: how many saves may be on their way at a time, each in host memory of its own.
        recycle_blocks: write over the blocks of checkpoints that retention has dropped.

    """

    async_save: bool = True
    overlap: bool = False
    zero_copy: bool = False
    on_busy: str = "wait"
    images: int = 1
    recycle_blocks: bool = False

    @property
    def reads_on(self) -> bool:
        """Whether tensors are still read after a save has returned."""
        return self.overlap or self.zero_copy

    @property
    def without_shards(self) -> str:
        """What there is to warn of, once the state turns out to be sharded; "" if nothing."""
        without = [word for word in ("zero_copy", "recycle_blocks") if getattr(self, word)]
        if not without:
            return ""
        words = " and ".join(f"`{word}`" for word in without)
        return f"{words}: of no effect, as the state is sharded: each rank copies its part, and writes a new file"


def make_save_mode(**words: Any) -> SaveMode:
    """Check the words.

    Raises:
        ConfigurationError: for one that cannot be meant.

    """
    mode = SaveMode(**words)
    if mode.on_busy not in ("wait", "skip"):
        msg = f"`on_busy` can be 'wait' or 'skip' but got {mode.on_busy!r}"
        raise ConfigurationError(msg)
    if isinstance(mode.images, bool) or mode.images not in (1, 2):
        msg = f"`images` can be 1 or 2 but got {mode.images!r}"
        raise ConfigurationError(msg)
    if (mode.overlap or mode.zero_copy or mode.images > 1) and not mode.async_save:
        msg = "`overlap`, `zero_copy` and `images=2` need async_save=True: behind a save that waits nothing goes on"
        raise ConfigurationError(msg)
    if mode.zero_copy and mode.images > 1:
        msg = "`zero_copy` needs images=1: the state can live in one image only"
        raise ConfigurationError(msg)
    return mode
