"""Trying again: what a busy server, a cut line or a lost answer spoils is asked for anew, until patience is at an end.

The pauses grow and are drawn by lot, so that the many who were refused at once do not come back at once
("full jitter", M. Brooker, Exponential Backoff And Jitter, 2015), not by those of the script. What cannot
succeed by itself (a refusal, a condition that does not hold, what is not there) is told at once.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.storage import hurry
from holdfast.storage.doubt import put_in_doubt
from holdfast.storage.remote.made_before import LostAnswerError
from holdfast.storage.remote.objects import Body, Bytes, Head, Listed, Objects, PartRules, Upload

log = logging.getLogger("holdfast")

_T = TypeVar("_T")
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, InterruptedError, IsADirectoryError, NotADirectoryError)
_WORTH = (ConnectionError, TimeoutError)
_FIRST, _LONGEST = 0.2, 10.0  # seconds: the limits of the first pause, and of any
_TELL = 10.0  # seconds of failing after which it is told
_PATIENCE = "HOLDFAST_PATIENCE"
_MD5 = re.compile(r"[0-9a-f]{32}")
_DICE = random.SystemRandom()


@dataclass(frozen=True)
class Patience:
    """How long one request is tried again.

    Attributes:
        seconds: no further try begins later than this after the first; 0 for one try.
        sleep: waits so many seconds.

    """

    seconds: float = 120.0
    sleep: Callable[[float], None] = hurry.pause

    @classmethod
    def said(cls, option: float | None) -> Patience:
        """Return that of the storage option ``patience``, else of the environment, else the default.

        Raises:
            ConfigurationError: if the environment has no such number there.

        """
        text = os.environ.get(_PATIENCE, "")
        if option is not None:
            return cls(float(option))
        try:
            seconds = float(text) if text else cls.seconds
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            msg = f"{_PATIENCE} is a number of seconds, 0 or more, but it is {text!r}"
            raise ConfigurationError(msg)
        return cls(seconds)


def worth_another_try(error: BaseException) -> bool:
    """Tell whether the same request may succeed if it is made again."""
    return isinstance(error, _WORTH) and not isinstance(error, _FINAL)


def again(
    what: str,
    request: Callable[[], _T],
    patience: Patience,
    tell: Callable[[str, tenacity.RetryCallState, float], None] | None = None,
) -> _T:
    """Make a request, and make it again while that may help and patience lasts; ``tell`` hears of each pause.

    Raises:
        InterruptedError: if nobody waits for it any longer, see ``hurry``; with the last one as its cause.
        OSError: the last one, which says how often it was tried, and how long.

    """
    begun = time.monotonic()

    def before_sleep(state: tenacity.RetryCallState) -> None:
        if tell is not None:
            tell(what, state, time.monotonic() - begun)
        patience.sleep(state.upcoming_sleep)
        if hurry.is_hurried() and state.outcome is not None:
            error = state.outcome.exception()
            raise InterruptedError(errno.EINTR, f"{error} (not tried again, as nobody waits for it)") from error

    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception(worth_another_try),
        wait=_Jitter(multiplier=_FIRST, max=_LONGEST),
        stop=tenacity.stop_before_delay(min(patience.seconds, hurry.patience_left())),
        sleep=lambda _: None,
        before_sleep=before_sleep,
    )
    try:
        return tries(request)
    except tenacity.RetryError as error:
        last = error.last_attempt
        raise _final(what, last, time.monotonic() - begun) from last.exception()


class Retrying:
    """Objects whose requests are tried again. See ``Objects``; the error of the last try says how often, how long."""

    def __init__(
        self, inner: Objects, patience: Patience | None = None, guard: Callable[[str], None] = lambda _: None
    ) -> None:
        """Ask these, as long as this takes; ask the guard before each try that makes or removes what has this key."""
        self.inner = inner
        self._guard = guard
        self._patience = patience or Patience()
        self._telling = threading.Lock()
        self._reached = False  # whether anything was ever answered: until then an unknown host is a wrong word
        self._told = False

    @property
    def client(self) -> str:
        """The library that speaks to the server."""
        return self.inner.client

    @property
    def parts(self) -> PartRules | None:
        """How objects are taken in parts."""
        return self.inner.parts

    def head(self, key: str) -> Head:
        """Look at an object."""
        return self._again(f"look at {key}", lambda: self.inner.head(key))

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of a range."""
        return self._again(f"read {key}", lambda: self.inner.get(key, start, end))

    def get_into(self, key: str, start: int, view: memoryview) -> int:
        """Read a range into memory."""
        return self._again(f"read {key}", lambda: self.inner.get_into(key, start, view))

    def put(self, key: str, data: Body, *, absent: bool = False, match: str = "") -> Head:
        """Make an object. What comes as a stream can be sent once, so that is one try.

        With a condition, a lost answer looks as if somebody else had been first: ``conditional`` compares the bytes.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            return self.inner.put(key, data, absent=absent, match=match)
        return self._again(f"put {key}", lambda: self.inner.put(key, data, absent=absent, match=match), key)

    def begin(self, key: str) -> str:
        """Begin an upload in parts. One whose answer was lost is a dead upload, which the next run aborts."""
        return self._again(f"begin an upload of {key}", lambda: self.inner.begin(key))

    def part(self, key: str, upload: str, number: int, data: Bytes) -> str:
        """Send one part."""
        return self._again(f"send part {number} of {key}", lambda: self.inner.part(key, upload, number, data))

    def complete(self, key: str, upload: str, etags: list[str], *, absent: bool = False) -> Head:
        """Make the object of its parts. That an earlier try succeeded is seen by the etag of what is there.

        Where it cannot be seen so, and the upload is gone, that is a ``LostAnswerError``.
        """
        tries = 0

        def complete() -> Head:
            nonlocal tries
            tries += 1
            try:
                return self.inner.complete(key, upload, etags, absent=absent)
            except (FileNotFoundError, FileExistsError):
                head = self._made_before(key, etags) if tries > 1 else None
                if head is None:
                    raise
                return head

        try:
            return self._again(f"complete {key}", complete, key)
        except FileNotFoundError as error:
            if tries == 1:
                raise
            msg = f"{error.strerror or error}, after a try whose answer was lost"
            raise LostAnswerError(errno.EIO, msg) from error

    def _made_before(self, key: str, etags: list[str]) -> Head | None:
        try:
            head = self.inner.head(key)
        except FileNotFoundError:
            return None
        return head if head.etag and head.etag == etag_of_parts(etags) else None

    def abort(self, key: str, upload: str) -> None:
        """Give an upload up."""
        self._again(f"abort an upload of {key}", lambda: self.inner.abort(key, upload))

    def uploads(self, prefix: str) -> list[Upload]:
        """Return the uploads whose keys begin so."""
        return self._again(f"list uploads below {prefix}", lambda: self.inner.uploads(prefix))

    def parts_of(self, key: str, upload: str) -> dict[int, Head]:
        """Return the parts that the server has of an upload."""
        return self._again(f"list the parts of {key}", lambda: self.inner.parts_of(key, upload))

    def list(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """Return the objects whose keys begin so: all of them, from one listing that did not fail midway."""
        return iter(self._again(f"list {prefix}", lambda: [*self.inner.list(prefix, deep=deep)]))

    def remove(self, keys: Collection[str]) -> None:
        """Remove objects."""
        if keys:
            first = next(iter(keys))
            self._again(f"remove {first} and {len(keys) - 1} more", lambda: self.inner.remove(keys), first)

    def copy(self, source: str, target: str) -> None:
        """Copy on the server's side."""
        self._again(f"copy {source}", lambda: self.inner.copy(source, target), target)

    def _again(self, what: str, request: Callable[[], _T], changes: str = "") -> _T:
        """Make a request as often as it needs; before each try that changes something see that this is allowed."""
        lost = False  # whether an earlier try may have been done
        begun = time.monotonic()

        def guarded() -> _T:
            nonlocal lost
            try:
                if changes:  # a claim to be renewed has what is left of this request's patience, and no more
                    with hurry.patient(begun + self._patience.seconds - time.monotonic()):
                        self._guard(changes)
                result = request()
            except (ConnectionError, TimeoutError) as error:
                if self._reached or not vars(error).get("is_wrong_word"):
                    lost = bool(changes)
                    raise
                raise OSError(errno.EHOSTUNREACH, error.strerror) from None
            except (HoldfastError, OSError) as error:
                if lost:
                    put_in_doubt(error)
                raise
            self._reached = True
            return result

        result = again(what, guarded, self._patience, self._tell)
        if self._told:
            self._recovered()
        return result

    def _tell(self, what: str, state: tenacity.RetryCallState, seconds: float) -> None:
        outcome = state.outcome
        error = None if outcome is None else outcome.exception()
        log.debug("try %d to %s failed: %s", state.attempt_number, what, error)
        with self._telling:
            if seconds < _TELL or self._told:
                return
            self._told = True
        log.warning(
            "a server does not answer as it should for %.0f s: try %d to %s: %s. It is tried for up to %.0f s",
            seconds,
            state.attempt_number,
            what,
            error,
            self._patience.seconds,
        )

    def _recovered(self) -> None:
        with self._telling:
            told, self._told = self._told, False
        if told:
            log.warning("the server answers again")


class _Jitter(tenacity.wait_exponential):
    """A pause of any length up to one that doubles: by dice of its own, since a script may have seeded Python's.

    ``tenacity.wait_random_exponential`` draws from those, and a busy server would change what is trained.
    """

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        return _DICE.uniform(0, super().__call__(retry_state))


def etag_of_parts(etags: list[str]) -> str:
    """Return the etag that S3 servers give an object of parts whose own etags are MD5; "" where they are not."""
    if not etags or not all(map(_MD5.fullmatch, etags)):
        return ""
    joined = b"".join(map(bytes.fromhex, etags))
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"


def _final(what: str, last: tenacity.Future, seconds: float) -> OSError:
    """Return the last error, which says in addition how long it was tried."""
    error = last.exception()
    kind: type[OSError] = TimeoutError if isinstance(error, TimeoutError) else ConnectionError
    number = getattr(error, "errno", None) or errno.EIO
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    tries = last.attempt_number
    if tries == 1:
        return kind(number, said)
    return kind(number, f"{said} (the last of {tries} tries to {what}, within {seconds:.0f} s)")
