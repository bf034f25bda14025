"""The part of ``ModelCheckpoint`` that begins and ends a run: its directory, and the signals that ask it to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.front.owning import Owned, own
from holdfast.front.preemption import answer, asked, hurried, leave, listen, make_signals
from holdfast.front.saving import quiesce
from holdfast.front.words import Event
from holdfast.integrations.callback_deciding import DecidingMixin
from holdfast.integrations.trainer_facts import amid_accumulation, is_idle


class RunMixin(DecidingMixin):
    """Takes the directory, hears signals, and lets go of both."""

    _signals: frozenset[int] = frozenset()
    _owned: Owned | None = None  # rank 0 only

    def _init_signals(self, given: bool | Sequence[int]) -> None:  # noqa: FBT001 - the user's own value
        try:
            signals = make_signals(given)
        except ConfigurationError as error:
            raise self._misconfiguration(str(error)) from None
        self._owned = None
        if not (self.save_weights_only and given is True):  # nobody could resume from those
            self._signals = signals

    def _take_directory(self, trainer: Any) -> None:
        """Before anything in it is touched; an error of rank 0 is raised on every rank."""
        if not trainer.fast_dev_run:
            self._agree(trainer, self._own)

    def _own(self) -> None:
        """Rank 0 only."""
        before, self._owned = self._owned, own(self, replace(self._as_run(), run=self._run_id))
        if before is not None:
            before()

    def _hear_signals(self, trainer: Any) -> None:
        """From the start of the training: Lightning has set its own handlers by then, which ours hand on to."""
        if trainer.world_size == 1:  # no rank of several may save by itself
            listen(self, self._signals)

    def _answer_signals(self, trainer: Any) -> None:
        """If a signal came: save what a resume goes on from, and let the signal act."""
        if asked and not (is_idle(trainer) or amid_accumulation(trainer)):
            answer(self, partial(self._save_for_signal, trainer))

    def _save_for_signal(self, trainer: Any) -> None:
        self._handle(trainer, Event.SIGNAL)
        quiesce()  # what others have on its way is committed as well

    def _let_go(self) -> None:
        """All is over: give the directory up, and let a signal that still waits act."""
        if self._owned is not None and not hurried():  # a save that is on its way has the directory until its end
            self._owned()
            self._owned = None
        leave(self)
