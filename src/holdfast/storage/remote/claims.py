"""One run, one prefix: a small object says who trains there, and is renewed while that process lives.

Two runs in one prefix are told apart before either has touched anything. Who wants a prefix says so, and looks at
who else does. Where the server keeps conditions, one object is made where none is, and replaced only as it was seen:
one wins. Elsewhere each has its own, and of two who see each other one gives way.

A claim that is not renewed for its lease may be taken over. So it is looked at before each commit: a run that slept
for an hour commits nothing over the one that took its place.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from holdfast.errors import DirectoryInUseError
from holdfast.storage import hurry
from holdfast.storage.remote.claimant import Claimant, give_up, seconds
from holdfast.storage.remote.conditional import create, read, replace, watch
from holdfast.storage.remote.objects import Head, Objects
from holdfast.storage.remote.rivals import FOLDER, rivals_of
from holdfast.storage.remote.taking import Taking

log = logging.getLogger("holdfast")

LEASE = 60.0  # seconds that a claim holds without being renewed
INTERVAL = 20.0  # seconds between renewals: one request each
_LEFT = 1 / 3  # of the lease has to be left at a commit
_ROUNDS = 3  # times that a claim is renewed before a commit, if each takes so long that it might have lapsed meanwhile
_GIVE_UP = 5.0  # seconds that the end of a run waits for its claim to be removed


@dataclass
class _Held:
    """The claim of one prefix, which all that save there from this process share."""

    objects: Objects
    base: str
    root: str
    key: str
    claimant: Claimant
    etag: str  # "" where the server keeps no conditions
    renewed: float  # when that was asked for; and when it was answered
    answered: float
    taken: float
    users: int = 1
    process: int = field(default_factory=os.getpid)
    taker: Claimant | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    @property
    def is_ours(self) -> bool:
        return self.process == os.getpid()

    @property
    def fresh(self) -> bool:
        """Whether nobody can have taken it over, and will not for some time."""
        return seconds() - self.renewed < self.claimant.lease * (1 - _LEFT)


_held: dict[str, _Held] = {}  # by token
_guard = threading.RLock()  # a collected checkpointer may give up its own in the middle of another's call


class Claim:
    """The right to save below a prefix, until ``give_up``."""

    def __init__(self, held: _Held) -> None:
        """Count as one more user."""
        self._held: _Held | None = held

    def check(self) -> None:
        """Make sure that it still holds: no request if it was renewed not long ago, else one.

        Raises:
            DirectoryInUseError: if another run has taken it over; naming that.
            OSError: if that cannot be found out.

        """
        if self._held is not None:
            _check(self._held)

    def give_up(self) -> None:
        """Give the right up; the last user of this process removes the object. Idempotent; nothing in a forked child.

        Waits a few seconds at most: what cannot be removed lapses.
        """
        with _guard:
            held, self._held = self._held, None
            if held is None or not held.is_ours:
                return
            held.users -= 1
            if held.users:
                return
            _held.pop(held.claimant.token, None)
        _end(held)


def claim(objects: Objects, base: str, root: str, *, run: str, since: str) -> Claim:
    """Take a prefix for this process. Four requests where nobody else is, and those that find out what the server can.

    Args:
        objects: speaks to the server.
        base: the key of the prefix.
        root: its URL, for what is said of it.
        run: the run's identifier.
        since: the time now, ISO 8601 in UTC.

    Raises:
        DirectoryInUseError: if a run that lives has it.
        OSError: if the server cannot be asked, or nothing can be written there.

    """
    while True:
        shared = _shared(base, run)
        if shared is not None:
            return Claim(shared)
        claimant = Claimant.this(run, since, LEASE)
        try:
            taken = Taking(objects, base, root, claimant).take()
        except BaseException:
            give_up(claimant.token)  # it may be there all the same, if the answer was lost
            raise
        held = _Held(objects, base, root, *taken, taken=taken.renewed)
        with _guard:
            others = [other for other in _held.values() if other.base == base and other.is_ours]
            if all(other.taker is not None for other in others):
                for lost in others:  # to another run that is gone; it counts no more
                    _held.pop(lost.claimant.token, None)
                _held[held.claimant.token] = held
                _beat(held)
                return Claim(held)
        _remove(held)  # another thread of this process was quicker


def claimed_here(base: str) -> bool:
    """Tell whether this very process has a prefix already."""
    with _guard:
        return any(held.base == base and held.is_ours and held.taker is None for held in _held.values())


def check_commit(key: str) -> None:
    """Before something is committed under a key: make sure that a claim of this process which covers it still holds.

    Asked before each try of a request, it costs none if the claim was renewed not long ago. Claims themselves pass.

    Raises:
        DirectoryInUseError: if another run has taken it over.
        OSError: if that cannot be found out.

    """
    for held in list(_held.values()) if f"/{FOLDER}/" not in key else ():
        if held.is_ours and key.startswith(f"{held.base}/"):
            _check(held)


def claimed_at(objects: Objects, base: str) -> datetime | None:
    """Return since when this process has had a prefix, or one above it, by the server's clock and not later.

    None if it has not, or that cannot be told. One request.
    """
    with _guard:
        covering = [held for held in _held.values() if held.is_ours and held.taker is None]
    held = next((held for held in covering if f"{base}/".startswith(f"{held.base}/")), None)
    if held is None:
        return None
    with held.lock:
        try:
            modified = objects.head(held.key).modified
        except OSError:
            return None
        return None if modified is None else modified - timedelta(seconds=held.answered - held.taken)


def give_up_all_claims() -> None:
    """Give up every prefix of this process, because it is about to end."""
    with _guard:
        ours = [held for held in _held.values() if held.is_ours]
        _held.clear()
    for held in ours:
        _end(held)


def _shared(base: str, run: str) -> _Held | None:
    with _guard:
        for held in _held.values():
            if held.base == base and held.is_ours and held.taker is None:
                held.users += 1
                if run and not held.claimant.run:
                    log.debug("%s: the claim was taken for no run in particular", held.root)
                return held
    return None


def _check(held: _Held) -> None:
    rounds = 0
    while held.taker is None and not held.fresh:
        if rounds == _ROUNDS:
            msg = (
                f"{held.root}: the claim was renewed {_ROUNDS} times, each so slowly that it may have lapsed meanwhile"
            )
            raise TimeoutError(errno.ETIMEDOUT, msg)
        with _locked(held):
            if held.taker is None and not held.fresh:
                _renew(held)
        rounds += 1
    if held.taker is not None:
        raise DirectoryInUseError(held.root, **held.taker.who)


@contextlib.contextmanager
def _locked(held: _Held) -> Iterator[None]:
    """Have the claim to oneself, as soon as one who renews it is done; raise if nobody waits so long."""
    while not held.lock.acquire(timeout=hurry.SLICE):
        if hurry.is_hurried():
            raise InterruptedError(errno.EINTR, f"{held.root}: the claim was not renewed, as nobody waits for it")
        if not hurry.patience_left():
            raise TimeoutError(
                errno.ETIMEDOUT, f"{held.root}: the server does not answer, and the claim is not renewed"
            )
    try:
        yield
    finally:
        held.lock.release()


def _renew(held: _Held) -> None:
    """Say that this process lives; take note if another has taken the claim over."""
    later, begun = held.claimant.later(), seconds()
    if held.etag:
        head = replace(held.objects, held.key, later.encode(), held.etag) or _find_again(held, later)
        if head is None:
            return
        held.etag = head.etag
    else:
        if not held.fresh and not _is_still_there(held):
            return
        held.objects.put(held.key, later.encode())
    held.claimant, held.renewed, held.answered = later, begun, seconds()


def _find_again(held: _Held, later: Claimant) -> Head | None:
    """The claim is not as it was left: put it right if it is still ours, as after an answer that was lost."""
    seen = watch(held.objects, held.key)
    if seen is None and held.fresh:  # nobody can have taken it over: it was removed by hand
        return create(held.objects, held.key, later.encode())
    there = Claimant() if seen is None else Claimant.decode(seen[1])
    if seen is not None and there.token == held.claimant.token:
        return replace(held.objects, held.key, later.encode(), seen[0].etag)
    _lose(held, there)
    return None


def _is_still_there(held: _Held) -> bool:
    """Look, where there are no conditions, whether nobody has taken the prefix over."""
    others = [rival for rival in rivals_of(held.objects, held.base, held.key) if rival.has and not rival.lapsed]
    if others:
        _lose(held, others[0].claimant)
    elif read(held.objects, held.key) is None and not held.fresh:
        _lose(held, Claimant())
    return held.taker is None


def _lose(held: _Held, taker: Claimant) -> None:
    held.taker = taker
    if not held.etag:  # where each has one of its own, it would seem to the other that this run has the prefix, too
        with contextlib.suppress(OSError):  # it lapses
            held.objects.remove([held.key])
    log.error(
        "%s was taken over by run %s (process %s on host %s), as this one had not renewed its claim for %.0f s: this "
        "run commits nothing more there",
        held.root,
        taker.run or "?",
        taker.pid or "?",
        taker.host or "?",
        seconds() - held.renewed,
    )


def _beat(held: _Held) -> None:
    """Have a thread renew the claim until it is given up."""
    thread = threading.Thread(target=_keep, args=(held,), name="holdfast-claim", daemon=True)
    with contextlib.suppress(RuntimeError):  # no more threads: it is renewed before commits alone
        thread.start()
        held.thread = thread


def _keep(held: _Held) -> None:
    while held.taker is None and not held.over.wait(INTERVAL):
        _try_to_renew(held)
    held.over.wait()
    _remove(held)


def _try_to_renew(held: _Held) -> None:
    try:
        with hurry.until(held.over), held.lock:
            # The first time: a listing that was stale may have hidden one from the other of two.
            if held.etag or held.claimant.beat or _is_still_there(held):
                _renew(held)
    except OSError as error:
        log.debug("the claim of %s was not renewed: %s", held.root, error)


def _end(held: _Held) -> None:
    """Remove a claim; the thread that renews it does, so that a server which does not answer holds nobody up."""
    held.over.set()
    if held.thread is None:
        _remove(held)
    elif held.thread is not threading.current_thread():
        held.thread.join(_GIVE_UP)


def _remove(held: _Held) -> None:
    if held.taker is not None:
        return
    try:
        seen = None if held.fresh else read(held.objects, held.key)
        if held.fresh or (seen is not None and Claimant.decode(seen).token == held.claimant.token):
            held.objects.remove([held.key])
    except OSError as error:
        log.debug("the claim of %s could not be removed, and lapses: %s", held.root, error)
    finally:
        give_up(held.claimant.token)  # who comes next in this process need not wait for that


def _forget() -> None:
    """In a forked child: the claims are its parent's."""
    global _guard  # noqa: PLW0603 - another thread of the parent may have held it
    _guard = threading.RLock()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
