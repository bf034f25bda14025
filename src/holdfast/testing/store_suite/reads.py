"""What reading promises: any range, exact, and short only where the blob ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.storage import Store
from holdfast.testing.store_suite.base import Exam
from holdfast.testing.store_suite.material import POOL, aligned, examples

_SIZE = 300_000
_LARGE = len(POOL)  # more than a store reads with one request


class Reads(Exam):
    """What reading promises: any range, exact, and short only where the blob ends."""

    @examples(10)
    @given(start=st.integers(0, _SIZE + 9), length=st.integers(0, _SIZE + 9))
    def test_any_range_is_exact(self, store: Store, start: int, length: int) -> None:
        """A range is these bytes and no others, returned or read into memory; less only behind the end."""
        data = POOL[:_SIZE]
        store.put("x.ckpt", [data])
        assert store.read("x.ckpt", start, length) == data[start : start + length]
        view = memoryview(bytearray(b"\xee" * length))
        count = store.read_into("x.ckpt", start, view)
        assert count == len(data[start : start + length])
        assert view[:count] == data[start : start + count]
        assert view[count:] == b"\xee" * (length - count)

    def test_a_short_range(self, store: Store) -> None:
        """A few bytes of a small blob are these and no more, returned or read into memory."""
        store.put("x.ckpt", [b"0123456789"])
        view = memoryview(bytearray(b"......"))
        assert (store.read("x.ckpt", 3, 4), store.read("x.ckpt", 8, 4)) == (b"3456", b"89")
        assert (store.read_into("x.ckpt", 3, view[:4]), bytes(view)) == (4, b"3456..")
        assert (store.read_into("x.ckpt", 8, view[1:]), bytes(view)) == (2, b"3896..")

    @pytest.mark.parametrize("start", [0, 1, 4097])
    def test_a_large_blob_is_read_into_memory(self, store: Store, start: int) -> None:
        """A blob of several pieces comes whole and in order; memory for which no bytes are left stays as it was."""
        store.put("x.ckpt", [POOL])
        view = aligned(b"\xee" * _LARGE)
        assert store.read_into("x.ckpt", start, view) == _LARGE - start
        assert view[: _LARGE - start] == POOL[start:]
        assert view[_LARGE - start :] == b"\xee" * start

    def test_reading_what_is_not_there(self, store: Store) -> None:
        """To read into memory from a name without a blob is a FileNotFoundError."""
        with pytest.raises(FileNotFoundError):
            store.read_into("none.ckpt", 0, memoryview(bytearray(4)))

    def test_many_reads_at_once(self, store: Store) -> None:
        """Ranges read by many threads are each their own."""
        store.put("x.ckpt", [POOL])
        starts = range(0, _LARGE, _LARGE // 23)
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda start: store.read("x.ckpt", start, 5000), starts))
        assert found == [POOL[start : start + 5000] for start in starts]
