"""What "committed" means: every byte and the manifest durable under the final name, or nothing there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holdfast.errors import UNTOUCHED, HoldfastError, SaveError
from holdfast.format.manifest import encode
from holdfast.format.writing import Finish, stream
from holdfast.records import Facts, Manifest, Record
from holdfast.snapshot import Snapshot, capture
from holdfast.storage import Store, is_in_doubt, is_local

_CURES = {
    errno.ENOSPC: "free some space, or keep fewer checkpoints (save_top_k)",
    errno.EDQUOT: "free some of your quota, or keep fewer checkpoints (save_top_k)",
    errno.EFBIG: "the file is larger than the filesystem or the process may write (ulimit -f)",
    errno.EACCES: "choose a directory that this user may write",
    errno.EPERM: "choose a directory that this user may write",
    errno.EROFS: "the filesystem is mounted read-only: choose another `dirpath`",
    errno.ENAMETOOLONG: "shorten the `filename` template",
    errno.ENOTDIR: "a part of `dirpath` is a file: choose another `dirpath`",
}


def write_checkpoint(  # noqa: PLR0913 - what ``put`` takes, and what is to be written
    store: Store, name: str, state: object, facts: Facts, *, over: str = "", consent: Callable[[], None] | None = None
) -> Manifest:
    """Commit a state under a name: on return it is durable; on an error nothing has changed.

    ``over`` is what ``store.retire`` has returned, whose blocks may be used. ``consent`` is asked when all bytes are
    written, just before the commit: if it raises, nothing is committed.

    Raises:
        SaveError: naming the path and the cause.

    """
    written: list[Manifest] = []
    with save_errors(store.path(name)):
        snapshot = capture(state)
        store.put(name, stream(snapshot.parts(), finisher(facts, snapshot, written.append)), over=over, gate=consent)
    return written[0]


def finisher(facts: Facts, snapshot: Snapshot, keep: Callable[[Manifest], None]) -> Finish:
    """Return what makes the manifest once the records are known; it is given to ``keep`` as well."""

    def finish(records: tuple[Record, ...]) -> bytes:
        manifest = Manifest(facts, records, snapshot.infos())
        keep(manifest)
        return encode(manifest)

    return finish


@contextmanager
def save_errors(path: str, *, commits: bool = True) -> Iterator[None]:
    """Turn what goes wrong in a save into a ``SaveError`` that names the path, the cause and the cure.

    ``commits``: whether the checkpoint may be there all the same, where an answer to the last request is missing.
    """
    try:
        yield
    except SaveError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if is_local(path):
            cause = os.strerror(number) if number else f"{type(error).__name__}: {error}"
            cure = f"; {_CURES[number]}" if number in _CURES else ""
        else:
            cause, cure = _remote_cause(error), ""
        left = _left(path, error) if commits else UNTOUCHED
        msg = f"the checkpoint {path} was not saved: {cause}{cure}. {left}"
        raise SaveError(msg, path=path, errno=number) from error


def _remote_cause(error: Exception) -> str:
    """Return what a server said, in its own words: the system's word for the number knows less."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said if isinstance(error, HoldfastError) else f"{type(error).__name__}: {said}"


def _left(path: str, error: Exception) -> str:
    """Say what is there now. A server whose answer did not come may have done what it was asked."""
    if is_local(path) or not is_in_doubt(error):
        return UNTOUCHED
    return (
        "What was committed before is whole; so is this one, if it should be there after all: a server that does not "
        "answer may have taken it"
    )
