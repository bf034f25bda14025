"""The part of ``ModelCheckpoint`` that begins and ends a run: its directory, and what it resumed from."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from holdfast.clock import Clock
from holdfast.errors import LoadError
from holdfast.front.forgetting import forget, sweep_up, taking
from holdfast.front.leaving import tell
from holdfast.front.note_words import NoteWords
from holdfast.front.opening import beyond, is_filled, make_folder, set_torn_aside
from holdfast.front.owning import Owned, own
from holdfast.front.planning import Run, names_of, with_notes
from holdfast.front.preemption import hurried, leave
from holdfast.front.reopening import Remembered, reopen
from holdfast.front.sharded import asked_for
from holdfast.front.words import open_store, ranks_here
from holdfast.integrations.callback_pulse import PulseMixin
from holdfast.records import Lineage


class RunMixin(PulseMixin, NoteWords):
    """Takes the directory, reads it, and lets go of it."""

    _owned: Owned | None = None  # rank 0 only

    def _note_clock(self) -> Clock:
        return self._clock

    def _take_directory(self, trainer: Any) -> None:
        """Before anything in it is touched; an error of rank 0 is raised on every rank."""
        if not trainer.fast_dev_run:
            self._agree(trainer, self._own)

    def _own(self) -> None:
        """Rank 0 only."""
        before, self._owned = self._owned, own(self, replace(self._as_run(), run=self._run_id))
        if before is not None:
            before()

    def _let_go(self) -> None:
        """All is over: give the directory up, and let a signal that still waits act."""
        while self._leaving and not hurried():  # what an exception has left
            left = self._leaving.popleft().look(wait=True)
            if left is not None:
                tell(left)
        if self._owned is not None and not hurried():  # a save that is on its way has the directory until its end
            self._owned()
            self._owned = None
        leave(self)

    def _settle_dirpath(self, trainer: Any) -> None:
        self.dirpath = trainer.strategy.broadcast(self._resolve_dirpath(trainer))
        self._use_options()

    def _make_dirpath(self, trainer: Any) -> None:
        self._agree(trainer, lambda: make_folder(self.dirpath or os.getcwd()))

    def _warn_if_not_empty(self) -> None:
        if self.save_top_k != 0 and is_filled(self.dirpath or os.getcwd()):
            self._rank_zero_warn(f"Checkpoint directory {self.dirpath} exists and is not empty.")

    def _note_resume(self, trainer: Any) -> None:
        """Remember what the run resumed from, for its manifests and for its protection.

        Raises:
            LoadError: on every rank, if the ranks have found different things to go on from.

        """
        path = asked_for(str(getattr(trainer, "ckpt_path", None) or ""))
        if trainer.world_size > 1:
            self._check_alike(path, trainer.global_step)
        if path:
            store = open_store(self.dirpath or os.getcwd())
            self._protected = names_of(store, path)
            self._resumed = Lineage(path=store.name_of(path) or path, step=trainer.global_step)

    def _check_alike(self, path: str, step: int) -> None:
        """On every rank: each has looked for itself, as the Trainer asks before they can talk."""
        found = ranks_here().exchange((path, step), at="the start of the training")
        if len({step for _, step in found}) > 1:
            told = "; ".join(
                f"rank {rank}: step {step} ({path or 'nothing'})" for rank, (path, step) in enumerate(found)
            )
            msg = (
                f"the ranks go on from different states: {told[:1000]}. Give `dirpath` on a filesystem that all of "
                "them see, or as `ckpt_path` a checkpoint that all have"
            )
            raise LoadError(msg)

    def _open(self, run: Run, memory: Remembered, step: int) -> Any:
        """Rank 0 only: clear away what a crash left, and read the directory."""
        self._sweep(run)
        damaged, self._damaged = self._damaged, frozenset()
        if self._resumed is not None and self._protected:  # it goes on from a file of this directory
            damaged |= set_torn_aside(run, damaged)
        afar = self._beyond(run) if self._resumed is not None else []
        self._elsewhere = frozenset(item.name for item in afar)
        ledger = with_notes(run, reopen(run, memory, step, damaged, afar))
        self._begin_mirror(run)
        return ledger, self._elsewhere

    def _beyond(self, run: Run) -> list[Any]:
        """Rank 0 only: what only the mirror has."""
        second = self._second or self._look_for_second(run.store.root)
        return [] if second is None else beyond(second, run)

    def _finish_mirror(self) -> None:
        """Rank 0 only, at the end of the fit: wait for the uploads; then what only they still needed here goes."""
        for name in self._end_mirror(failed=False):
            run, ledger = self._as_run(), self._ledger
            try:
                with taking(run, ledger, name, self._stamps) as left:
                    if not left:
                        run.store.remove(name)
                if not left:
                    forget(run, ledger, ledger, name)
                    self._set_ledger(ledger.without(name))
            except OSError as error:
                self._rank_zero_warn(f"the old checkpoint {run.store.path(name)} could not be removed: {error}")

    def _sweep(self, run: Run) -> None:
        """Rank 0 only."""
        for name in sweep_up(run):
            self._rank_zero_info(f"removed {run.store.path(name)}, which an interrupted save had left behind")
