"""Checkpoints on their way to the second tier, behind the training: one thread, and whatever waits for it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from holdfast.errors import DirectoryInUseError, LoadError, printable
from holdfast.mirroring.carrying import COPIED, GONE, LINKED, Carried, Carrier, OccupiedError
from holdfast.mirroring.sending import Progress, way_to
from holdfast.mirroring.status import Status
from holdfast.storage import Store
from holdfast.storage.hurry import until

PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds before the next try, after one failure, two, ...
_SLICE = 0.25  # seconds between two looks of those who wait
_GIVE_UP = 5.0  # seconds that the end waits for a request under way, of a server that takes nothing and says nothing


@dataclass
class _Running:
    """What is under way, and what has been."""

    name: str = ""
    sent: int = 0
    size: int = 0
    done: int = 0
    bytes: int = 0
    error: str = ""
    failures: int = 0
    in_use: bool = False
    told: deque[str] = field(default_factory=deque)


class Mirror:
    """Brings committed checkpoints from the directory of a run to another store, behind the training's back.

    What it is offered it carries, the newest first; what is gone by then, as retention has removed it, is left out.
    A store that does not answer is asked again, after longer and longer pauses, as long as the run goes on. Nothing of
    this raises: ``poll`` returns what there is to tell.

    Args:
        local: the directory.
        remote: the other store.
        bandwidth: bytes per second; None for as fast as it goes.
        workers: parts of a file that are under way, and in memory, at a time.
        gate: asked before each commit there; what it raises keeps the checkpoint from being committed.
        wants: asked of each name when its turn comes; False leaves it out.
        after: called with the name of each checkpoint that has just been committed there, for retention there.

    """

    def __init__(  # noqa: PLR0913 - how a mirror is to be
        self,
        local: Store,
        remote: Store,
        *,
        bandwidth: float | None = None,
        workers: int = 4,
        gate: Callable[[], None] = lambda: None,
        wants: Callable[[str], bool] = lambda _: True,
        after: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start nothing yet."""
        self.local, self.remote = local, remote
        self._wants, self._after = wants, after
        self._process = os.getpid()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue: dict[str, object] = {}  # by name, what tells one offer of it from the next
        self._running = _Running()
        self._thread: threading.Thread | None = None
        self._closed = False
        way = way_to(remote, local, bandwidth=bandwidth, workers=workers, progress=self._sent, stop=self._stop)
        self._carrier = Carrier(local, way, gate=gate)
        self._tidy = False

    def offer(self, name: str) -> None:
        """Have a checkpoint carried that was just committed. Cheap; returns at once."""
        if os.getpid() != self._process:
            return  # a forked child has no thread of ours, and none of these checkpoints is its own
        with self._lock:
            if self._closed:
                return
            self._queue.pop(name, None)
            self._queue[name] = object()
            self._start()
            self._changed.notify_all()

    def forget(self, names: Collection[str]) -> None:
        """Take note that these are no more on the mirror. On its own thread, from ``after``."""
        self._carrier.known.gone(names)

    def needed(self) -> tuple[str, str]:
        """Return the one that is being carried and the one that is next, or "". Cheap: no look at any file."""
        with self._lock:
            return self._running.name, next(reversed(self._queue), "")

    def poll(self) -> list[str]:
        """Return what there is to tell people since the last time: problems, and that they are over. Cheap."""
        told = self._running.told
        return [told.popleft() for _ in range(len(told))]

    @property
    def status(self) -> Status:
        """What is done and what is not."""
        with self._lock:
            now, queued = self._running, tuple(self._queue)
            so_far = (now.done, now.bytes, now.error, now.failures, now.in_use)
            known = Status(queued, now.name, now.sent, now.size, 0, *so_far)
        left = max(0, known.size - known.sent) if known.under_way else 0
        return replace(known, left=left + sum(self._size(name) for name in queued))

    def wait(self, progress: Progress | None = None, timeout: float | None = None) -> bool:
        """Wait until everything that was offered is there; tell whether it is.

        Args:
            progress: called with how many more bytes are there, on this thread.
            timeout: seconds; None to wait as long as it takes, also for a store that does not answer.

        """
        if os.getpid() != self._process:
            return True  # what was offered is its parent's affair
        end = None if timeout is None else time.monotonic() + timeout
        before = self._running.bytes
        while True:
            with self._lock:
                over = not self._queue and not self._running.name
                if not over and not self._start():
                    break  # the system starts no more threads
                left = _SLICE if end is None else min(_SLICE, end - time.monotonic())
                if not over and left > 0:
                    self._changed.wait(left)
                now = self._running.bytes
            if progress is not None and now > before:
                progress(now - before)
            before = max(now, before)
            if over or left <= 0:
                return over
        self._serve()
        return self.status.settled

    def close(self, *, wait: bool = True, progress: Progress | None = None, timeout: float | None = None) -> Status:
        """End the mirror, after a wait for what was offered or without; return what it has not done.

        What is left is still in the directory, and so are the parts of the upload under way on the server: the next
        run, or ``sync``, goes on with it.
        """
        mine = os.getpid() == self._process
        if wait and mine and not self._closed:
            self.wait(progress, timeout)
        with self._lock:
            self._closed = True
            thread = self._thread if mine else None
        self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_GIVE_UP)
        if mine and (thread is None or not thread.is_alive()):  # else it does so itself, when its request is over
            self._carrier.close()
        return self.status

    def _size(self, name: str) -> int:
        try:
            return self.local.size(name)
        except OSError:
            return 0

    def _sent(self, size: int) -> None:
        with self._lock:
            self._running.sent += size
            self._running.bytes += size

    def _start(self) -> bool:
        """See that a thread is there; with the lock. It ends when nothing is left to do."""
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="holdfast-mirror")
            try:
                thread.start()
            except RuntimeError:  # out of threads, or the interpreter starts none any more
                return False
            self._thread = thread
        return True

    def _serve(self) -> None:
        with until(self._stop):  # which nothing on this thread waits beyond, not even for a server
            self._carry_all()
        if self._closed:
            self._carrier.close()

    def _carry_all(self) -> None:
        while (name := self._next()) is not None:
            pause = self._try(name)
            while pause > 0 and not self._stop.is_set() and threading.main_thread().is_alive():
                self._stop.wait(min(pause, _SLICE))
                pause -= _SLICE
            if pause > 0:  # what waits is handed over: nobody is there any more who could see to it
                with self._lock:
                    self._thread = None
                    self._changed.notify_all()
                return

    def _next(self) -> str | None:
        """Return what is to be carried now; None if nothing is, and then the thread is over."""
        with self._lock:
            if self._closed or not self._queue:
                self._thread = None
                return None
            name, _ = self._queue.popitem()
            self._running.name, self._running.sent, self._running.size = name, 0, self._size(name)
            return name

    def _try(self, name: str) -> float:
        """Carry one checkpoint; return how many seconds to wait before the next try."""
        pause = 0.0
        try:
            if not self._tidy:
                self._carrier.tidy()
                self._tidy = True
            carried = self._carrier.carry(name) if self._wants(name) else None
        except InterruptedError as error:
            self._again(name)
            if isinstance(error.__cause__, OSError):  # it was being tried again
                self._running.error = str(error.__cause__)
        except (LoadError, OccupiedError) as error:
            self._tell(f"{printable(name)} is not mirrored: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is: a thread that ends of it would be waited for in vain
            pause = self._failed(name, error)
        else:
            self._well(name, carried)
        finally:
            with self._lock:
                self._running.name = ""
                self._changed.notify_all()
        return pause

    def _well(self, name: str, carried: Carried | None) -> None:
        with self._lock:
            failed, self._running.failures, self._running.error = self._running.failures, 0, ""
            self._running.in_use = False
            self._running.done += carried is not None and carried.how != GONE
        if failed:
            self._tell(f"the mirror {printable(self.remote.root)} works again")
        if carried is None or carried.how not in (COPIED, LINKED):
            return
        try:
            self._after(name)
        except Exception as error:  # noqa: BLE001 - as above; the next commit there is the next occasion
            self._tell(f"nothing was removed from the mirror {printable(self.remote.root)}: {error}")

    def _failed(self, name: str, error: Exception) -> float:
        self._again(name)
        self._leave_out_gone()
        with self._lock:
            self._running.failures += 1
            failures = self._running.failures
            self._running.error = str(error) or type(error).__name__
            self._running.in_use = isinstance(error, DirectoryInUseError)
            self._running.bytes -= self._running.sent  # what the next try need not send again counts then
            self._running.sent = 0
        if failures == 1:
            place, why = printable(self.remote.root), self._running.error
            self._tell(
                f"the mirror {place} does not take {printable(name)}: {why}. It is tried again as long as the run goes "
                "on; training and what is committed here are not affected"
            )
        return PAUSES[min(failures, len(PAUSES)) - 1]

    def _leave_out_gone(self) -> None:
        """While nothing gets there: not all that retention has removed since need be remembered."""
        with self._lock:
            queued = dict(self._queue)
        gone = [name for name in queued if not self.local.exists(name)]
        with self._lock:
            for name in gone:
                if self._queue.get(name) is queued[name]:  # else it was saved and offered anew
                    del self._queue[name]

    def _again(self, name: str) -> None:
        """Have a checkpoint wait for another try, behind those that were offered since."""
        with self._lock:
            if name not in self._queue:
                self._queue = {name: object(), **self._queue}

    def _tell(self, what: str) -> None:
        self._running.told.append(what)
