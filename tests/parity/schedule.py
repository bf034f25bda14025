"""The Trainer's schedule without a Trainer: which events follow one another, and what is known at each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from tests.parity.configurations import Configuration


@dataclass(frozen=True)
class Event:
    """One pause of the training at which a callback is called.

    Attributes:
        kind: ``"batch"``, ``"validation"``, ``"epoch"`` or ``"end"``: what has just ended.
        step: finished optimizer steps.
        epoch: the epoch, from 0.
        metrics: the newest value of each metric that was logged.
        measured: the step at which each of them was logged.
        last_batch: whether the batch was the last of its epoch.
        validation_epoch: whether there are validations in this epoch, as far as Lightning knows by now.
        follows: whether one comes right after this batch, as far as Lightning knows by now.
        validated: whether one has run.

    """

    kind: str
    step: int
    epoch: int
    metrics: dict[str, float]
    measured: dict[str, int]
    last_batch: bool = False
    validation_epoch: bool = False
    follows: bool = False
    validated: bool = False

    def fresh(self, metric: str) -> bool:
        """Tell whether the metric was logged at the step where the training stands now."""
        return metric in self.metrics and self.measured[metric] == self.step


@dataclass
class _Known:
    """The metrics so far."""

    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    measured: dict[str, int] = field(default_factory=dict)
    validations: int = 0

    def log(self, name: str, values: tuple[float, ...], place: int) -> None:
        self.metrics[name] = values[place % len(values)]
        self.measured[name] = self.step

    def event(self, kind: str, epoch: int, **more: bool) -> Event:
        validated = self.validations > 0
        return Event(kind, self.step, epoch, dict(self.metrics), dict(self.measured), validated=validated, **more)


def events(config: Configuration) -> Iterator[Event]:
    """Yield the events of a whole fit, in order."""
    known = _Known()
    epochs, batches = (1, 1) if config.dry else (config.epochs, config.batches)
    batch_numbers = count()
    epoch = 0
    while epoch < epochs and not _finished(config, known):
        for batch in range(batches):
            number = next(batch_numbers)
            yield from _one_batch(config, known, epoch, batch, number, last=batch == batches - 1)
            if _finished(config, known):
                break
        yield known.event("epoch", epoch)
        epoch += 1
    yield known.event("end", epoch)


def _one_batch(
    config: Configuration, known: _Known, epoch: int, batch: int, number: int, *, last: bool
) -> Iterator[Event]:
    known.step += _steps(config, batch, last=last)
    known.log("train_loss", config.train_losses, number)
    here = config.validates and (config.dry or config.every_epochs is None or (epoch + 1) % config.every_epochs == 0)
    follows = here and _is_check(config, batch, number, last=last)
    # Lightning loads the data of the validation at the start, if it is for this epoch, or when it comes.
    loaded = config.every_epochs in (1, None) or config.sanity > 0 or known.validations > 0
    yield known.event("batch", epoch, last_batch=last, validation_epoch=here and loaded, follows=follows and loaded)
    if follows:
        known.log("val_loss", config.val_losses, known.validations)
        known.validations += 1
        yield known.event("validation", epoch)


def _steps(config: Configuration, batch: int, *, last: bool) -> int:
    if config.steps_by_hand is not None:
        return config.steps_by_hand
    return int(last or (batch + 1) % config.accumulate == 0)


def _is_check(config: Configuration, batch: int, number: int, *, last: bool) -> bool:
    """Tell whether this batch is one after which the validation is due."""
    if config.dry:
        return last
    every = config.interval if isinstance(config.interval, int) else max(1, int(config.batches * config.interval))
    return ((number if config.every_epochs is None else batch) + 1) % every == 0


def _finished(config: Configuration, known: _Known) -> bool:
    return config.max_steps != -1 and known.step >= config.max_steps


def saves_at_epoch_end(config: Configuration) -> bool:
    """Tell whether epoch saves happen at the end of the training epoch (else of the validation)."""
    chosen = config.word("save_on_train_epoch_end")
    if chosen is not None:
        return bool(chosen)
    if config.dry:
        return True
    return config.every_epochs == 1 and (not config.validates or config.interval == 1)
