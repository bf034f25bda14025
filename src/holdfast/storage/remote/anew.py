"""Uploads that a server has forgotten: one that was killed knows no more of them, some give up one of a wrong part.

They are begun anew, once, from bytes that are still at hand: then there is the object, or an error that says that
there is none. Whoever sends them is asked first: another run that has taken the prefix over forgets them on purpose.
"""

from __future__ import annotations

import errno
import logging
import mmap
from collections.abc import Callable, Iterable, Iterator

from holdfast.storage.doubt import put_in_doubt
from holdfast.storage.remote.made_before import LostAnswerError
from holdfast.storage.remote.objects import Bytes, Head

log = logging.getLogger("holdfast")

_NOTHING = "Nothing of this upload is committed, and what was there before is as it was"


class ForgottenError(FileNotFoundError):
    """A server knows nothing of an upload that was begun."""

    @classmethod
    def of(cls, key: str, error: OSError) -> ForgottenError:
        """Say it of the upload of a key."""
        said = f"the server has forgotten the upload of {key}: {error.strerror or error}"
        return cls(errno.ENOENT, f"{said}. {_NOTHING}")


def once_more(send: Callable[[], Head], again: Callable[[], None] | None, *, absent: bool = False) -> Head:
    """Send an object; begin anew, once, if the server has forgotten the upload.

    Args:
        send: begins an upload, sends all, and makes the object.
        again: asked before it is begun anew; if it raises, that is the end.
        absent: whether it is not to be there before: then what a lost answer may have made is not made again.

    Raises:
        ForgottenError: if it was forgotten twice, or cannot be begun anew.
        OSError: whatever else goes wrong.

    """
    try:
        return send()
    except ForgottenError as error:
        first: OSError = error
    except LostAnswerError as error:
        if absent:
            raise
        first = error
    log.info("an upload is begun anew: %s", first.strerror)
    if again is not None:
        again()
    try:
        return send()
    except ForgottenError as error:
        msg = f"{error.strerror}. It was begun anew once before"
        raise ForgottenError(errno.ENOENT, msg) from first
    except OSError as error:
        if isinstance(first, LostAnswerError):
            put_in_doubt(error)  # the first one may be there
        raise


class Held:
    """The parts of an object, which come once and can be had again, as long as that takes next to no memory.

    What lies in an image stays there anyway. Of what has memory of its own, as the tail has, so many bytes are held;
    where there is more nothing is.
    """

    def __init__(self, parts: Iterable[Bytes], most: int) -> None:
        """Hold nothing yet, and later ``most`` bytes that are in no image."""
        self._parts = iter(parts)
        self._held: list[Bytes] = []
        self._left = most

    def __iter__(self) -> Iterator[Bytes]:
        """Yield all of them, from the first.

        Raises:
            ForgottenError: if the first ones are not at hand any more.

        """
        if self._left < 0:
            msg = f"the server has forgotten the upload, whose first bytes came as a stream and are gone. {_NOTHING}"
            raise ForgottenError(errno.ENOENT, msg)
        yield from [*self._held]
        for part in self._parts:
            self._hold(part)
            yield part

    def _hold(self, part: Bytes) -> None:
        if not (isinstance(part, memoryview) and isinstance(part.obj, mmap.mmap)):
            self._left -= len(part)
        if self._left >= 0:
            self._held.append(part)
        else:
            self._held.clear()
