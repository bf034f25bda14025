"""``Checkpointer``: the policy, the commits and the resume for a plain PyTorch loop."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal

from typing_extensions import Self, Unpack

from holdfast.clock import Clock, SystemClock
from holdfast.errors import ConfigurationError, SaveError
from holdfast.front.failures import make_failures
from holdfast.front.forgetting import sweep_up
from holdfast.front.loop_mirror import LoopMirror
from holdfast.front.loop_state import Parts, Stateful
from holdfast.front.loop_words import identity_of, known
from holdfast.front.metrics_apart import MetricsApart
from holdfast.front.mirror_words import make_mirror_words
from holdfast.front.note_words import NoteWords
from holdfast.front.owning import own
from holdfast.front.passing import checked_on_damage
from holdfast.front.planning import Run
from holdfast.front.preemption import agreed, asked, hurried, leave, prepare, signals_of
from holdfast.front.pulse import Pulse
from holdfast.front.remaining import make_remaining
from holdfast.front.save_mode import make_save_mode
from holdfast.front.siblings import close_beside, open_beside, shared_run_id
from holdfast.front.standing import standing
from holdfast.policy.ledger import Ledger
from holdfast.policy.moment import Event
from holdfast.policy.settings import Words, make_settings
from holdfast.policy.terms import Term
from holdfast.storage import is_local, open_store, use_options

log = logging.getLogger("holdfast")


class Checkpointer(LoopMirror, NoteWords):
    """Saves a plain PyTorch loop, keeps the checkpoints worth keeping, gives back the newest whole one.

    Args:
        dirpath: directory or fsspec URL.
        model: its ``state_dict`` is saved.
        optimizer: one, or a sequence of them.
        lr_scheduler: one, or a sequence of them.
        stateful: further objects with ``state_dict`` and ``load_state_dict``, by name.
        allow: classes that the safe loader may use at resume, besides those of the live objects.
        on_error: what a save that fails leads to. ``"warn"`` (None means it): a warning with path, cause
            and cure, and an error in the log; training goes on, and the next trigger saves again. The
            ``max_failures``-th failure in a row is raised. ``"raise"``: a ``SaveError``.
        max_failures: how many saves may fail with no commit in between.
        on_damage: what ``resume`` does with damaged checkpoints: ``"skip"`` or ``"raise"``.
        async_save: a save takes the state and lets training go on; it is written and committed behind
            it, and its error is raised by the next call. False waits for the commit.
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
        save_on_signal: the signals at which the next step saves, commits, and only then lets the signal do
            what it does: True for SIGTERM, SIGINT, SIGUSR1 and SIGUSR2, or those of ``OnSignal`` in ``save_when``;
            or a sequence; False for none. See ``docs/preemption.md``.
        grace_period: seconds (or a ``timedelta``) between a signal and the end of the process, if that is known:
            several ranks tell each other of a signal early enough for it, and a save that takes longer is warned of.
        deadline: when the process will be ended: a ``datetime`` (one without a zone is this machine's), or a
            ``timedelta`` or seconds from now. Early enough before it, by what the saves have taken, the state is
            saved once; training goes on. ``"auto"``: the end of the SLURM job, where there is one. None: none.
        mirror: a second place, such as ``"s3://bucket/run"``, to which what is committed is carried behind the
            training, and from which ``resume`` fetches what is not here. ``dirpath`` is a local directory then. See
            ``docs/how-to/mirror.md``.
        mirror_keep: the rules of what is kept there; None: as here.
        mirror_bandwidth: bytes per second for the uploads, as a number or as ``"50MB/s"``; None: no limit.
        mirror_wait: whether the end of the training waits for the uploads: True, with a progress bar; seconds, or a
            ``timedelta``, at most; False hands them over to ``holdfast sync``.
        verbose: report each decision to the logger ``holdfast``.
        storage_options: for a ``dirpath`` or a ``mirror`` that is a URL, as fsspec takes them: see
            ``docs/object-storage.md``. They are written nowhere.
        clock: where the time comes from; for tests.
        words: ``monitor, mode, save_top_k, save_last, save_weights_only, save_on_exception,
            every_n_train_steps, train_time_interval, every_n_epochs, save_on_train_epoch_end,
            filename, auto_insert_metric_name, enable_version_counter``: as those of
            ``holdfast.lightning.ModelCheckpoint``; and in the place of ``save_top_k`` the rules ``keep``, in that of
            the three triggers ``save_when``: see ``docs/retention.md``.

    ``on_save_error`` is an older name of ``on_error``.

    Call it on every rank: rank 0 decides and writes, the others follow.

    Raises:
        ConfigurationError: for a word that cannot be meant.
        DirectoryInUseError: if another run saves to the directory, on every rank; nothing was touched.

    """

    def __init__(  # noqa: PLR0913 - one parameter for each thing a loop has
        self,
        dirpath: str | os.PathLike[str],
        *,
        model: Stateful | None = None,
        optimizer: Stateful | Sequence[Stateful] | None = None,
        lr_scheduler: Stateful | Sequence[Stateful] | None = None,
        stateful: Mapping[str, Stateful] | None = None,
        allow: Sequence[Any] = (),
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
        mirror: str | os.PathLike[str] | None = None,
        mirror_keep: Term | Iterable[Term] | str | None = None,
        mirror_bandwidth: float | str | None = None,
        mirror_wait: bool | float | timedelta = True,
        verbose: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        **words: Unpack[Words],
    ) -> None:
        """Check the words, and clear away what an interrupted save has left in the directory."""
        failures = make_failures(on_error=on_error, on_save_error=on_save_error, max_failures=max_failures)
        mode = make_save_mode(
            async_save=async_save,
            overlap=overlap,
            zero_copy=zero_copy,
            on_busy=on_busy,
            images=images,
            recycle_blocks=recycle_blocks,
        )
        clock = clock or SystemClock()
        remaining = make_remaining(grace_period, deadline, clock)
        settings = make_settings(**known(words))
        signals = signals_of(settings, save_on_signal)
        self.dirpath = _place(dirpath)
        use_options(storage_options, dirpath, mirror if isinstance(mirror, (str, os.PathLike)) else None)
        self.allow = tuple(allow)
        self.on_damage = checked_on_damage(on_damage)
        self.verbose = verbose
        self._init_saving(mode, failures)
        carrying = {"keep": mirror_keep, "bandwidth": mirror_bandwidth, "wait": mirror_wait}
        self._mirror_words = make_mirror_words(self.dirpath, mirror, **carrying, recycles=recycle_blocks)
        self._remaining = remaining
        if not (settings.save_weights_only and save_on_signal is True):  # nobody could resume from those
            self._signals = signals
        self._parts = Parts.of(model, optimizer, lr_scheduler, stateful)
        owner = identity_of(settings).owner
        run_id = self._agree(lambda: shared_run_id(self.dirpath, owner))
        self._take_up(Run(settings, open_store(self.dirpath), run_id, owner, clock=clock))

    def _take_up(self, run: Run) -> None:
        """Take the directory, clear it, and stand where the others of the same loop do."""
        self._run, self._when = run, run.settings.when
        self._agree(self._own)
        prepare(self, self._signals)
        self._ledger = Ledger()
        self._start_path = ""
        open_beside(self)
        self._step = self._epoch = self._batches = 0
        self._validated = self._closed = False
        self._metrics: dict[str, float] = {}
        self._measured_at: dict[str, int] = {}
        self._apart = MetricsApart()
        self._time_checked = self._run.clock.monotonic()
        self._pulse = Pulse(self._ranks, self._signals, run.clock, asked)
        self._remaining.share(self._agree)
        self._given_at_steps: set[str] = set()
        self._ahead = False
        self._told: set[str] = set()
        self._adopt(standing(self._ledger, run.settings), self._path)
        for name in self._agree(lambda: sweep_up(self._run, downloads=self._mirror_words is None)):
            log.info("removed %s, which an interrupted save had left behind", self._path(name))
        if self._leads:
            self._begin_mirror()
        self._claim()
        for other in self._beside():
            if other._start_path and not self._start_path:  # noqa: SLF001 - one class
                self._follow(other)

    @property
    def global_step(self) -> int:
        """Finished optimizer steps."""
        return self._step

    @property
    def current_epoch(self) -> int:
        """The current epoch, from 0."""
        return self._epoch

    def step(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Say that the optimizer has finished a step; saves if one is due, otherwise cheap.

        Raises:
            SaveError: if checkpoints could not be committed, as ``on_error`` says.

        """
        self._step += 1
        self._batches += 1
        if metrics is not None:
            self._learn(metrics)
            if not self._alone:
                self._given_at_steps.update(metrics)
        if self._waiting or self._leaving or not self._warmed:
            try:
                self._look_after()
            except SaveError:  # an earlier save's failure does not cost the one that is due
                self._save_at_step()
                raise
        self._save_at_step()
        if asked or agreed or self._remaining.at is not None:
            self._look_ahead()

    def end_validation(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Say that a validation has ended, with what it measured.

        Raises:
            SaveError: if checkpoints could not be committed, as ``on_error`` says.
            MissingMetricError: if the monitored metric is needed and was never given.

        """
        self._validated = True
        self._learn(metrics or {})
        self._handle(Event.VALIDATION_END)
        self._at_pause()

    def end_epoch(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Say that an epoch has ended, with what is known of it. The next one begins.

        Raises:
            SaveError: if checkpoints could not be committed, as ``on_error`` says.
            MissingMetricError: if the monitored metric is needed and was never given.

        """
        self._validated = self._validated or metrics is not None
        self._learn(metrics or {})
        try:
            self._handle(Event.EPOCH_END, next_epoch=self._epoch + 1)
        finally:
            self._epoch += 1
            self._batches = 0
        self._at_pause()

    def save_checkpoint(self) -> None:
        """Save now, by the policy: ranked if its score admits it, and ``last``.

        Raises:
            SaveError: if it could not be committed, whatever ``on_error`` says.

        """
        self._handle(Event.REQUEST)

    def close(self) -> None:
        """Say that training has ended: ``last`` is brought up to the final state, all is committed. Idempotent.

        Raises:
            SaveError: if checkpoints could not be committed, as ``on_error`` says.

        """
        if self._closed:
            return
        self._closed = self._failures.ending = True
        try:
            self._handle(Event.TRAIN_END)
            self._end_alike()
        except BaseException:
            self._leave(failed=True)
            raise
        self._leave(failed=False)

    def __enter__(self) -> Self:
        """Return the checkpointer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception save the interrupted state, if ``save_on_exception`` is on.

        Of several ranks only if all have one at the same place; else the others get an error that names this rank.
        """
        if kind is None:
            self.close()
            return
        self._interrupted = True
        try:
            if not hurried():
                self._abandon()
                alike = error is None or self._ranks.leave(error)  # of several, none saves by itself
                if alike and not isinstance(error, SaveError):
                    self._handle(Event.EXCEPTION)
        finally:
            self._leave(failed=True)

    def _own(self) -> None:
        """Rank 0 only: take the directory."""
        self._owned = own(self, self._run)

    def _leave(self, *, failed: bool) -> None:
        """When all is over: let the memory, the siblings and the directory go, and a signal that still waits act."""
        try:
            self._close_saver()
            self._end_mirror(failed=failed)
        finally:
            close_beside(self)
            if self._owned is not None and not hurried():  # a save that is on its way has the directory until its end
                self._owned()
            leave(self)


def _place(dirpath: object) -> str:
    """Return a directory as one that stays the same wherever the program goes, or a URL as it is."""
    if not isinstance(dirpath, (str, os.PathLike)):
        msg = f"`dirpath` is a path or a URL, but got {dirpath!r}"
        raise ConfigurationError(msg)
    root = os.fspath(dirpath)
    return os.path.abspath(os.path.expanduser(root)) if is_local(root) else root
