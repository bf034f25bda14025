"""The part of ``ModelCheckpoint`` that looks ahead: what several ranks tell each other, signals, the deadline.

On steps that save nothing the ranks talk only where a clock, a signal or a save that is on its way needs it, and then
by one small message every so many batches: see ``front/pulse.py``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from holdfast.errors import ConfigurationError, RankError
from holdfast.front.planning import Plan
from holdfast.front.preemption import agree_on, agreed, answer, answer_together, asked, listen, signals_of, will_end
from holdfast.front.pulse import QUIET, Heard, News, Pulse
from holdfast.front.remaining import make_remaining
from holdfast.front.saving import quiesce
from holdfast.front.words import Event, ranks_here
from holdfast.integrations.callback_deciding import DecidingMixin
from holdfast.integrations.trainer_facts import amid_accumulation, epoch_end_follows, is_idle

log = logging.getLogger("holdfast")

_OF_AN_INTERVAL = 0.1  # by so much of it a timed save of several ranks may be late


class PulseMixin(DecidingMixin):
    """Hears what asks for a save or for the end, on every rank at the same batch."""

    _signals: frozenset[int] = frozenset()
    _pulse: Pulse | None = None  # of several ranks, while they train
    _ahead = False  # rank 0 of several has said that the deadline is near

    def _init_signals(self, given: bool | Sequence[int]) -> None:  # noqa: FBT001 - the user's own value
        try:
            signals = signals_of(self._settings(), given)
        except ConfigurationError as error:
            raise self._misconfiguration(str(error)) from None
        if not (self.save_weights_only and given is True):  # nobody could resume from those
            self._signals = signals

    def _init_remaining(self, grace_period: object, deadline: object) -> None:
        try:
            self._remaining = make_remaining(grace_period, deadline, self._clock)
        except ConfigurationError as error:
            raise self._misconfiguration(str(error)) from None

    def _begin_to_hear(self, trainer: Any) -> None:
        """From the start of the training: Lightning has set its own handlers by then, which ours hand on to."""
        several = trainer.world_size > 1
        self._ahead = False
        self._pulse = Pulse(ranks_here(), self._signals, self._clock, asked) if several else None
        self._remaining.share(partial(self._agree, trainer))
        listen(self, self._signals, together=several, grace=self._remaining.grace)

    def _handle(self, trainer: Any, event: Event, *, forced: bool = False) -> Plan | None:
        if self._pulse is not None:
            self._pulse.soon()  # a save, a validation: batches may take another time from here on
        return super()._handle(trainer, event, forced=forced)

    @property
    def _talks(self) -> bool:
        """Whether several ranks have to tell each other anything between saves; the same on every rank."""
        return bool(self._signals or self._timed or self._remaining.at is not None or self._pending)

    def _heard_at_batch(self, trainer: Any) -> Heard:
        """Return what all ranks know of at this batch: of one that is alone its own clock says all."""
        if self._pulse is None or not (self._talks and self._pulse.due()):
            return QUIET
        return self._beat(trainer, self._pulse, f"step {trainer.global_step}")

    def _beat(self, trainer: Any, pulse: Pulse, at: str) -> Heard:
        news, limit = partial(self._news, trainer, pulse), partial(self._limit, trainer)
        heard = pulse.beat(news, limit, at=at)
        agree_on(heard.signals)
        self._ahead = self._ahead or News.DEADLINE in heard.news
        return heard

    def _news(self, trainer: Any, pulse: Pulse) -> News:
        """Rank 0 only: what there is to tell."""
        news = News.NONE
        if self._timed and self._time_asks(trainer):
            news |= News.DUE
        head = self._pending[0] if self._pending else None
        if head is not None and (not head.ours or (head.flight is not None and head.flight.done)):
            news |= News.LANDED
        if self._remaining.is_due(pulse.between):
            news |= News.DEADLINE
        return news

    def _limit(self, trainer: Any) -> float:
        """Rank 0 only: how many seconds of training may go by until the ranks talk again."""
        seconds = self._interval(trainer)
        return min(math.inf if seconds is None else _OF_AN_INTERVAL * seconds, self._remaining.limit())

    def _look_ahead_at_batch(self, trainer: Any) -> None:
        waits = asked or agreed or self._remaining.at is not None
        if waits and not epoch_end_follows(trainer):
            self._look_ahead(trainer)

    def _at_pause(self, trainer: Any) -> None:
        """At the end of a validation or an epoch."""
        if self._pulse is not None and self._talks:
            self._beat(trainer, self._pulse, self._at)
        self._look_ahead(trainer)

    def _look_ahead(self, trainer: Any) -> None:
        """Save what a resume goes on from, if the deadline is near or a signal came; then the signal acts."""
        if is_idle(trainer) or amid_accumulation(trainer):
            return
        if self._remaining.is_due() if self._pulse is None else self._ahead:
            if trainer.is_global_zero:
                log.warning("the deadline is in %.0f s: saving before it", self._remaining.left)
            self._remaining.done()
            self._ahead = False
            self._handle(trainer, Event.DEADLINE)
        save = partial(self._save_for_signal, trainer)
        if self._pulse is None:
            answer(self, save)
        else:
            answer_together(self, save, partial(self._meet, self._pulse))

    def _save_for_signal(self, trainer: Any) -> None:
        self._handle(trainer, Event.SIGNAL)
        quiesce()  # what others have on its way is committed as well
        if self._uploads is not None and will_end():  # nobody comes back from it to the end of the fit
            self._end_mirror(failed=True)

    def _meet(self, pulse: Pulse) -> None:
        """Come back once every rank is here."""
        try:
            ranks_here().highest([0])
        except RankError as error:  # it has ended before this one knew that all are here
            log.info("a rank has ended already: %s", error)
        pulse.soon()

    def _end_alike(self) -> None:
        """At the end of the training: a signal that came to one of several ranks acts on all."""
        if self._pulse is not None and self._signals:
            agree_on(self._pulse.beat(at="the end of the training").signals)
