"""What is said of a moment at which a save is due: why there is none, or how good it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.policy import ranking
from holdfast.policy.ledger import Entry, Ledger
from holdfast.policy.moment import Moment
from holdfast.policy.settings import Settings

if TYPE_CHECKING:
    from holdfast.front.planning import Run


def missing_message(settings: Settings, moment: Moment) -> str:
    """Say which metric is missing and which there were."""
    known = sorted(moment.metrics)
    return (
        f"ModelCheckpoint(monitor={settings.monitor!r}) could not find the monitored key in the returned "
        f"metrics: {known}. HINT: Did you call `log({settings.monitor!r}, value)` in the `LightningModule`?"
    )


def when(settings: Settings, moment: Moment) -> str:
    """Return the place of a moment in the training, and what was to be measured there."""
    return f"Epoch {moment.epoch}, global step {moment.step}: {settings.monitor!r}"


def saving_message(run: Run, ledger: Ledger, moment: Moment, score: float, name: str) -> str:
    """Say how good a state is that is about to be saved."""
    settings = run.settings
    best = ranking.best((*ledger.entries, Entry("", score, 0, 0, ledger.sequence + 1)), settings.mode)
    shown = best.score if best is not None and best.score is not None else score
    k = len(ledger.entries) + 1 if settings.save_top_k == -1 else settings.save_top_k
    return (
        f"{when(settings, moment)} reached {score:0.5f} (best {shown:0.5f}), "
        f"saving model to {run.store.path(name)!r} as top {k}"
    )
