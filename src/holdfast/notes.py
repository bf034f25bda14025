"""What people say of checkpoints after their save: pins, tags, notes, late metrics.

Each change is one small file that is written once and never changed, in a hidden folder beside the checkpoint::

    <folder of the checkpoint>/.holdfast-notes/<identity>/<counter>-<random>.json

Nobody rewrites anything, so two writers cannot lose each other's changes, and a crash leaves a change whole or not
at all. The identity is that of the save, so the notes follow a renamed file and both names of one. The counter is
one more than the highest that its writer has seen: what was said knowing of another change comes after it, and no
clock decides. A folder whose checkpoints nobody has said anything of holds no trace.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from holdfast.errors import SaveError, printable
from holdfast.format.notes import LONGEST_CHANGE, NoteError, decode_change, encode_change
from holdfast.records import Change, Facts, Note, Noted
from holdfast.source import each
from holdfast.storage import HIDDEN, NO_BLOB, Blob, Store, is_in_doubt

FOLDER = f"{HIDDEN}notes"
_CHANGE = re.compile(r"([0-9]{8,12})-([0-9a-f]{16})\.json")
_IDENTITY = re.compile(r"[0-9a-f]{32}")
_HIGHEST = 10**12 - 1
_TRIES = 20  # at writing into a folder that another process removes because it has become empty
_Placed = tuple[int, str, Change]  # a change with its counter and its random part
_NO_FOLDER = "it is no folder of its own that can be read"


class Notes(dict[str, Noted]):
    """What is said of checkpoints, by their identities.

    Attributes:
        problems: why what is said of any checkpoint there cannot be known, such as a folder that may not be read.

    """

    def __init__(self, noted: dict[str, Noted], problems: tuple[str, ...] = ()) -> None:
        """Hold what was read."""
        super().__init__(noted)
        self.problems = problems

    def of(self, identity: str) -> Noted:
        """Return what is said of one checkpoint; while that cannot be known for sure, it counts as pinned."""
        noted = self.get(identity, Noted())
        if not self.problems:
            return noted
        damaged = (*noted.damaged, *self.problems)
        return Noted(pinned=True, tags=noted.tags, notes=noted.notes, metrics=noted.metrics, damaged=damaged)


def identity(facts: Facts) -> str:
    """Return what identifies the save that a checkpoint is of, whatever its file is called; "" if nothing does."""
    if not facts.run and not facts.time:
        return ""

    said = json.dumps([facts.run, facts.owner, facts.sequence, facts.time, facts.step])
    from hashlib import sha256  # noqa: PLC0415 - slow to import, and a directory without notes needs none

    return sha256(said.encode()).hexdigest()[:32]


def folders_of(name: str, facts: Facts) -> tuple[str, ...]:
    """Return the folders, as the beginnings of names, in which the notes of a checkpoint may lie.

    Its own comes first; then those of the other names that its save has made.
    """
    own = name[: name.rfind("/") + 1]
    places = [own]
    for mine in facts.names.values():
        if f"/{name}".endswith(f"/{mine}"):
            root = name[: len(name) - len(mine)]
            others = (f"{root}{other}" for other in facts.names.values() if ".." not in other.split("/"))
            places += [other[: other.rfind("/") + 1] for other in others]
    return tuple(dict.fromkeys(places))


def read(store: Store, depth: int = 0) -> Notes:
    """Return what is said of the checkpoints in a directory, at most ``depth`` folders down, by identity.

    Never fails because of what stands in a file: what cannot be read pins its checkpoint.

    Raises:
        OSError: if a remote store does not answer.

    """
    return _gather(store, store.hidden(FOLDER, depth))


def read_one(store: Store, folders: Iterable[str], identity: str) -> Noted:
    """Return what is said of one checkpoint, in any of these folders (beginnings of names, "" for the root)."""
    found = [blob for folder in folders for blob in store.hidden(_home(folder, identity))]
    return _gather(store, found).of(identity)


def write(store: Store, folder: str, identity: str, change: Change, beside: Iterable[str] = ()) -> str:
    """Commit a change to what is said of a checkpoint; return the name of its file.

    Args:
        store: that of the checkpoint.
        folder: its folder, as the beginning of names: "" or ending in a slash.
        identity: the checkpoint's.
        change: what is new.
        beside: the other folders in which changes to it may lie, so that this one comes after them.

    Raises:
        NoteError: if the change has a value that cannot be noted.
        SaveError: if it could not be committed; it says whether it may be there all the same.

    """
    data = encode_change(change)
    home, others = _home(folder, identity), [_home(other, identity) for other in beside if other != folder]
    for left in range(_TRIES, 0, -1):
        name = f"{home}/{_next(store, home, others):08d}-{os.urandom(8).hex()}.json"
        try:
            store.put(name, [data])
        except FileNotFoundError as error:  # another process has just removed the folder, which was empty
            if left == 1:
                raise _not_saved(store.path(home), error) from error
        except OSError as error:
            raise _not_saved(store.path(home), error) from error
        else:
            return name
    raise AssertionError("the last try returns or raises")


def forget(store: Store, folder: str, identity: str) -> None:
    """Remove what is said of a checkpoint that is gone, and the folders that this leaves empty.

    Not while another name of the same save is there: its notes are these.
    """
    for blob in store.hidden(_home(folder, identity)):
        if blob.size != NO_BLOB:
            store.remove(blob.name)


def known(store: Store, depth: int = 0) -> dict[str, list[str]]:
    """Return the identities of which anything is said, each with the folders in which its notes lie."""
    homes: dict[str, list[str]] = defaultdict(list)
    for blob in store.hidden(FOLDER, depth):
        place = _place(blob)
        if place.identity and place.folder not in homes[place.identity]:
            homes[place.identity].append(place.folder)
    return dict(homes)


@dataclass(frozen=True)
class _Place:
    """Where in the notes a blob lies: what it is, as far as its name tells.

    With a ``counter`` it is a change. ``in_the_way``: it has the name of a folder of ours, and is a blob.
    """

    folder: str
    identity: str = ""
    counter: int | None = None
    random: str = ""
    in_the_way: bool = False


def _place(blob: Blob) -> _Place:
    folder, _, inner = f"/{blob.name}".rpartition(f"/{FOLDER}")
    parts = inner.strip("/").split("/") if inner else []
    folder = f"{folder[1:]}/" if folder else ""
    if not parts or not _IDENTITY.fullmatch(parts[0]):
        return _Place(folder, in_the_way=not parts)
    found = _CHANGE.fullmatch(parts[1]) if len(parts) == len(("identity", "change")) else None
    if found:
        return _Place(folder, parts[0], int(found[1]), found[2])
    return _Place(folder, parts[0], in_the_way=len(parts) == 1)


def _gather(store: Store, blobs: Iterable[Blob]) -> Notes:
    """Read all changes, and put together those of each checkpoint."""
    changes: dict[str, list[_Placed]] = defaultdict(list)
    damaged: dict[str, list[str]] = defaultdict(list)
    problems = []
    for blob, place, result in _each(store, blobs):
        if isinstance(result, Change):
            changes[place.identity].append((place.counter or 0, place.random, result))
        elif place.identity:
            damaged[place.identity].append(f"{printable(store.path(blob.name))}: {result}")
        else:
            problems.append(f"{printable(store.path(blob.name))}: {result}")
    noted = {key: _merge(changes.get(key, []), damaged.get(key, [])) for key in (*changes, *damaged)}
    return Notes(noted, tuple(problems))


def _each(store: Store, blobs: Iterable[Blob]) -> Iterator[tuple[Blob, _Place, Change | str]]:
    """Yield each blob that matters with its change, or with why it cannot be read."""
    wanted = []
    for blob in blobs:
        place = _place(blob)
        if place.counter is not None or place.in_the_way:
            wanted.append((blob, place))
    results = each(store.is_local, wanted, lambda item: _read_change(store, *item))
    for (blob, place), result in zip(wanted, results, strict=True):
        if result is not None:
            yield blob, place, result


def _read_change(store: Store, blob: Blob, place: _Place) -> Change | str | None:
    """Read one change; None if it has gone, and a text if it cannot be read."""
    if place.in_the_way or blob.size == NO_BLOB:
        return _NO_FOLDER if place.in_the_way else "it is no file that can be read"
    if blob.size > LONGEST_CHANGE:
        return f"it has {blob.size} bytes: no change has so many"
    try:
        return decode_change(store.read(blob.name, 0, blob.size))
    except FileNotFoundError:
        return None
    except NoteError as error:
        return str(error)
    except OSError as error:
        if not store.is_local:
            raise
        return error.strerror or str(error)


def _merge(changes: list[_Placed], damaged: list[str]) -> Noted:
    """Put changes together in their order.

    Those with one counter did not know of each other: what one of them pins or tags stays so, whatever the others
    take away, for what two people disagree about is kept. The random part decides the rest, the same for every
    reader.
    """
    pinned = False
    tags: dict[str, None] = {}
    notes: list[Note] = []
    metrics: dict[str, float] = {}
    changes = sorted(changes, key=lambda item: item[:2])
    for _, items in groupby(changes, key=lambda item: item[0]):
        group = [change for _, _, change in items]
        pins = [change.pin for change in group if change.pin is not None]
        pinned = any(pins) if pins else pinned
        for tag in (tag for change in group for tag in change.untag):
            tags.pop(tag, None)
        for change in group:
            tags |= dict.fromkeys(change.tag)
            notes += [Note(change.note, change.time)] if change.note else []
            metrics |= change.metrics
    return Noted(pinned or bool(damaged), tuple(tags), tuple(notes), metrics, tuple(damaged))


def _home(folder: str, identity: str) -> str:
    return f"{folder}{FOLDER}/{identity}"


def _next(store: Store, home: str, others: Iterable[str]) -> int:
    """Return the counter of the next change.

    Raises:
        SaveError: if what stands there is no folder of our own, or nobody could count further.

    """
    highest = 0
    for blob in (blob for place in (home, *others) for blob in store.hidden(place)):
        if blob.size == NO_BLOB and blob.name == home:
            msg = f"nothing can be noted in {store.path(home)}: {_NO_FOLDER}. Look at it, and remove what is in the way"
            raise SaveError(msg, path=store.path(home))
        highest = max(highest, _place(blob).counter or 0)
    if highest >= _HIGHEST:
        msg = f"nothing more can be noted in {store.path(home)}: a change there has the highest number of all"
        raise SaveError(msg, path=store.path(home))
    return highest + 1


def _not_saved(path: str, error: OSError) -> SaveError:
    left = "It is there whole, or not at all: a server that did not answer may have taken it"
    left = left if is_in_doubt(error) else "Nothing of it is there"
    msg = f"the change could not be committed to {path}: {error.strerror or error}. {left}"
    return SaveError(msg, path=path, errno=error.errno)
