"""``ModelCheckpoint``: Lightning's events into ours. The packages' classes are in ``holdfast.lightning``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from holdfast.clock import Clock
from holdfast.errors import DirectoryInUseError, SaveError
from holdfast.front.opening import exists, find_last, write_ranking
from holdfast.front.passing import PassingOver
from holdfast.front.preemption import hurried, leave
from holdfast.front.pulse import News
from holdfast.front.sharded import to_ask_for
from holdfast.front.words import Event, Term, admits, open_store, ranks_here
from holdfast.integrations.callback_run import RunMixin
from holdfast.integrations.trainer_facts import is_idle, live_objects

log = logging.getLogger("holdfast")

_SAVE_MODE = frozenset({"async_save", "overlap", "zero_copy", "on_busy", "images", "recycle_blocks"})
_FAILING = frozenset({"on_error", "on_save_error", "max_failures"})
_NOT_POLICY = frozenset(
    {"dirpath", "storage_options", "verbose", "clock", "on_damage", "save_on_signal", "grace_period", "deadline"}
    | {"mirror", "mirror_keep", "mirror_bandwidth", "mirror_wait"}
    | _FAILING
    | _SAVE_MODE
)


class ModelCheckpointCore(RunMixin):
    """Save the model periodically by monitoring a quantity.

    A drop-in for Lightning's class of the same name: the same words, attributes and files, with
    commits that survive a kill, a ranking read from the directory, and files that are verified.

    Args:
        dirpath: directory or fsspec URL; by default the logger's directory, or the Trainer's
            ``default_root_dir``, with ``checkpoints`` below.
        filename: template of the names, such as ``"{epoch}-{val_loss:.2f}"``; by default
            ``"{epoch}-{step}"``.
        monitor: the logged metric to rank by; None keeps the newest.
        verbose: report each decision.
        save_last: keep ``last.ckpt`` at the state of the last epoch (and of each step or time
            save), whatever the ranking; ``"link"`` means the same.
        save_top_k: how many of the best to keep; -1 all, 0 none.
        save_weights_only: leave out the state of the optimizers.
        mode: ``"min"`` or ``"max"``: which scores are better. NaN is worst in both.
        auto_insert_metric_name: write ``val_loss=0.12`` rather than ``0.12`` into names.
        every_n_train_steps: save whenever this many optimizer steps are finished.
        train_time_interval: save whenever this much time has gone by.
        every_n_epochs: save after every so many epochs. Of these three at most one.
        save_on_train_epoch_end: epoch saves happen at the end of the training epoch (True) or of
            the validation (False).
        every_n_val_epochs: deprecated name of ``every_n_epochs``.
        save_on_exception: save the state when training is interrupted, under a name of its own; of several ranks if
            all are interrupted at the same place. Else the others get an error that names the one that was.
        enable_version_counter: append ``-v1``, ``-v2`` … instead of writing over other files.
        on_error: what a save that fails leads to. ``"warn"`` (None means it): a warning with path, cause
            and cure, and an error in the log; training goes on, and the next trigger saves again. The
            ``max_failures``-th failure in a row is raised. ``"raise"``: a ``SaveError``. A save by
            ``save_checkpoint(trainer)`` that fails is raised always.
        max_failures: how many saves may fail with no commit in between.
        on_damage: what ``ckpt_path="last"`` does with damaged checkpoints on the way to the newest whole
            one: ``"skip"`` passes them over with a warning, and sets aside those of this directory, as
            ``x.ckpt.damaged``; ``"raise"`` stops at the first.
        on_save_error: an older name of ``on_error``.
        async_save: a save takes the state and lets training go on; it is written, committed and told to
            the loggers behind it, and its error is raised by the next hook. False waits for the commit.
        overlap: the parameters and the optimizer's state are copied during the next forward and
            backward; the optimizer's next step waits for what is missing.
        zero_copy: the parameters and the optimizer's state live in the image of the file: nothing of
            them is copied, and the optimizer's next step waits until they are written. For saves every
            few steps.
        on_busy: a save that is due while an earlier one is being written waits for it (``"wait"``)
            or is left out (``"skip"``). Both are counted in ``stats``. Those at the end, after an
            exception, and those asked for are never left out.
        images: how many saves may be on their way at a time (1 or 2), each in host memory of the size
            of the state, which is used again and again.
        recycle_blocks: a checkpoint that retention drops gives its blocks to the next one. A program
            that still has the dropped file open sees it change.
        save_on_signal: the signals at which the next batch's end saves, commits, and only then lets the signal
            do what it does: True for SIGTERM, SIGINT, SIGUSR1 and SIGUSR2; or a sequence; False for none. See
            ``docs/preemption.md``.
        grace_period: seconds (or a ``timedelta``) between a signal and the end of the process, if that is known:
            several ranks tell each other of a signal early enough for it, and a save that takes longer is warned of.
        deadline: when the process will be ended: a ``datetime``, or a ``timedelta`` or seconds from now. Early
            enough before it the state is saved once; training goes on. ``"auto"``: the end of the SLURM job.
        keep: rules of what to keep, in the place of ``save_top_k``: ``Latest(3) | Best(2, "val_loss")``. Every
            trigger saves then. See ``docs/retention.md``.
        save_when: when to save, in the place of the three triggers: ``EverySteps(1000) | OnImprovement("val_loss")``.
        mirror: a second place, such as ``"s3://bucket/run"``, to which what is committed is carried behind the
            training, and from which ``ckpt_path="last"`` fetches what is not here. See ``docs/how-to/mirror.md``.
        mirror_keep: the rules of what is kept there; None: as here.
        mirror_bandwidth: bytes per second for the uploads, such as ``"50MB/s"``; None: no limit.
        mirror_wait: whether the end of the fit waits for them: True, with a progress bar; seconds at most; or False.
        storage_options: for a ``dirpath`` or a ``mirror`` that is a URL, as fsspec takes them, and two of our own: see
            ``docs/object-storage.md``. They get into no checkpoint, hyperparameter or log.
        clock: where the time comes from; for tests.

    Attributes:
        best_model_path: the best committed checkpoint, or "".
        best_model_score: its score, a 0-dimensional tensor, or None.
        best_k_models: the scores of the kept checkpoints by path.
        kth_best_model_path: the worst of them, once there are ``save_top_k`` (with ``keep``: at once), or "".
        kth_value: its score.
        last_model_path: the file that ``save_last`` wrote, or "".
        current_score: the score of the newest ranked checkpoint, or None.
        stats: what saving has cost so far; on rank 0.

    Raises:
        MisconfigurationException: for a word that cannot be meant, when the callback is built.
        SaveError: from the hooks, when checkpoints could not be committed, as ``on_error`` says.
        DirectoryInUseError: from ``setup``, on every rank, if another run saves to the directory; nothing was
            touched.

    """

    def __init__(  # noqa: PLR0913, PLR0917 - the field's words, in the order of the documentation
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        verbose: bool = False,  # noqa: FBT001, FBT002
        save_last: bool | Literal["link"] | None = None,  # noqa: FBT001
        save_top_k: int | None = 1,
        save_weights_only: bool = False,  # noqa: FBT001, FBT002
        mode: str = "min",
        auto_insert_metric_name: bool = True,  # noqa: FBT001, FBT002
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,  # noqa: FBT001
        every_n_val_epochs: int | None = None,
        *,
        save_on_exception: bool = False,
        enable_version_counter: bool = True,
        on_error: Literal["warn", "raise"] | None = None,
        max_failures: int = 3,
        on_damage: Literal["skip", "raise"] = "skip",
        on_save_error: Literal["warn", "raise"] | None = None,
        async_save: bool = True,
        overlap: bool = False,
        zero_copy: bool = False,
        on_busy: Literal["wait", "skip"] = "wait",
        images: int = 1,
        recycle_blocks: bool = False,
        save_on_signal: bool | Sequence[int] = True,
        grace_period: float | timedelta | None = None,
        deadline: datetime | timedelta | float | Literal["auto"] | None = "auto",
        keep: Term | Iterable[Term] | str | None = None,
        save_when: Term | Iterable[Term] | str | None = None,
        mirror: str | os.PathLike[str] | None = None,
        mirror_keep: Term | Iterable[Term] | str | None = None,
        mirror_bandwidth: float | str | None = None,
        mirror_wait: bool | float | timedelta = True,
        storage_options: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Check the words.

        Raises:
            MisconfigurationException: for a word that cannot be meant.

        """
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self._init_words({name: value for name, value in given.items() if name not in _NOT_POLICY})
        self._mirror_given = mirror if isinstance(mirror, (str, os.PathLike)) else None
        self._init_dirpath(dirpath, storage_options)
        self._init_mirror(mirror, mirror_keep, mirror_bandwidth, mirror_wait, recycles=recycle_blocks)
        self._init_saving(
            {name: given[name] for name in _FAILING}, on_damage, {name: given[name] for name in _SAVE_MODE}
        )
        self._own_clock = clock
        self._init_signals(save_on_signal)
        self._init_remaining(grace_period, deadline)
        self.verbose = bool(verbose)
        self._init_state()
        self._watch_anew()
        self._last_time_checked: float | None = None
        self._told: set[str] = set()
        self._began = False

    # The hooks of the Trainer.

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Settle on the directory, the same on every rank, and on how files are written."""
        self._settings()
        self._settle_dirpath(trainer)
        if stage == "fit":
            self._take_directory(trainer)
        self._install_io(trainer)
        io = self._own_io(trainer)
        self._bare = io is None
        if io is not None:
            io.trust(live_objects(trainer, pl_module))
        if stage == "fit" and trainer.is_global_zero:
            self._warn_if_not_empty()

    def on_init_end(self, trainer: Any) -> None:
        """Do nothing: when epoch saves happen is settled at each of them, once the loaders are known."""

    def on_pretrain_routine_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Settle on the directory and make it; today's Trainer does not call this, and needs not."""
        self._settle_dirpath(trainer)
        if not trainer.fast_dev_run:
            if trainer.is_global_zero:
                self._warn_if_not_empty()
            self._make_dirpath(trainer)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Start the clock, and find the checkpoints of this run that are already there."""
        self._last_time_checked = self._clock.monotonic()
        self._interrupted = self._failures.ending = False
        if is_idle(trainer):
            return
        self._settle_dirpath(trainer)
        self._leave_to_siblings(trainer)
        memory = replace(self._memory or self._own_memory(), owners=frozenset(self._owners))
        self._run_id = self._agree(trainer, lambda: self._shared_run_id(trainer))
        self._take_directory(trainer)  # ours by now, unless a hook was called by hand: under the name of the run
        self._note_resume(trainer)
        run = self._as_run()
        ledger, self._elsewhere = self._agree(trainer, lambda: self._open(run, memory, trainer.global_step))
        self._set_ledger(ledger)
        self._memory = None
        self._began = True
        self._watch_metric(trainer)
        self._begin_to_hear(trainer)

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Save if a number of steps or a time has gone by; otherwise cheap."""
        if self._pending or self._leaving or not self._warmed:
            try:
                self._look_after(trainer, pl_module)
            except SaveError:  # an earlier save's failure does not cost the one that is due
                self._save_at_batch(trainer, pl_module)
                raise
        self._save_at_batch(trainer, pl_module)
        self._look_ahead_at_batch(trainer)

    def _save_at_batch(self, trainer: Any, pl_module: Any) -> None:
        heard = self._heard_at_batch(trainer)
        due = self._is_due(trainer, pl_module, by_clock=News.DUE in heard.news)
        if due:
            self._handle(trainer, Event.STEP)
        elif News.LANDED in heard.news:
            self._settle(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Take note of the metric before the validation, to know whether it measures it."""
        if not is_idle(trainer):
            self._watch_metric(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Save a checkpoint at the end of the validation stage, if that is when it is due."""
        if not is_idle(trainer):
            self._watch_metric(trainer)
            self._handle(trainer, Event.VALIDATION_END)
            self._at_pause(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Save a checkpoint at the end of the training epoch, if that is when it is due."""
        if not is_idle(trainer):
            self._watch_metric(trainer)
            self._handle(trainer, Event.EPOCH_END)
            self._at_pause(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Bring ``last`` up to the final state, if ``save_last`` is on."""
        self._failures.ending = True
        self._handle(trainer, Event.TRAIN_END)
        self._end_alike()
        leave(self)  # before Lightning puts the handlers back that it has found

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Wait for our own saves; count what another asynchronous ``CheckpointIO`` has written, and say what not."""
        if self._spare:
            self._as_run().store.remove(self._spare)
            self._spare = ""
        if (self._pending or self._leaving) and not trainer.fast_dev_run:
            self._settle(trainer, wait=True)
            for pending in self._pending:
                self._rank_zero_warn(f"the checkpoint {self._path(pending.plan.primary)} was never committed")
        if not self._began and not is_idle(trainer):
            self._agree(trainer, lambda: self._sweep(self._as_run()))  # the Trainer found nothing left to train
        self._finish_mirror()
        self._began = False
        self._pending, self._saver, self._stamps = [], None, {}
        self._close_shards(trainer)
        self._watch_anew()
        self._let_go()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Save the interrupted state under a name of its own, if ``save_on_exception`` is on.

        What was on its way is committed, whatever happened; but nothing is waited for after a second Ctrl-C.
        """
        self._interrupted = True
        try:
            if not hurried():
                self._end_by(trainer, exception)
            self._end_mirror(failed=True)
        finally:
            self._let_go()

    def _end_by(self, trainer: Any, exception: BaseException) -> None:
        if self._saver is not None:
            self._saver.wait()
        if trainer.world_size > 1 and not ranks_here().leave(exception):
            return  # the other ranks are told: they cannot go on, and none saves by itself
        if self._pending or self._leaving:
            self._settle(trainer, wait=True)
        if not self.save_on_exception or is_idle(trainer) or isinstance(exception, (SaveError, DirectoryInUseError)):
            return
        plan = self._handle(trainer, Event.EXCEPTION)
        if plan is not None and plan.names:
            self._rank_zero_info(
                f"An {type(exception).__name__} was raised with message: {exception!s}, saved checkpoint to "
                f"{self._path(plan.primary)}"
            )

    # What users call.

    def save_checkpoint(self, trainer: Any) -> None:
        """Save now, by the policy: ranked if its score admits it, and ``last``. Call it on all ranks.

        Raises:
            ValueError: if ``trainer.save_checkpoint`` is None.
            MisconfigurationException: if the monitored metric is missing after a validation ran.
            SaveError: if it could not be committed, whatever ``on_error`` says.

        """
        if trainer.save_checkpoint is None:
            msg = "`trainer.save_checkpoint` is None: there is no way to write a checkpoint"
            raise ValueError(msg)
        self._settle_dirpath(trainer)
        self._install_io(trainer)
        self._run_id = self._agree(trainer, lambda: self._shared_run_id(trainer))
        self._handle(trainer, Event.REQUEST, forced=True)

    def check_monitor_top_k(self, trainer: Any, current: Any = None) -> bool:
        """Tell, the same on every rank, whether this score belongs among the best ``save_top_k``."""
        if current is None:
            return False
        entries = self._ledger.entries
        return self._agree(trainer, lambda: admits(entries, float(current), self.save_top_k, self.mode))

    def file_exists(self, filepath: str | os.PathLike[str], trainer: Any) -> bool:
        """Tell whether a file exists on rank 0, the same on every rank."""
        return self._agree(trainer, lambda: exists(filepath))

    def to_yaml(
        self, filepath: str | os.PathLike[str] | None = None, *, path: str | os.PathLike[str] | None = None
    ) -> None:
        """Write ``best_k_models`` as YAML ``{path: score}``, by default to ``dirpath/best_k_models.yaml``.

        Raises:
            MisconfigurationException: if no path is given and no directory is known yet.
            SaveError: naming the path and the cause.

        """
        given = filepath if filepath is not None else path
        if given is None and not self.dirpath:
            msg = "`to_yaml()` has no `dirpath` to write to yet: give a path, or call it after training began"
            raise self._misconfiguration(msg)
        write_ranking(
            given if given is not None else self._path("best_k_models.yaml"),
            {name: float(score) for name, score in self.best_k_models.items()},
        )

    def _find_last_checkpoints(self, trainer: Any) -> set[str]:
        """Return what ``ckpt_path="last"`` may resume from: the newest whole ``last``.

        The Trainer asks on every rank, before they can agree: only rank 0 sets damaged files aside.
        """
        dirpath = self._resolve_dirpath(trainer)
        passing = PassingOver(open_store(dirpath) if trainer.is_global_zero else None, self.on_damage)
        try:
            found = find_last(dirpath, self._settings(), passing, self._look_for_second(dirpath))
            return {to_ask_for(path) for path in found}
        finally:
            self._damaged = frozenset(passing.damaged)
