"""A training script as a value, drawn from a seed."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

TEMPLATES = (
    None,
    "model",
    "{epoch}",
    "{step}-{val_loss:.2f}",
    "{epoch:02d}_{train_loss:.1f}",
    "{val_loss:.0f}",
    "best-{val_loss}",
)


@dataclass(frozen=True)
class Configuration:
    """One script: the words of the callback, the Trainer's schedule and the metrics that it will log."""

    seed: int
    words: dict[str, Any] = field(default_factory=dict)
    batches: int = 2
    epochs: int = 2
    max_steps: int = -1
    accumulate: int = 1
    steps_by_hand: int | None = None  # optimizer steps in each batch; None: automatic optimization
    validates: bool = True
    every_epochs: int | None = 1  # check_val_every_n_epoch
    interval: float = 1.0  # val_check_interval
    dry: bool = False  # fast_dev_run
    sanity: int = 0
    val_losses: tuple[float, ...] = (3.0, 2.0, 1.0)
    train_losses: tuple[float, ...] = (3.0, 2.0, 1.0)

    def word(self, name: str, default: Any = None) -> Any:
        """Return one of the callback's words."""
        return self.words.get(name, default)

    @property
    def epochs_period(self) -> int:
        """Every how many epochs it saves: every one where no trigger was named."""
        named = {"every_n_train_steps", "every_n_epochs", "train_time_interval"} & set(self.words)
        return self.word("every_n_epochs", 0) if named else 1

    @property
    def trainer_words(self) -> dict[str, Any]:
        """What the Trainer is told."""
        return {
            "max_epochs": self.epochs,
            "max_steps": self.max_steps,
            "accumulate_grad_batches": self.accumulate,
            "check_val_every_n_epoch": self.every_epochs,
            "val_check_interval": self.interval,
            "fast_dev_run": self.dry,
            "num_sanity_val_steps": self.sanity,
        }


def configuration(seed: int) -> Configuration:
    """Draw a configuration; the same for the same seed, for ever."""
    draw = random.Random(seed)  # noqa: S311 - a seed, not a secret
    batches = draw.randint(2, 5)
    by_hand = draw.choice((1, 1, 2)) if draw.random() < 0.2 else None
    validates = draw.random() < 0.8
    every_epochs, interval = _validation(draw, batches) if validates else (1, 1.0)
    return Configuration(
        seed=seed,
        words=_trigger(draw) | _ranking(draw) | _last(draw) | _names(draw),
        batches=batches,
        epochs=draw.randint(1, 4),
        max_steps=draw.randint(1, 8) if draw.random() < 0.12 else -1,
        accumulate=draw.choice((1, 1, 2)) if by_hand is None else 1,
        steps_by_hand=by_hand,
        validates=validates,
        every_epochs=every_epochs,
        interval=interval,
        dry=draw.random() < 0.04,
        sanity=int(draw.random() < 0.1),
        val_losses=_metrics(draw),
        train_losses=_metrics(draw),
    )


def _trigger(draw: random.Random) -> dict[str, Any]:
    kind = draw.choice(("default", "steps", "epochs", "time"))
    words: dict[str, dict[str, Any]] = {
        "default": {},
        "steps": {"every_n_train_steps": draw.randint(1, 4)},
        "epochs": {"every_n_epochs": draw.choice((0, 1, 1, 2, 2, 3))},
        "time": {"train_time_interval": timedelta(0)},
    }
    ends = draw.choice((None, None, True, False))
    return words[kind] | ({} if ends is None else {"save_on_train_epoch_end": ends})


def _ranking(draw: random.Random) -> dict[str, Any]:
    monitor = draw.choice((None, "val_loss", "val_loss", "train_loss", "train_loss"))
    if draw.random() < 0.03:
        monitor = "never_logged"
    k = draw.choice((-1, 0, 1, 1) if monitor is None else (-1, 0, 1, 2, 2, 3))
    return {"monitor": monitor, "save_top_k": k, "mode": draw.choice(("min", "max"))}


def _last(draw: random.Random) -> dict[str, Any]:
    save_last = draw.choice((None, None, True, "link"))
    return ({} if save_last is None else {"save_last": save_last}) | {"save_weights_only": draw.random() < 0.25}


def _names(draw: random.Random) -> dict[str, Any]:
    words = {"filename": draw.choice((None, None, *TEMPLATES))}
    if draw.random() < 0.15:
        words["enable_version_counter"] = False
    if draw.random() < 0.15:
        words["auto_insert_metric_name"] = False
    return words


def _validation(draw: random.Random, batches: int) -> tuple[int | None, float]:
    count = draw.randint(1, batches)
    return draw.choice(((1, 1.0), (1, 1.0), (2, 1.0), (1, 0.5), (1, count), (2, count), (None, count + 1)))


def _metrics(draw: random.Random) -> tuple[float, ...]:
    """Values with ties now and then, at times a NaN or an infinity, that float32 holds exactly."""
    pool = [0.25 * n for n in range(draw.choice((2, 5, 40)))]
    if draw.random() < 0.25:
        pool += [math.nan] * max(1, len(pool) // 4)
    if draw.random() < 0.08:
        pool += [math.inf, -math.inf]
    return tuple(draw.choice(pool) for _ in range(24))
