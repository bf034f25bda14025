"""A save of several ranks, behind the training: each writes its file, and rank 0 commits once all are durable.

Rank 0 makes a draft; all put their files into it, each durable by itself; all tell rank 0. Then rank 0 adds DCP's
metadata and the manifest, and gives the draft its name: one step, before which nothing is there and after which all is.
If any rank fails, the draft goes, and every rank has the same error, which names that rank.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import WriteItem

from holdfast.engine.commit import save_errors
from holdfast.engine.order import Order
from holdfast.engine.sharded import metadata as dcp_metadata
from holdfast.engine.sharded.flattening import KEYS_FILE
from holdfast.engine.sharded.image import Part, ShardImage, Staged
from holdfast.engine.sharded.streaming import Stream
from holdfast.errors import ChangedStateError, SaveError
from holdfast.format import directory
from holdfast.format.digest import crc32
from holdfast.format.shards import SUFFIX
from holdfast.ranks import Ranks
from holdfast.records import Facts, Manifest, Record
from holdfast.storage import Store
from holdfast.storage.contract import Draft
from holdfast.storage.marks import marked

Spans = Sequence[tuple[str, "tuple[int, ...] | None", int, int]]  # of each item: name, place, offset, length


@dataclass(frozen=True)
class Shard:
    """What a rank tells of its file, once it is durable.

    Attributes:
        record: its name, size, and digest.
        spans: where each of its items lies; None if they lie where they did at the last save.

    """

    record: Record
    spans: Spans | None


@dataclass(frozen=True)
class Failed:
    """What a rank tells if it has no file."""

    cause: str
    errno: int | None = None
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What rank 0 tells of a commit."""

    records: tuple[Record, ...]
    stamp: tuple[int, ...] | None = None
    link_error: SaveError | None = None


@dataclass
class Accounts:
    """What rank 0 remembers from one commit to the next: where items lie, and the metadata that say so."""

    version: int = 0
    spans: list[Spans] = field(default_factory=list)
    metadata: bytes = b""
    mark: str = ""

    def under(self, mark: str) -> bytes:
        """Return the metadata with the names of other files; a mark is as long as any other."""
        old, new = (marked(f"_0{SUFFIX}", each).encode() for each in (self.mark, mark))
        return self.metadata.replace(old, new)


def shard_name(rank: int, mark: str) -> str:
    """Return the name of a rank's file: as DCP's own writer has it, and with the mark of the save."""
    return marked(f"__{rank}_0{SUFFIX}", mark)


def write_shard(  # noqa: PLR0913, PLR0917 - what is written, where, and who is asked
    store: Store, name: str, image: ShardImage, staged: Staged, known: Spans | None, gate: Callable[[], None]
) -> Shard:
    """Write a rank's file; on return it is durable.

    ``known``: where its items lay at the last save. ``gate`` is asked when all is written, and may refuse by an error.
    """
    store.put(name, image.seal(staged), gate=gate, size=image.size)
    rows = zip(staged.parts, staged.spans, strict=True)
    spans = [(part.name, part.at, offset, length) for part, (offset, length) in rows]
    return Shard(Record(name.rpartition("/")[2], staged.size, staged.crc32), None if spans == known else spans)


def with_keys(extra: Mapping[str, bytes] | None, keys: bytes) -> dict[str, bytes]:
    """Add the file that tells what DCP's flat names lose of the state, if they lose anything."""
    return {**(extra or {}), **({KEYS_FILE: keys} if keys else {})}


def write_stream(store: Store, name: str, parts: Sequence[Part]) -> Stream:
    """Write a rank's file from where its tensors lie; on return it is durable."""
    stream = Stream(parts)
    store.put(name, stream.chunks())
    return stream


@dataclass
class Committing:
    """One commit, on every rank.

    Attributes:
        ranks: those that take part, for the thread that this is done on.
        order: what is saved.
        extra: further files, by their names: rank 0's are written.

    """

    ranks: Ranks
    order: Order
    extra: Mapping[str, bytes] = field(default_factory=dict)
    _draft: Draft | None = None

    def run(
        self, write: Callable[[str], Shard], seal: Callable[[list[Shard]], bytes], infos: Metadata | None
    ) -> Outcome:
        """Have each rank write its file into the draft, and rank 0 commit.

        Args:
            write: writes this rank's file, by the name that it is given.
            seal: returns the bytes of DCP's metadata from what all ranks have told; called on rank 0.
            infos: DCP's metadata, on rank 0.

        Raises:
            SaveError: the same on every rank.

        """
        order = self.order
        path = order.store.path(order.name)
        try:
            folder, mark = self.ranks.agree(self._begin, at=f"the save of {order.name}")
            told: Shard | Failed
            try:
                with save_errors(path, commits=False):
                    told = write(f"{folder}/{shard_name(self.ranks.rank, mark)}")
            except SaveError as error:
                told = Failed(str(error), error.errno, getattr(error, "names", ()))
            shards = self.ranks.gather(told, at=f"the shards of {order.name}")
            return self.ranks.agree(lambda: self._commit(shards, seal, infos), at=f"the commit of {order.name}")
        finally:
            if self._draft is not None:
                self._draft.drop()  # nothing, if it was committed

    def _begin(self) -> tuple[str, str]:
        with save_errors(self.order.store.path(self.order.name)):
            self._draft = self.order.store.draft(self.order.name)
            return self._draft.folder, self._draft.mark

    def _commit(
        self, told: list[Shard | Failed], seal: Callable[[list[Shard]], bytes], infos: Metadata | None
    ) -> Outcome:
        order, store = self.order, self.order.store
        path = store.path(order.name)
        shards = [item for item in told if isinstance(item, Shard)]
        for rank, item in enumerate(told):
            if isinstance(item, Failed):
                if item.changed:
                    raise ChangedStateError(path, item.changed)
                msg = item.cause if len(told) == 1 else f"rank {rank} of {len(told)}: {item.cause}"
                raise SaveError(msg, path=path, errno=item.errno)
        draft = self._draft
        assert draft is not None and infos is not None  # noqa: S101, PT018 - this is rank 0
        with save_errors(path):
            facts = replace(order.facts, ranks=len(shards))
            mine = [shard.record for shard in shards]
            records = settle(
                draft, facts, mine, extra=self.extra, metadata=seal(shards), infos=infos, consent=order.consent
            )
        return Outcome(records, store.stamp(order.name), _link(order))


def settle(  # noqa: PLR0913 - what a checkpoint consists of
    draft: Draft,
    facts: Facts,
    shards: Sequence[Record],
    *,
    extra: Mapping[str, bytes],
    metadata: bytes,
    infos: Metadata,
    consent: Callable[[], None] | None = None,
) -> tuple[Record, ...]:
    """Add to a draft whose shards are durable all that is missing, and commit it; return what the manifest has.

    Raises:
        OSError: if that cannot be done; it is still a draft then.

    """
    files = {**extra, directory.METADATA_FILE: metadata}
    for name, data in files.items():
        draft.add(name, data)
    records = (*shards, *(Record(name, len(data), crc32(data)) for name, data in files.items()))
    manifest = Manifest(facts, records, dcp_metadata.infos(infos))
    draft.add(directory.MANIFEST_FILE, directory.encode(manifest))
    draft.settle({record.name: record.size for record in shards}, consent)
    return records


def places(
    items: Sequence[Sequence[WriteItem]], shards: Sequence[Shard], spans: Sequence[Spans]
) -> Iterator[tuple[MetadataIndex, str, int, int]]:
    """Yield each item with the file that it lies in, from where, and how many bytes."""
    for rank, (mine, shard) in enumerate(zip(items, shards, strict=True)):
        by_index = {(name, at): (offset, length) for name, at, offset, length in spans[rank]}
        for item in mine:
            at = None if item.index.offset is None else tuple(item.index.offset)
            offset, length = by_index[item.index.fqn, at]
            yield item.index, shard.record.name, offset, length


def _link(order: Order) -> SaveError | None:
    """Give the checkpoint its second name; return why that was not possible."""
    if order.also:
        try:
            with save_errors(order.store.path(order.also)):
                order.store.link(order.name, order.also)
        except SaveError as error:
            return error
    return None


def forget_blocks(order: Order) -> None:
    """Remove what a single file could have been written over: there is none here."""
    if order.over:
        with contextlib.suppress(OSError):  # a sweep removes it
            order.store.remove(order.over)
