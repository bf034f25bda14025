"""The part of ``Checkpointer`` that goes on from a checkpoint."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from typing import Any

import torch

from holdfast.catalog import Found, scan
from holdfast.engine import quiesce
from holdfast.engine.globals import globals_of
from holdfast.front.loop_saving import LoopSaving
from holdfast.front.loop_state import collect, living, restore
from holdfast.front.loop_words import identity_of
from holdfast.front.opening import Into, load_into, load_newest
from holdfast.front.planning import Run, names_of
from holdfast.front.reopening import Remembered, reopen
from holdfast.front.siblings import beside, has_sibling
from holdfast.front.standing import standing
from holdfast.front.start import Start
from holdfast.policy.ledger import Ledger
from holdfast.records import Facts, Lineage
from holdfast.storage import open_store, split_path


class LoopResuming(LoopSaving):
    """Finds the newest whole checkpoint, puts its state back, and takes over the files of its run."""

    dirpath: str
    allow: tuple[Any, ...]
    _step: int
    _epoch: int
    _batches: int
    _start_path: str

    @property
    def run(self) -> Run:
        """What stays the same while it saves."""
        return self._run

    @property
    def sequence(self) -> int:
        """How many saves the run had asked for by the newest of this checkpointer."""
        return self._ledger.sequence

    def resume(self, path: str | os.PathLike[str] | None = None) -> Start:
        """Restore the newest whole checkpoint of the directory, or the one given; or start afresh.

        Damaged checkpoints are passed over with a warning that names them. What could not be
        restored is in the answer's ``missed``, and warned of.

        Raises:
            LoadError: if the given checkpoint is missing, damaged, unsafe or not of this model.

        """
        self._settle(wait=True)
        quiesce()  # other checkpointers' saves, too, may be reading what is written over
        live = collect(self._parts, weights_only=False, loop={})
        over = living(self._parts, live)
        allowed = [*self.allow, *globals_of([live])]
        read: dict[str, Any] = {}  # by rank 0, while it looked for the newest that is whole
        chosen = self._agree(lambda: os.fspath(path) if path is not None else self._read_newest(over, allowed, read))
        if chosen is None:
            return Start(reason=f"a fresh start: there is no whole checkpoint with a full state in {self.dirpath}")
        state = read.pop(chosen) if chosen in read else load_into(chosen, Into(over), allow=allowed)
        missed = restore(self._parts, state, chosen)
        if missed:
            warnings.warn(f"resumed from {chosen} without {', '.join(missed)}", stacklevel=2)
        self._step = int(state.get("global_step", 0))
        self._epoch = int(state.get("next_epoch", state.get("epoch", 0)))
        self._batches = int(state.get("batches", 0))
        self._go_on_from(chosen)
        self._ledger = replace(self._ledger, deferred=str(state.get("deferred", "")))
        for other in self._beside():
            if other._step == 0:  # noqa: SLF001 - one class
                other._follow(self)  # noqa: SLF001 - one class
        which = "the newest whole checkpoint" if path is None else "the checkpoint that was asked for"
        return Start(self._epoch, self._step, self._batches, chosen, f"{which}: {chosen}", tuple(missed))

    def _read_newest(self, over: dict[str, torch.Tensor], allowed: list[Any], read: dict[str, Any]) -> str | None:
        """Rank 0 only: return the newest checkpoint that is whole, its state left in ``read``."""
        found = scan(self._run.store, extension=self._run.settings.style.extension, depth=self._run.depth)
        newest = load_newest(found, over, allow=allowed)
        if newest is None:
            return None
        item, state = newest
        read[item.path] = state
        return item.path

    def _go_on_from(self, path: str) -> None:
        """Continue the run that saved this checkpoint, with the files it has in the directory."""
        self._start_path = path
        store, step = self._run.store, self._step
        name = store.name_of(path)

        def find() -> tuple[Run, Ledger]:
            root, own_name = split_path(path)
            found = scan(open_store(root), extension=None)
            facts = next((item.facts for item in found if item.name == own_name), None) or Facts()
            run = replace(self._run, resumed_from=Lineage(name or path, step, facts.run or None))
            if name is None or not facts.run:
                return run, reopen(run, Remembered(), step)
            run = replace(run, run=facts.run, protected=names_of(store, path))
            return run, reopen(run, Remembered(owners=self._earlier_owners(facts.owner, found)), step)

        run, self._ledger = self._agree(find)
        self._run = replace(run, store=store, clock=self._run.clock)
        self._adopt(standing(self._ledger, self._run.settings), self._path)

    def _beside(self) -> list[LoopResuming]:
        """Return the other checkpointers of the same loop, in an order that is the same on every rank."""
        others = [other for other in beside(self) if isinstance(other, LoopResuming)]
        return [other for other in others if other._parts.model is self._parts.model]  # noqa: SLF001 - one class

    def _follow(self, leader: LoopResuming) -> None:
        """Take the position of a checkpointer of the same loop that has resumed."""
        self._step, self._epoch, self._batches = leader._step, leader._epoch, leader._batches
        self._go_on_from(leader._start_path)

    def _earlier_owners(self, owner: str, found: list[Found]) -> frozenset[str]:
        """Take over the files of this checkpointer as it was with another ``save_top_k``, if that is gone."""
        kin = owner.startswith(identity_of(self._run.settings).kin)
        own = any(item.facts is not None and item.facts.owner == self._run.owner for item in found)
        return frozenset({owner} if kin and not own and not has_sibling(self, owner) else ())
