"""What a save is at 1,024 ranks and 405 billion parameters: python -m benchmarks.scale [--quick] [--ranks N ...].

Sizes are measured: the tables, the metadata and the messages are really made, by the functions that a save uses, for
as many items as such a model has; above ``--built`` ranks the metadata are carried on in proportion, which is said.
Times are simulated (``scale_model.py``), from what is assumed of the machines.
"""

from __future__ import annotations

import argparse
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TypeVar

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

from benchmarks.scale_model import Cluster, Failing, Load, around, saves, sized, typical
from holdfast import expected_waste, optimal_interval
from holdfast.engine.sharded import metadata as dcp_metadata
from holdfast.engine.sharded.committing import Shard
from holdfast.format import directory, shards
from holdfast.records import Facts, Manifest, Record

T = TypeVar("T")

GB, MB = 1e9, 1e6
_HEADER = 1024  # bytes of a tensor's archive around its data, about
_RESTART = 600.0
_MANY = 200  # failures in a simulated run: a few would tell little


@dataclass(frozen=True)
class Model:
    """A decoder with grouped queries. The default is Llama 3.1 405B."""

    hidden: int = 16_384
    layers: int = 126
    inner: int = 53_248
    keys: int = 1024
    words: int = 128_256

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield its parameters."""
        own, inner, keys = self.hidden, self.inner, self.keys
        yield "model.embed_tokens.weight", (self.words, own)
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            for part, rows in (("q_proj", own), ("k_proj", keys), ("v_proj", keys), ("o_proj", own)):
                yield f"{name}.self_attn.{part}.weight", (rows, own)
            yield f"{name}.mlp.gate_proj.weight", (inner, own)
            yield f"{name}.mlp.up_proj.weight", (inner, own)
            yield f"{name}.mlp.down_proj.weight", (own, inner)
            yield f"{name}.input_layernorm.weight", (own,)
            yield f"{name}.post_attention_layernorm.weight", (own,)
        yield "model.norm.weight", (own,)
        yield "lm_head.weight", (self.words, own)


TINY = Model(hidden=64, layers=2, inner=128, keys=16, words=256)


@dataclass(frozen=True)
class Item:
    """One tensor of the state: float32, divided by its rows."""

    name: str
    shape: tuple[int, ...]

    def chunk(self, rank: int, ranks: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Return offset and shape of what a rank has of it; None if that is nothing."""
        rows = -(-self.shape[0] // ranks)
        begin = min(self.shape[0], rank * rows)
        many = min(self.shape[0], begin + rows) - begin
        rest = self.shape[1:]
        return ((begin, *(0 for _ in rest)), (many, *rest)) if many else None


def state_of(model: Model) -> list[Item]:
    """Return weights and both of Adam's averages."""
    items = []
    for name, shape in model.shapes():
        items.append(Item(f"state_dict.{name}", shape))
        items += [Item(f"optimizer_states.0.state.{name}.{part}", shape) for part in ("exp_avg", "exp_avg_sq")]
    return items


@dataclass(frozen=True)
class Sizes:
    """What a save consists of beside the state. Sizes are in bytes, times in seconds.

    Attributes:
        state: all tensors' bytes.
        largest: those of the largest rank's file.
        items: how many parts of tensors the fullest rank has.
        table: the table of its file, and how long it takes to make.
        plan: what it tells rank 0 of its plan: at the first save, and when shapes change.
        spans: what it tells of where its items lie: at the first save.
        shard: what it tells at every other save.
        metadata: DCP's, and how long it takes to make: at the first save, and when something has moved.
        reading: how long each rank takes to read DCP's metadata at a load.
        manifest: ours, and how long it takes to make: at every save.
        built: of how many ranks the metadata were really made.

    """

    state: int
    largest: int
    items: int
    table: tuple[int, float]
    plan: int
    spans: int
    shard: int
    metadata: tuple[int, float]
    reading: float
    manifest: tuple[int, float]
    built: int


def measure(items: list[Item], ranks: int, built: int) -> Sizes:
    """Make what a save makes, and weigh it."""
    mine = list(parts(items, 0, ranks))
    wholes = {item.name: item.shape for item in items}
    regions, offset = [], 0
    for name, at, shape in mine:
        size = 4 * prod(shape)
        regions.append(shards.Region(name, at, offset, size + _HEADER, 0xABCDEF01, _HEADER, size))
        offset = regions[-1].end
    table, seconds = timed(lambda: shards.encode(regions))
    spans = tuple((region.name, region.at, region.offset, region.length) for region in regions)
    record = Record("__1000_0.distcp", offset + len(table), 0xABCDEF01)
    made = min(ranks, built)
    encoded, encoding, decoding = weighed(tuple(items), made)
    manifest = Manifest(
        Facts(ranks=ranks),
        tuple(Record(f"__{rank}_0.distcp", record.size, record.crc32) for rank in range(ranks)),
        dcp_metadata.infos(account(items, 1)),
    )
    seal, seal_seconds = timed(lambda: directory.encode(manifest))
    more = ranks / made
    return Sizes(
        state=sum(4 * prod(item.shape) for item in items),
        largest=record.size,
        items=len(mine),
        table=(len(table), seconds),
        plan=len(pickle.dumps(SavePlan([write_item(wholes[part[0]], *part) for part in mine]))),
        spans=len(pickle.dumps(Shard(record, spans))),
        shard=len(pickle.dumps(Shard(record, None))),
        metadata=(round(encoded * more), encoding * more),
        reading=decoding * more,
        manifest=(len(seal), seal_seconds),
        built=made,
    )


@lru_cache
def weighed(items: tuple[Item, ...], ranks: int) -> tuple[int, float, float]:
    """Return the bytes of DCP's metadata, and how long it takes to make and to read them."""
    data, making = timed(lambda: dcp_metadata.encode(account(list(items), ranks), places(list(items), ranks)))
    _, reading = timed(lambda: dcp_metadata.decode(data, "the metadata"))
    return len(data), making, reading


def parts(items: list[Item], rank: int, ranks: int) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Yield name, offset and shape of all that a rank has."""
    for item in items:
        chunk = item.chunk(rank, ranks)
        if chunk is not None:
            yield item.name, *chunk


def account(items: list[Item], ranks: int) -> Metadata:
    """Return DCP's metadata, without where things lie."""
    known: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
    for item in items:
        found = [chunk for rank in range(ranks) if (chunk := item.chunk(rank, ranks)) is not None]
        chunks = [ChunkStorageMetadata(torch.Size(at), torch.Size(shape)) for at, shape in found]
        known[item.name] = TensorStorageMetadata(TensorProperties(torch.float32), torch.Size(item.shape), chunks)
    return Metadata(known, planner_data={item.name: tuple(item.name.split(".", 1)) for item in items})


def places(items: list[Item], ranks: int) -> Iterator[tuple[MetadataIndex, str, int, int]]:
    """Yield where each part lies."""
    for rank in range(ranks):
        offset = 0
        for name, at, shape in parts(items, rank, ranks):
            length = 4 * prod(shape) + _HEADER
            yield MetadataIndex(name, torch.Size(at)), f"__{rank}_0.distcp", offset, length
            offset += length


def write_item(whole: tuple[int, ...], name: str, at: tuple[int, ...], shape: tuple[int, ...]) -> WriteItem:
    """Return what a plan has of a part."""
    chunk = ChunkStorageMetadata(torch.Size(at), torch.Size(shape))
    data = TensorWriteData(chunk, TensorProperties(torch.float32), torch.Size(whole))
    return WriteItem(MetadataIndex(name, torch.Size(at)), WriteItemType.SHARD, tensor_data=data)


def timed(make: Callable[[], T]) -> tuple[T, float]:
    """Return what a function makes, and how many seconds of a processor it took."""
    begun = time.process_time()
    made = make()
    return made, time.process_time() - begun


def show_sizes(sizes: dict[int, Sizes]) -> None:
    """Print what a save consists of."""
    rows = (
        ("state, TB", lambda one, _: f"{one.state / 1e12:.2f}"),
        ("files", lambda _, ranks: f"{ranks + 3:,}"),
        ("largest file, GB", lambda one, _: f"{one.largest / GB:.2f}"),
        ("parts of tensors on the fullest rank", lambda one, _: f"{one.items:,}"),
        ("its table, MB", lambda one, _: f"{one.table[0] / MB:.2f}"),
        ("its table is made in, ms", lambda one, _: f"{one.table[1] * 1e3:.0f}"),
        ("a rank's plan, once, MB", lambda one, _: f"{one.plan / MB:.2f}"),
        ("all plans at rank 0, once, MB", lambda one, ranks: f"{one.plan * ranks / MB:.0f}"),
        ("a rank's places, once, MB", lambda one, _: f"{one.spans / MB:.2f}"),
        ("a rank's answer at each save, bytes", lambda one, _: f"{one.shard}"),
        ("DCP's metadata, MB", lambda one, ranks: f"{one.metadata[0] / MB:.1f}{mark(one, ranks)}"),
        ("they are made, once, in, s", lambda one, ranks: f"{one.metadata[1]:.1f}{mark(one, ranks)}"),
        ("each rank reads them at a load in, s", lambda one, ranks: f"{one.reading:.1f}{mark(one, ranks)}"),
        ("our manifest, MB", lambda one, _: f"{one.manifest[0] / MB:.2f}"),
        ("it is made in, ms", lambda one, _: f"{one.manifest[1] * 1e3:.0f}"),
    )
    head("what a save consists of", sizes)
    for title, cell in rows:
        print(f"| {title} | " + " | ".join(cell(one, ranks) for ranks, one in sizes.items()) + " |")


def mark(one: Sizes, ranks: int) -> str:
    """Tell what was carried on from what was made."""
    return "" if one.built == ranks else f" (from {one.built})"


def show_saves(sizes: dict[int, Sizes], cluster: Cluster, many: int, most: int) -> None:
    """Print how long ``many`` saves take, and how often they pay: by runs of at most ``most`` saves."""
    columns = {}
    for ranks, one in sizes.items():
        machines = sized(cluster, ranks)
        written = one.metadata[0] + one.manifest[0]
        first = Load(one.state, one.plan + one.spans, written, one.metadata[1] + one.manifest[1])
        usual = Load(one.state, one.shard, written, one.manifest[1])
        cost, begin = typical(saves(machines, usual, many)), typical(saves(machines, first, 1))
        often = optimal_interval(cost.stall, machines.mtbf, write=cost.commit)
        thrown = around(cost, Failing(machines.mtbf, _RESTART), min(_MANY * machines.mtbf, most * often))
        waste = expected_waste(often, cost.stall, machines.mtbf, write=cost.commit, restart=_RESTART)
        columns[ranks] = (
            f"{cost.stall:.2f}", f"{cost.first:.0f}", f"{cost.last:.0f}", f"{cost.commit:.0f}", f"{begin.commit:.0f}",
            f"{machines.mtbf / 3600:.1f}", f"{optimal_interval(cost.stall, machines.mtbf):.0f}", f"{often:.0f}",
            f"{waste:.2%}", f"{dict(thrown)[often].waste:.2%}", f"{thrown[0][0]:.0f}", f"{thrown[-1][1].waste:.2%}",
        )  # fmt: skip
    titles = (
        "stall of a save, s", "first file durable after, s", "last file durable after, s", "committed after, s",
        "the first save committed after, s", "mean time between failures, h", "best interval by the stall, s",
        "best interval, not below a commit, s", "expected waste there", "simulated waste there",
        "shortest interval simulated, s", "simulated waste at the longest",
    )  # fmt: skip
    head("how long it takes, and how often it pays (simulated)", sizes)
    for place, title in enumerate(titles):
        print(f"| {title} | " + " | ".join(column[place] for column in columns.values()) + " |")


def head(title: str, sizes: dict[int, Sizes]) -> None:
    """Print the head of a table."""
    print(f"\n| {title} | " + " | ".join(f"{ranks:,} ranks" for ranks in sizes) + " |")
    print("| --- |" + " ---: |" * len(sizes))


def main(arguments: list[str] | None = None) -> dict[int, Sizes]:
    """Measure, simulate, print; return the sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model: to see that it runs")
    parser.add_argument("--ranks", type=int, nargs="+", help="default: 64 256 1024 (quick: 2 16)")
    parser.add_argument("--built", type=int, default=64, help="ranks up to which DCP's metadata are really made")
    words = parser.parse_args(arguments)
    items = state_of(TINY if words.quick else Model())
    sizes = {
        ranks: measure(items, ranks, words.built)
        for ranks in words.ranks or ([2, 16] if words.quick else [64, 256, 1024])
    }
    show_sizes(sizes)
    show_saves(sizes, Cluster(), 3 if words.quick else 30, 1000 if words.quick else 100_000)
    return sizes


if __name__ == "__main__":
    main()
