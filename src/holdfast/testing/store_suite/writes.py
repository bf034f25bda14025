"""What a write promises: whole or not at all, whatever its pieces, and whoever looks meanwhile."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.storage import Blob, Store
from holdfast.testing.store_suite.base import Exam
from holdfast.testing.store_suite.material import (
    MAKERS,
    NAMES,
    PIECES,
    POOL,
    Sudden,
    aligned,
    chance,
    examples,
    failing,
)


class Writes(Exam):
    """What a write promises: whole or not at all, whatever its pieces, and whoever looks meanwhile."""

    @pytest.mark.parametrize("name", NAMES)
    def test_what_was_put_is_there(self, store: Store, name: str) -> None:
        """A put blob exists, has its size, is listed, and reads back, whole and by ranges."""
        data = bytes(range(256)) * 5
        assert store.put(name, [data[:700], memoryview(data)[700:]]) == len(data)
        assert store.exists(name)
        assert store.size(name) == len(data)
        assert store.blobs(depth=name.count("/")) == [Blob(name, len(data))]
        assert store.read(name, 0, len(data)) == data
        assert store.read(name, 3, 7) == data[3:10]
        assert store.read(name, len(data) - 2, 100) == data[-2:]
        assert store.read(name, 5, 0) == b""

    @pytest.mark.parametrize("chunks", [[], [b""], [b"", b"x", b""]], ids=repr)
    def test_empty_blobs_and_chunks(self, store: Store, chunks: list[bytes]) -> None:
        """No bytes, and chunks of no bytes, are put like any other."""
        data = b"".join(chunks)
        assert store.put("x.ckpt", chunks) == len(data)
        assert store.blobs() == [Blob("x.ckpt", len(data))]

    def test_chunks_of_other_types_of_memory(self, store: Store) -> None:
        """A view of wider numbers is put by its bytes."""
        numbers = array("I", [1, 2, 3])
        assert store.put("x", [memoryview(numbers)]) == 12
        assert store.read("x", 0, 99) == numbers.tobytes()

    @pytest.mark.parametrize("size", [10, 300_000, 5 << 20])
    def test_the_memory_is_the_callers_again(self, store: Store, size: int) -> None:
        """What is written into the memory of a chunk once the put has returned is not in the blob."""
        for number, chunk in enumerate((memoryview(bytearray(POOL[:size])), aligned(POOL[:size]))):
            store.put(f"{number}.ckpt", [chunk])
            chunk[:] = bytes(size)
            assert store.read(f"{number}.ckpt", 0, size + 1) == POOL[:size]

    @pytest.mark.parametrize("size", [100, 70_000, 5 << 20])
    def test_read_only_memory_is_used_again(self, store: Store, size: int) -> None:
        """Memory that is handed over read-only has other bytes in it by the next chunk: each chunk counts as it was."""
        buffer = aligned(bytes(size))
        wholes = [POOL[start : start + size] for start in range(0, 4 << 20, 1 << 20)]

        def chunks() -> Iterator[bytes | memoryview]:
            for whole in wholes:
                buffer[:] = whole
                yield buffer.toreadonly()
            buffer[:] = bytes(size)

        store.put("x.ckpt", chunks())
        assert store.read("x.ckpt", 0, 5 * size) == b"".join(wholes)

    @examples(15)
    @given(data=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=4))
    def test_any_cut_of_the_bytes_gives_the_same_blob(self, store: Store, data: bytes, cuts: list[int]) -> None:
        """However the bytes are cut into chunks, the blob is their sequence."""
        at = [0, *sorted(cuts), len(data)]
        store.put("x", [data[start:end] for start, end in pairwise(at)])
        assert store.read("x", 0, 4000) == data
        assert store.read("x", len(data), 10) == store.read("x", len(data) + 5, 10) == b""

    @examples(6)
    @given(pieces=st.lists(PIECES, max_size=6), seed=st.integers(0, 99))
    def test_large_blobs_are_exact(self, store: Store, pieces: list[tuple[str, int]], seed: int) -> None:
        """Chunks of any sizes, in memory that can go to the disk as it is and in memory that cannot, come out exact."""
        dice = chance(seed)
        starts = [dice.randrange(len(POOL) - size + 1) for _, size in pieces]
        expected = b"".join(POOL[start : start + size] for start, (_, size) in zip(starts, pieces, strict=True))
        chunks = [MAKERS[kind](POOL[start : start + size]) for start, (kind, size) in zip(starts, pieces, strict=True)]
        assert store.put("x.ckpt", chunks) == len(expected)
        for chunk in chunks:
            if isinstance(chunk, memoryview) and not chunk.readonly:
                chunk[:] = bytes(len(chunk))  # the memory is the caller's again
        assert store.size("x.ckpt") == len(expected)
        assert store.read("x.ckpt", 0, len(expected) + 1) == expected

    @pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("odd"), Sudden()], ids=type)
    @pytest.mark.parametrize("before", [b"", b"x", b"x" * 300_000], ids=len)
    def test_a_put_that_fails_leaves_nothing(self, store: Store, error: BaseException, before: bytes) -> None:
        """When the source fails after some bytes, its error comes out and nothing is there or listed."""
        with pytest.raises(type(error)):
            store.put("x.ckpt", failing(before, error=error))
        assert store.blobs(depth=2) == []
        assert not store.exists("x.ckpt")
        store.put("x.ckpt", [b"next"])
        assert store.read("x.ckpt", 0, 9) == b"next"

    def test_a_put_that_fails_leaves_the_old_blob(self, store: Store) -> None:
        """When a replacement fails, the old blob is there as it was."""
        store.put("x.ckpt", [b"old"])
        with pytest.raises(OSError, match="the source failed"):
            store.put("x.ckpt", failing(b"new, and longer"))
        assert store.read("x.ckpt", 0, 99) == b"old"
        assert store.blobs() == [Blob("x.ckpt", 3)]

    def test_nothing_is_seen_of_a_put_before_its_end(self, store: Store) -> None:
        """While the bytes come, the old blob is what others see, and no temporary is listed."""
        store.put("x.ckpt", [b"old"])
        seen: list[Any] = []

        def chunks() -> Iterator[bytes | memoryview]:
            for _ in range(3):
                yield b"n" * 70_000
                seen.append((store.read("x.ckpt", 0, 99), store.blobs(), store.exists("y.ckpt")))

        store.put("y.ckpt", chunks())
        store.put("x.ckpt", chunks())
        assert seen[:3] == [(b"old", [Blob("x.ckpt", 3)], False)] * 3
        assert seen[3:] == [(b"old", [Blob("x.ckpt", 3), Blob("y.ckpt", 210_000)], True)] * 3
        assert store.size("x.ckpt") == 210_000

    def test_many_puts_at_once(self, store: Store) -> None:
        """Puts from many threads, of their own names and of one that they share, are each whole."""
        wholes = [POOL[number << 16 : (number + 9) << 16] for number in range(6)]
        together = threading.Barrier(len(wholes))

        def work(number: int) -> None:
            together.wait(timeout=30)
            for lap in range(3):
                store.put(f"{number}.ckpt", [aligned(wholes[number]), b"%d" % lap])
                store.put("shared.ckpt", [wholes[number][:-1], wholes[number][-1:]])

        with ThreadPoolExecutor(len(wholes)) as threads:
            for done in [threads.submit(work, number) for number in range(len(wholes))]:
                done.result(timeout=60)
        for number, whole in enumerate(wholes):
            assert store.read(f"{number}.ckpt", 0, 1 << 30) == whole + b"2"
        assert store.read("shared.ckpt", 0, 1 << 30) in wholes
        assert self.everything(store) == [f"{number}.ckpt" for number in range(len(wholes))] + ["shared.ckpt"]
