"""A checkpoint of the mirror, fetched into the local directory: checked on the way, committed whole, and read back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import count

from holdfast import notes
from holdfast.engine import verify
from holdfast.errors import DamagedCheckpointError, LoadError, printable
from holdfast.format.signature import SUFFIX
from holdfast.front.copying import Place
from holdfast.front.copying_shards import copy_checkpoint
from holdfast.front.sizes import amount
from holdfast.records import LAST
from holdfast.scanning import Found, look
from holdfast.storage import Store
from holdfast.telling import warn

try:
    import fcntl
except ImportError:  # no flock on this system: two who fetch the same do the work twice
    fcntl = None  # type: ignore[assignment]

_OVERHEAD = 1 << 20  # bytes that must be free beside those of the checkpoint
_DEPTH = 100  # folders below a directory in which notes may lie


def fetch(item: Found, far: Store, here: Store, progress: Callable[[int], None] | None = None) -> str:
    """Fetch a checkpoint; return the name that it has here. What was fetched already, and is whole, stays.

    A try that was killed is taken up. Of several processes that fetch into one directory one does the work.

    Args:
        item: the checkpoint, as the mirror lists it.
        far: the mirror.
        here: the local directory.
        progress: called with the bytes of each piece done.

    Raises:
        DamagedCheckpointError: if the mirror's bytes are not those that were saved.
        FileNotFoundError: if it is no longer there.
        LoadError: if it cannot be fetched now: there is no room, or the mirror or the disk fails.

    """
    with _alone(here):
        name = _name_here(item, here)
        if not here.exists(name) or not _is_same(item, here, name):
            _check_room(item, here)
            _copy(item, far, Place(here, name), progress or (lambda _: None))
        return name


def fetch_notes(far: Store, here: Store) -> None:
    """Bring what people have said of the checkpoints there: a pin, a tag, a late metric. What is here stays."""
    try:
        for blob in far.hidden(notes.FOLDER, _DEPTH):
            if blob.size >= 0 and not here.exists(blob.name):
                here.put(blob.name, [far.read(blob.name, 0, blob.size)])
    except OSError as error:
        warn(f"what is noted of the checkpoints at {far.root} could not be fetched: {error}")


def _copy(item: Found, far: Store, goal: Place, progress: Callable[[int], None]) -> None:
    source, signature = Place(far, item.name), Place(far, item.name + SUFFIX)
    try:
        try:
            copy_checkpoint(source, goal, force=True, advance=progress)
        except DamagedCheckpointError:  # what was flipped on the way comes whole the second time
            copy_checkpoint(source, goal, force=True, advance=progress)
        if far.exists(signature.name):
            copy_checkpoint(signature, Place(goal.store, goal.name + SUFFIX), force=True, advance=progress)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LoadError(_not_fetched(item, str(error))) from error


def _name_here(item: Found, here: Store) -> str:
    """Return a free name, or that of the same one; an older ``last`` of the same run gives way, as to a save."""
    stem, dot, extension = item.name.rpartition(".")
    names = (f"{stem}-v{number}{dot}{extension}" for number in count(1))
    name = item.name
    while here.exists(name) and not _is_same(item, here, name):
        if name == item.name and _gives_way(look(here, name), item, here):
            break
        name = next(names)
    return name


def _is_same(item: Found, here: Store, name: str) -> bool:
    """Tell whether this very checkpoint is here already, whole."""
    found = look(here, name)
    if found.facts is None or found.facts != item.facts:
        return False
    try:
        verify(here.path(name))
    except (LoadError, OSError):
        return False
    return True


def _gives_way(found: Found, item: Found, here: Store) -> bool:
    """Tell whether what is here is an older ``last`` of the run, which nobody has asked to keep."""
    old, new = found.facts, item.facts
    if old is None or new is None or found.role != LAST or item.role != LAST:
        return False
    if old.run != new.run or old.owner != new.owner or old.sequence >= new.sequence:
        return False
    said = notes.read_one(here, notes.folders_of(found.name, old), notes.identity(old))
    return not (said.pinned or said.tags or said.notes or said.metrics)


def _check_room(item: Found, here: Store) -> None:
    try:
        free = here.free()
    except OSError:  # the copy itself will say what is wrong there
        return
    if free is None or free.bytes >= item.size + _OVERHEAD:
        return
    problem = f"it has {amount(item.size)}, and the filesystem of {here.root} has {amount(free.bytes)} left"
    raise LoadError(_not_fetched(item, problem))


def _not_fetched(item: Found, problem: str) -> str:
    return (
        f"{printable(item.path)}, the newest checkpoint of the run, could not be fetched from the mirror: {problem}. "
        "Begin again once that is mended: what has come already is not fetched twice. Or choose another one with "
        "resume(path)"
    )


@contextlib.contextmanager
def _alone(here: Store) -> Iterator[None]:
    """Wait until no other process fetches into the directory, and keep the others out."""
    if fcntl is None or not here.is_local:
        yield
        return
    os.makedirs(here.root, exist_ok=True)
    descriptor = os.open(here.root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # no locks here: the copy itself is atomic
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
