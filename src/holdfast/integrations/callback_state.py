"""The part of ``ModelCheckpoint`` that survives a resume: its key and its state.

Paths are stored relative to the checkpoint directory, so that a run which was moved or copied keeps
its ranking. What the state says is only a hint: the directory decides (``planning.reopen``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from holdfast.front.attributes import RankingAttributes, as_tensor, score_tensor
from holdfast.front.identity import Identity, find_state
from holdfast.front.opening import is_filled
from holdfast.front.planning import Run, new_run_id
from holdfast.front.reopening import Remembered, reopen
from holdfast.front.sharded import asked_for
from holdfast.front.standing import standing
from holdfast.front.words import Ledger, is_local, join_path, open_store, real_path, same_place
from holdfast.integrations.callback_names import NamesMixin
from holdfast.records import Lineage
from holdfast.telling import warn

_OURS = "holdfast"


class StateMixin(NamesMixin, RankingAttributes):
    """Key, state, attributes."""

    def _init_state(self) -> None:
        self._run_id = ""
        self._owners: tuple[str, ...] = ()
        self._ledger = Ledger()
        self._prospect: Ledger | None = None
        self._memory: Remembered | None = None
        self._resumed: Lineage | None = None
        self._loaded_from = ""
        self._bare = False
        self._damaged: frozenset[str] = frozenset()
        self._others_dirpaths: frozenset[str] = frozenset()
        self._protected: frozenset[str] = frozenset()
        self._elsewhere: frozenset[str] = frozenset()  # names in the ledger that only the mirror has
        self._adopt(standing(self._ledger, self._settings()), self._path)

    @property
    def _identity(self) -> Identity:
        given = self._notation
        return Identity(
            name=type(self).__qualname__,
            seed={
                "monitor": self.monitor,
                "mode": self.mode,
                "every_n_train_steps": self._every_n_train_steps,
                "every_n_epochs": self._every_n_epochs,
                "train_time_interval": self._train_time_interval,
                "save_on_train_epoch_end": self._save_on_train_epoch_end,
                **{word: given[word] for word in ("save_when",) if word in given},
            },
            detail={
                "filename": self.filename,
                "save_top_k": self.save_top_k,
                "save_weights_only": self.save_weights_only,
                **{word: given[word] for word in ("keep",) if word in given},
            },
            dirpath=self._dirpath_given,
        )

    @property
    def state_key(self) -> str:
        """Identifies the callback's state among those of a checkpoint."""
        return self._identity.key

    @property
    def _owner(self) -> str:
        return self._identity.owner

    def _path(self, name: str) -> str:
        return join_path(self.dirpath or os.getcwd(), name) if name else ""

    def _set_ledger(self, ledger: Ledger) -> None:
        elsewhere = self.best_model_path if not ledger.entries else ""
        self._ledger = ledger
        self._adopt(standing(ledger, self._settings()), self._path)
        if elsewhere and not self.best_model_path:
            self.best_model_path = elsewhere

    def _expected_ledger(self) -> Ledger:
        """Return the ledger as it will be when a file that is written now is committed."""
        return self._ledger

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with paths relative to the checkpoint directory.

        While a checkpoint is being written this is the state after its commit, and after the commits
        of those before it: it is read only if the commit succeeds.
        """
        ledger = self._prospect or self._expected_ledger()
        now = standing(ledger, self._settings())
        return {
            "monitor": self.monitor,
            "best_model_score": score_tensor(now.best_score),
            "best_model_path": now.best or ("" if ledger.entries else self.best_model_path),
            "current_score": score_tensor(now.current_score),
            "dirpath": ".",
            "best_k_models": {name: as_tensor(score) for name, score in now.best_k.items()},
            "kth_best_model_path": now.kth,
            "kth_value": as_tensor(now.kth_value),
            "last_model_path": now.last,
            _OURS: {
                "run": self._run_id,
                "owners": sorted({self._owner, *self._owners}),
                "sequence": ledger.sequence,
                "deferred": ledger.deferred,
                "home": self.dirpath,
                "bare": self._bare_names(ledger),
                "scores": {entry.name: entry.score for entry in ledger.entries},
            },
        }

    def _own_memory(self) -> Remembered:
        entries = self._ledger.entries
        return Remembered(
            scores={entry.name: entry.score for entry in entries},
            last=self._ledger.last.name if self._ledger.last is not None else "",
            current_score=self._ledger.current_score,
            sequence=self._ledger.sequence,
            owners=frozenset(self._owners),
            bare=frozenset(self._bare_names(self._ledger)),
        )

    def _bare_names(self, ledger: Ledger) -> list[str]:
        """Return the files that were saved without a manifest: by another plugin, or by Lightning's class."""
        known = [*ledger.entries, *([ledger.last] if ledger.last is not None else [])]
        return [entry.name for entry in known if self._bare or entry.sequence <= 0]

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the ranking from a state of ours, of Lightning 2.x or of 1.5 and later.

        Only files that are there count. A state from another directory brings its
        ``best_model_path`` along and nothing else.
        """
        ours = state_dict.get(_OURS)
        saved_in = str(state_dict.get("dirpath") or "")
        memory = _memory_of_ours(state_dict, ours) if ours is not None else _memory_of_stock(state_dict, saved_in)
        if ours is not None:
            self._run_id = ours["run"] or self._run_id
            self._owners = tuple(ours["owners"])
        noted = str(ours.get("home") or "") if ours is not None else saved_in
        home = self._home_of(memory, noted, self._hint(noted) if ours is not None else saved_in)
        if home and self.dirpath is not None and not same_place(home, self.dirpath):
            self._take_best_from(home, state_dict, saved_in)
            return
        if not home and self._is_a_fork():
            self._run_id, memory = "", Remembered()
        self._memory = memory
        if self.dirpath is not None:
            self._set_ledger(reopen(self._as_run(), memory, 0))

    def _is_a_fork(self) -> bool:
        """Tell whether training begins from a file that lies in the directory of no callback: a new run then."""
        places = [place for place in (self.dirpath, *self._others_dirpaths) if place]
        path = self._loaded_from
        return bool(path) and bool(places) and all(open_store(place).name_of(path) is None for place in places)

    def _hint(self, noted: str) -> str:
        """Return where the state was saved, for a callback whose directory is the logger's, not the user's."""
        return noted if noted and self._dirpath_given is None and is_filled(noted) else ""

    def _home_of(self, memory: Remembered, noted: str, otherwise: str) -> str:
        """Return the directory whose ranking this state holds; "" where it can only be this callback's own.

        That is the directory that the state notes, if it is the callback's own today. Else the run may have
        been moved: then the file it was loaded from tells, if it is one of those that the state ranks. A file
        of another callback tells nothing, though it may be called the same (``last.ckpt``).
        """
        if noted and self.dirpath is not None and same_place(noted, self.dirpath):
            return noted
        known = [name for name in (*memory.scores, memory.last) if name]
        match = next((name for name in known if self._loaded_from.endswith("/" + name)), None)
        if match is None:
            return otherwise
        home = self._loaded_from[: -len(match) - 1]
        return otherwise if any(same_place(home, other) for other in self._others_dirpaths) else home

    def _take_best_from(self, home: str, state: Mapping[str, Any], saved_in: str) -> None:
        warn(
            f"The dirpath has changed from {home!r} to {self.dirpath!r}, therefore `best_model_score`, "
            "`kth_best_model_path`, `kth_value`, `last_model_path` and `best_k_models` won't be reloaded. "
            "Only `best_model_path` will be reloaded."
        )
        name = _relative(str(state.get("best_model_path") or ""), saved_in)
        self._run_id = ""
        if name and open_store(home).exists(name):
            self.best_model_path = join_path(home, name)

    def _siblings(self, trainer: Any) -> list[StateMixin]:
        return [other for other in trainer.callbacks if isinstance(other, StateMixin) and other is not self]

    def _shared_run_id(self, trainer: Any) -> str:
        """Return the identifier that all callbacks of this training share."""
        known = (other._run_id for other in self._siblings(trainer))
        return self._run_id or next(filter(None, known), "") or new_run_id()

    def _leave_to_siblings(self, trainer: Any) -> None:
        """Give up the files of an owner that is there itself: a callback whose words this one had before."""
        taken = {other._owner for other in self._siblings(trainer)}
        self._owners = tuple(owner for owner in self._owners if owner not in taken)

    def _share_sequence(self, trainer: Any) -> None:
        """Count on from the newest save of any callback, so that the saves of a run have one order."""
        issued = (other._ledger.sequence for other in self._siblings(trainer))
        self._ledger = replace(self._ledger, sequence=max(self._ledger.sequence, *issued, 0))

    def _as_run(self) -> Run:
        return Run(
            settings=self._settings(),
            store=open_store(self.dirpath or os.getcwd()),
            run=self._run_id or new_run_id(),
            owner=self._owner,
            kind="lightning",
            bare=self._bare,
            resumed_from=self._resumed,
            protected=self._protected,
            clock=self._clock,
        )

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the state, as the hook of Lightning 1.5 did; today's Trainer calls ``state_dict``."""
        return self.state_dict()

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, callback_state: Any) -> None:  # noqa: ARG002
        """Take note of the file that is being loaded, and restore states saved under other keys.

        Takes the callback's state, as in Lightning 1.5, or the whole checkpoint, as in 2.x.
        """
        if "callbacks" not in callback_state:
            if "best_model_path" in callback_state:
                self.load_state_dict(callback_state)
            return
        self._loaded_from = real_path(asked_for(str(getattr(trainer, "ckpt_path", None) or "")))
        dirpaths = {getattr(other, "dirpath", None) for other in trainer.callbacks} - {None, self.dirpath}
        self._others_dirpaths = frozenset(map(str, dirpaths))
        siblings = [other._identity for other in self._siblings(trainer)]
        key = find_state(self._identity, callback_state["callbacks"], siblings)
        if key is not None and key != self.state_key:
            self.load_state_dict(deepcopy(callback_state["callbacks"][key]))


def _memory_of_ours(state: Mapping[str, Any], ours: Mapping[str, Any]) -> Remembered:
    return Remembered(
        scores=dict(ours["scores"]),
        last=state["last_model_path"],
        current_score=_as_float(state.get("current_score")),
        sequence=ours["sequence"],
        deferred=ours.get("deferred", ""),
        bare=frozenset(ours.get("bare", ())),
        owners=frozenset(ours["owners"]),
    )


def _memory_of_stock(state: Mapping[str, Any], saved_in: str) -> Remembered:
    scores = {_relative(path, saved_in): _as_float(score) for path, score in (state.get("best_k_models") or {}).items()}
    best = _relative(str(state.get("best_model_path") or ""), saved_in)
    if not scores and best:
        scores = {best: _as_float(state.get("best_model_score"))}
    last = _relative(str(state.get("last_model_path") or ""), saved_in)
    return Remembered(
        scores=scores,
        last=last,
        current_score=_as_float(state.get("current_score")),
        bare=frozenset((*scores, last)),
    )


def _relative(path: str, folder: str) -> str:
    """Return a stored path relative to the directory it was stored with."""
    if folder and path.startswith(folder.rstrip("/") + "/"):
        return path[len(folder.rstrip("/")) + 1 :]
    absolute = not is_local(path) or os.path.isabs(path)
    return path.rpartition("/")[2] if absolute else path


def _as_float(value: Any) -> float | None:
    return None if value is None else float(value)
