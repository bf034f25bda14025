"""What the policy wants to know of a Trainer, read from it. Works with either package's."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any


def is_idle(trainer: Any) -> bool:
    """Tell whether nothing is to be written: a dry run, a sanity check, or no fit at all."""
    return bool(trainer.fast_dev_run) or trainer.state.fn != "fit" or bool(trainer.sanity_checking)


def metrics_of(trainer: Any) -> dict[str, float]:
    """Return every metric known that is one number, as floats."""
    return {
        str(name): float(value)
        for name, value in trainer.callback_metrics.items()
        if isinstance(value, (int, float)) or getattr(value, "numel", lambda: 0)() == 1
    }


def saves_at_epoch_end(trainer: Any, chosen: bool | None) -> bool:  # noqa: FBT001
    """Tell whether epoch saves happen at the end of the training epoch, or of the validation.

    What the user chose; else at the end of the validation if it does not simply run once after
    every epoch (Lightning 2.6's rule).
    """
    if chosen is not None:
        return chosen
    if getattr(trainer, "_val_check_time_interval", None) is not None:
        return False
    if trainer.check_val_every_n_epoch != 1:
        return False
    return _validation_batches(trainer) == 0 or trainer.val_check_interval == 1.0


def _validation_batches(trainer: Any) -> float:
    batches = getattr(trainer, "num_val_batches", 0)
    return float(sum(batches)) if isinstance(batches, list) else float(batches)


def validation_ran(trainer: Any) -> bool:
    """Tell whether a validation has run in this fit."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    return bool(getattr(loop, "_has_run", False))


def validation_follows(trainer: Any) -> bool:
    """Tell whether a validation starts right after this batch, as far as the Trainer lets us know.

    Only spares a second write of the same state: if it is wrong, nothing is lost.
    """
    loop = trainer.fit_loop.epoch_loop
    will_validate = getattr(loop, "_should_check_val_fx", None)
    fetcher = getattr(trainer.fit_loop, "_data_fetcher", None)
    if will_validate is None or fetcher is None or not _validation_batches(trainer):
        return False
    try:
        return bool(will_validate(fetcher))
    except (AttributeError, TypeError):  # a Trainer whose insides have changed
        return False


def amid_accumulation(trainer: Any) -> bool:
    """Tell whether gradients are held that no checkpoint has: the optimizer has not stepped with this batch."""
    accumulates = getattr(trainer.fit_loop.epoch_loop, "_should_accumulate", None)
    automatic = trainer.lightning_module.automatic_optimization
    return automatic and accumulates is not None and bool(accumulates())


def live_objects(trainer: Any, pl_module: Any) -> list[object]:
    """Return what the running program itself would save: the pattern of what it may load back."""
    live: list[object] = []
    for owner in (pl_module, trainer.datamodule):
        hparams = getattr(owner, "hparams", None)
        if isinstance(hparams, Mapping):
            live.append(dict(hparams))
    for callback in trainer.callbacks:
        with contextlib.suppress(Exception):  # one that is not set up yet may have no state to show
            live.append(callback.state_dict())
    return live


def epoch_end_follows(trainer: Any) -> bool:
    """Tell whether a batch that has just ended is the last of its epoch, and nothing long comes before the epoch's end.

    After a resume from a last batch, Lightning 2.6 miscounts: a later resume from the middle of an epoch begins that
    epoch again. After one from the end of the epoch it does not.
    """
    return bool(trainer.is_last_batch) and not validation_follows(trainer)


def writes_itself(strategy: Any) -> bool:
    """Tell whether a strategy writes its checkpoints itself, past every ``CheckpointIO``: directories of shards."""
    sharded = getattr(strategy, "_save_distributed_checkpoint", False) or shards_as_fsdp(strategy)
    return bool(sharded) or "DeepSpeed" in type(strategy).save_checkpoint.__qualname__


def shards_as_fsdp(strategy: Any) -> bool:
    """Tell whether a strategy saves shards under FSDP's own names: its model is called ``model``."""
    return getattr(strategy, "_state_dict_type", "") == "sharded"
