"""Whether two checkpoints are the same one: by what their manifests say, whatever they are called."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from holdfast.directories import is_sealed, read_manifest
from holdfast.errors import DamagedCheckpointError, NewerFormatError
from holdfast.format import reading
from holdfast.records import LAST, Facts, Manifest
from holdfast.source import TailSource
from holdfast.storage import Store


@dataclass(frozen=True)
class Likeness:
    """What identifies the content of a checkpoint.

    Attributes:
        print: the same for the same content; "" for a file without a manifest.
        run: the run that it is of.
        sequence: how many saves its run had asked for before it.
        time: when it was saved.
        size: the bytes of the file; of a sharded one those of its records.
        problem: why its manifest cannot be read, as it is damaged, or "".
        newer: why it cannot be read, as a later holdfast wrote it, or "".
        facts: what it says of itself.

    """

    print: str = ""
    run: str = ""
    sequence: int = 0
    time: str = ""
    size: int = 0
    problem: str = ""
    newer: str = ""
    facts: Facts | None = field(default=None, compare=False, repr=False)

    def is_last(self, name: str) -> bool:
        """Tell whether under this name it is its run's ``last``, which moves on."""
        return self.facts is not None and f"/{name}".endswith(f"/{self.facts.names.get(LAST, '/')}")

    def may_replace(self, other: Likeness, name: str) -> bool:
        """Tell whether this one may take a name from another: from what is damaged, or older and of the same run.

        Of two that count as equally old neither is newer: they are of two branches of the run, and the one that is
        there stays. Only ``last`` moves on.
        """
        if other.problem:
            return True
        if not self.run or self.run != other.run:
            return False
        moves_on = self.is_last(name) and self.sequence == other.sequence and self.time >= other.time
        return self.sequence > other.sequence or moves_on


def likeness_of(manifest: Manifest, size: int) -> Likeness:
    """Return the likeness of a checkpoint of this manifest.

    The names of its records do not count: a sharded one may have others in another store.
    """
    records = sorted((record.size, record.crc32) for record in manifest.records)
    said = hashlib.sha256(f"{manifest.facts!r} {records!r}".encode("utf-8", "surrogateescape")).hexdigest()
    facts = manifest.facts
    return Likeness(said, facts.run, facts.sequence, facts.time, size, facts=facts)


def look_at(store: Store, name: str, size: int | None = None) -> Likeness | None:
    """Return what is there under a name; None if nothing is.

    Args:
        store: where.
        name: of a file or a sharded checkpoint.
        size: of the file, if it is known from a listing.

    Raises:
        OSError: if it cannot be read.

    """
    try:
        if is_sealed(store, name):
            manifest = read_manifest(store, name)
            size = sum(record.size for record in manifest.records) if manifest is not None else 0
        else:
            size = store.size(name) if size is None else size
            manifest = reading.read_manifest(TailSource(store, name, size)) if size else None
    except FileNotFoundError:
        return None
    except DamagedCheckpointError as error:
        return Likeness(size=size or 0, problem=f"{error.record}: {error.problem}")
    except NewerFormatError as error:
        return Likeness(size=size or 0, newer=error.problem)
    return Likeness(size=size) if manifest is None else likeness_of(manifest, size)
