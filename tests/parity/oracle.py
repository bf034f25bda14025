"""When each class saves: Lightning 2.6's rules, amended row by row into holdfast's.

With no row it predicts the stock class, with all of them ours. It shares no line with the library.
"""

from __future__ import annotations

from tests.parity.configurations import Configuration
from tests.parity.outcome import Outcome
from tests.parity.rows import Row
from tests.parity.schedule import Event, events, saves_at_epoch_end
from tests.parity.shelf import Shelf


class _MissingMetricError(Exception):
    """Training stops: the monitored metric was never logged."""


def predict(config: Configuration, rows: frozenset[Row]) -> Outcome:
    """Return what a training leaves behind when these rows of the contract hold."""
    oracle = _Oracle(config, rows)
    raised = False
    try:
        for event in events(config):
            oracle.see(event)
    except _MissingMetricError:
        raised = True
    return oracle.shelf.outcome(raised=raised, warned=oracle.warned)


class _Oracle:
    def __init__(self, config: Configuration, rows: frozenset[Row]):
        self.config = config
        self.rows = rows
        self.shelf = Shelf(config, rows)
        self.monitor = config.word("monitor")
        self.at_epoch_end = saves_at_epoch_end(config)
        self.manual = config.steps_by_hand is not None
        self.ranked_step = 0
        self.saved_step = 0
        self.waits = False
        self.warned = False

    def see(self, event: Event) -> None:
        if event.kind == "end":
            self._end(event)
        elif self.config.dry:
            return
        elif event.kind == "batch":
            if self._is_due(event):
                self._batch(event)
        else:
            self._pause(event)

    def _is_due(self, event: Event) -> bool:
        n = self.config.word("every_n_train_steps", 0)
        timed = "train_time_interval" in self.config.words and (not self.manual or Row.MANUAL in self.rows)
        return timed or (n > 0 and event.step % n == 0)

    def _is_saved(self, event: Event) -> bool:
        """Tell whether this state is ranked already; to Lightning, any file of it counts."""
        return event.step == (self.ranked_step if Row.LAST in self.rows else self.saved_step)

    def _batch(self, event: Event) -> None:
        saved = self._is_saved(event)
        none_yet = event.step == 0 and (Row.STEPS in self.rows or self.manual)
        if self._must_wait(event) and not none_yet and not (saved and event.step > 0):
            self.waits = True
            if Row.MISSING in self.rows and self.monitor not in event.metrics and self.config.word("save_top_k") != 0:
                self.warned = True
            if Row.LAST in self.rows:
                self._last(event)
            return
        if not saved:
            self._ranked(event)
        if not saved or Row.LAST in self.rows:
            self._last(event)

    def _must_wait(self, event: Event) -> bool:
        if self.monitor is None:
            return False
        if Row.FRESH in self.rows and not event.fresh(self.monitor):
            return True
        comes = event.follows if Row.AT_ONCE in self.rows else event.validation_epoch
        before_validation = event.last_batch and comes and not self.at_epoch_end and not self.manual
        return self.monitor not in event.metrics or before_validation

    def _pause(self, event: Event) -> None:
        here = (event.kind == "epoch") == self.at_epoch_end
        saved = self._is_saved(event)
        if self.waits and not saved and self._has_come(event, here=here):
            self._ranked(event)
            self._last(event)
            self.waits = False
            return
        n = self.config.epochs_period
        if here and not saved and n > 0 and (event.epoch + 1) % n == 0:
            self._ranked(event)
        if Row.LAST in self.rows:
            if event.kind == "epoch" or here or self.waits:
                self._last(event)
        elif here and not saved:
            linked = self.config.word("save_last") == "link" and self.shelf.newest
            if self.saved_step == event.step or linked:
                self._last(event)

    def _has_come(self, event: Event, *, here: bool) -> bool:
        """Tell whether a save that waits is made now."""
        if Row.LATER not in self.rows and not (event.kind == "validation" and here):
            return False
        if Row.FRESH in self.rows:
            return event.fresh(self.monitor)
        return self.monitor in event.metrics or Row.MISSING not in self.rows

    def _end(self, event: Event) -> None:
        if self.config.dry and Row.DRY in self.rows:
            return
        if Row.LAST in self.rows or not self.shelf.newest:
            self._last(event)

    def _ranked(self, event: Event) -> None:
        if self.config.word("save_top_k") == 0:
            return
        score = None
        if self.monitor is not None:
            if self.monitor not in event.metrics:
                if event.validated:
                    raise _MissingMetricError
                self.warned = True
                return
            score = event.metrics[self.monitor]
            if not self.shelf.admits(score):
                return
        self.shelf.put(event, score)
        self.ranked_step = self.saved_step = event.step

    def _last(self, event: Event) -> None:
        if not self.config.word("save_last"):
            return
        if Row.LAST in self.rows:
            if event.step > 0:
                self.shelf.put_last(event)
        elif self.config.word("save_last") == "link" and self.shelf.newest and self.config.word("save_top_k") != 0:
            self.shelf.link_last()
        else:
            self.shelf.put_last(event)
            self.saved_step = event.step
