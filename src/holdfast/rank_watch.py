"""Who of the ranks has failed, ended or died: what a rank asks while it waits for the others.

No collectives: those that wait in one cannot answer. Ranks post notices in the store that they met by; one on the
same machine is looked at as a process; one elsewhere is alive as long as its count in the store goes up.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Final

from holdfast.errors import ConfigurationError
from holdfast.rank_meeting import Place, Shared, is_gone

log = logging.getLogger("holdfast")

SILENCE: Final = "HOLDFAST_RANK_SILENCE"  # the environment's word for how long a rank elsewhere may be silent
_SILENCE = 300.0  # seconds: a process that is starved of the interpreter's lock, or stopped for a while, is not dead
_LOOK = 0.2  # seconds between two looks while somebody waits
_BEAT = 2.0  # seconds between two counts of a rank that others cannot look at
_HEARD = 3 * _BEAT  # seconds after which a rank elsewhere shows whether it is the one whose connection broke
_ANSWER = 5.0  # seconds that the thread has to end
_TOGETHER = 5.0  # seconds within which ranks that all fail come to their exceptions
_LINGER = 1.0  # seconds that rank 0, in whose process the store may live, leaves to the others to read why it ends
_CAUSE = 2000  # characters of a cause that are passed on


@dataclass(frozen=True)
class Notice:
    """What a rank says before it goes.

    Attributes:
        rank: whom it is about.
        cause: what went wrong; "" if the rank has ended in order.
        group: which of its groups it can serve no more; "" for all.
        done: how many calls it has finished on each group.

    """

    rank: int
    cause: str = ""
    group: str = ""
    done: dict[str, int] = field(default_factory=dict)


def silence() -> float:
    """Return how many seconds a rank on another machine may be silent before it counts as dead.

    Raises:
        ConfigurationError: if ``HOLDFAST_RANK_SILENCE`` is no number of at least 10.

    """
    given = os.environ.get(SILENCE, "")
    try:
        seconds = float(given or _SILENCE)
    except ValueError:
        seconds = 0.0
    if not seconds >= 5 * _BEAT:
        msg = f"{SILENCE} is a number of seconds, at least {5 * _BEAT:.0f}, but got {given!r}"
        raise ConfigurationError(msg)
    return seconds


class Watch:
    """Watches the other ranks for those of this process that wait.

    Args:
        store: the store by which the ranks met.
        rank: this one.
        places: where each lives.

    """

    def __init__(self, store: Shared, rank: int, places: Sequence[Place]) -> None:
        """Begin to watch, and to be watched."""
        self.rank, self.places = rank, places
        self.done: dict[str, int] = {}  # calls that this rank has finished, by group
        self._store = store
        self._silence = silence()
        mine = places[rank]
        self._near = [r for r, p in enumerate(places) if r != rank and p.machine and p.machine == mine.machine]
        self._far = [r for r in range(len(places)) if r != rank and r not in self._near]
        self._notices: list[Notice] = []
        self._gone: dict[int, str] = {}
        self._beats: dict[int, tuple[str, float]] = {}
        self._heard = time.monotonic()  # when the store answered last
        self._waiting = 0
        self._calls: list[str] = []  # at which somebody has begun to wait, and which the others do not know of
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._curious = self._stopped = False
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="holdfast-ranks", daemon=True)
        self._thread.start()
        self._hook = _hooked(self)
        atexit.register(self._end)

    def verdict(self, group: str, number: int) -> tuple[int, str] | None:
        """Return which rank will not come to a call any more, and why; None as long as all may.

        Args:
            group: the group that the call is on.
            number: which call it is, from 1.

        """
        for notice in self._notices:
            if notice.cause and notice.group in ("", group):
                return notice.rank, notice.cause
        ended = {n.rank: n.done.get(group, 0) for n in self._notices if not n.cause}
        for rank, done in ended.items():
            if done < number:
                return rank, "its program has ended"
        for rank, cause in list(self._gone.items()):
            if rank not in ended:
                return rank, cause
        return None

    @contextmanager
    def waiting(self, call: str) -> Iterator[None]:
        """Look out, and let the others know where this one waits, as long as the ``with`` lasts."""
        self._count(1, call)
        try:
            yield
        finally:
            self._count(-1, call)

    def suspect(self, patience: float) -> int:
        """After a connection broke: return the rank that shows no sign of life; -1 if none can be told."""
        before = time.monotonic()
        self._curious = True
        end = before + (max(patience, _HEARD) if self._far else patience)
        while time.monotonic() < end:
            if self._gone or self._notices:
                return next(iter(self._gone), -1)
            self._wake.set()
            time.sleep(_LOOK)
        silent = [rank for rank in self._far if self._beats.get(rank, ("", 0.0))[1] < before]
        return silent[0] if len(silent) == 1 else -1

    def tell(self, notice: Notice, *, linger: bool = False) -> None:
        """Post a notice; where the store may end with this process, leave the others a second to read it."""
        if self._stopped or os.getpid() != self._pid:
            return
        with contextlib.suppress(RuntimeError):  # the store is gone, and with it all who would read this
            number = self._store.add("notices", 1)
            self._store.set(f"notice/{number}", json.dumps(asdict(notice)))
            end = time.monotonic() + _LINGER
            while linger and self.rank == 0 and time.monotonic() < end:
                if self._store.add(f"read/{number}", 0) >= len(self.places) - 1:
                    break
                time.sleep(0.02)

    def all_come(self, where: str, size: int, beyond: str) -> bool:
        """Tell whether all ranks come to this place within some seconds; the same on all that do.

        Args:
            where: the place.
            size: how many there are.
            beyond: the call after it: who waits there will not come.

        """
        key, end = f"come/{where}", time.monotonic() + _TOGETHER
        with contextlib.suppress(RuntimeError):  # the store is gone, and with it a rank
            if self._store.add(key, 1) == size:
                self._store.swap(f"{key}/all", "yes")
            while not self._store.check(f"{key}/all") and time.monotonic() < end:
                if self._store.check(f"waits/{beyond}"):
                    break
                time.sleep(_LOOK / 4)
            if self._store.swap(f"{key}/all", "no") == "yes":
                return True
            self._say_why()
        return False

    def _say_why(self) -> None:
        """Log what another rank has failed of: the error that this one has may be no more than what came of it."""
        self._wake.set()
        time.sleep(_LOOK)
        told = [(notice.rank, notice.cause) for notice in self._notices if notice.cause]
        for rank, cause in (*told, *list(self._gone.items())):
            if rank not in (self.rank, -1):
                log.error("rank %d failed before this one did: %s", rank, cause)
                return

    def close(self) -> None:
        """Watch no more."""
        self._stopped = True
        self._wake.set()
        self._hook()
        atexit.unregister(self._end)
        if os.getpid() == self._pid:  # a thread within torch, when the interpreter ends, would abort the process
            self._thread.join(_ANSWER)

    def _end(self) -> None:
        """At the end of the program: those who wait for a call that this rank has not made need not."""
        self.tell(Notice(self.rank, done=dict(self.done)))
        self.close()

    def _run(self) -> None:
        beats = 0
        while not self._stopped:
            self._wake.wait(_LOOK if self._waiting else _BEAT if self._far else None)
            self._wake.clear()
            if self._stopped:
                return
            if self._waiting:
                time.sleep(_LOOK / 4)  # at most so many looks a second, however many wake this
            try:
                if self._far:
                    beats += 1
                    self._store.set(f"beat/{self.rank}", str(beats))
                while self._calls:
                    self._store.set(f"waits/{self._calls.pop()}", "1")
                self._read()
                if self._waiting:
                    self._listen()
                self._heard = time.monotonic()
            except RuntimeError as error:
                self._unheard(error)
            self._look()

    def _read(self) -> None:
        while self._store.check(f"notice/{len(self._notices) + 1}"):
            number = len(self._notices) + 1
            said = json.loads(self._store.get([f"notice/{number}"])[0])
            self._notices.append(Notice(**said))
            self._store.add(f"read/{number}", 1)

    def _listen(self) -> None:
        """Rank 0 listens for all that live elsewhere; the others for rank 0, and for all once a connection broke."""
        now = time.monotonic()
        wanted = [rank for rank in self._far if 0 in (self.rank, rank) or self._curious]
        known = [rank for rank in wanted if self._store.check(f"beat/{rank}")] if wanted else []
        values = self._store.get([f"beat/{rank}" for rank in known]) if known else []
        for rank, value in zip(known, values, strict=True):
            if self._beats.get(rank, ("", 0.0))[0] != value:
                self._beats[rank] = (value, now)
                self._gone.pop(rank, None)
            elif now - self._beats[rank][1] > self._silence:
                self._gone[rank] = f"nothing was heard of it for {self._silence:.0f} s{self._at(rank)}"

    def _look(self) -> None:
        for rank in self._near:
            if rank not in self._gone and is_gone(self.places[rank]):
                self._gone[rank] = f"its process has ended without a word{self._at(rank)}: was it killed?"

    def _unheard(self, error: RuntimeError) -> None:
        """The store does not answer: it lived in a process that has ended, or behind a network that is down."""
        silent = time.monotonic() - self._heard
        if self._waiting and silent > _HEARD:
            text = str(error).partition("\n")[0]
            self._gone.setdefault(-1, f"the store by which the ranks met has not answered for {silent:.0f} s: {text}")

    def _at(self, rank: int) -> str:
        place = self.places[rank]
        return f" (process {place.pid} on {place.name})" if place.pid else ""

    def _count(self, more: int, call: str) -> None:
        """Take note that somebody has begun to wait, or has ended."""
        with self._lock:
            self._waiting += more
            if more > 0:
                self._calls.append(call)
            if more > 0 and self._waiting == 1:
                self._heard = time.monotonic()
                self._beats = {rank: (value, self._heard) for rank, (value, _) in self._beats.items()}
        self._wake.set()


def _hooked(watch: Watch) -> Callable[[], None]:
    """Have an exception that nobody catches told to the other ranks; return how to undo that."""
    earlier = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        watch.tell(Notice(watch.rank, cause_of(error)), linger=True)
        earlier(kind, error, trace)

    def undo() -> None:
        if sys.excepthook is hook:
            sys.excepthook = earlier

    sys.excepthook = hook
    return undo


def cause_of(error: BaseException) -> str:
    """Return an error in one line, for those that have not seen it."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_CAUSE].removesuffix(": ")
