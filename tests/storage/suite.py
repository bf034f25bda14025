"""The exam of a store: what its contract promises. A store passes by a subclass that says how to make one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.storage import Blob
from tests.support.properties import examples

NAMES = ("a.ckpt", "deep/er/b=1.ckpt", "epoch=0-step=1.ckpt", "with space é 損.ckpt", "val[0]+x,y.ckpt", "a" * 200)


FAILURE = OSError("the source failed")


class Sudden(BaseException):
    """What may come at any time, as Ctrl-C does."""


def failing(*chunks, error=FAILURE):
    """Yield some chunks and then fail."""
    yield from chunks
    raise error


class StoreSuite:
    """Subclass it and give a fixture ``store``: an empty store, whose root need not exist yet."""

    def test_an_empty_store_lists_nothing(self, store):
        """A root that does not exist yet is an empty store, not an error."""
        assert store.blobs() == store.blobs(depth=3) == []
        assert not store.exists("a.ckpt")
        assert store.sweep(3) == []

    @pytest.mark.parametrize("name", NAMES)
    def test_what_was_put_is_there(self, store, name):
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
    def test_empty_blobs_and_chunks(self, store, chunks):
        """No bytes, and chunks of no bytes, are put like any other."""
        data = b"".join(chunks)
        assert store.put("x.ckpt", chunks) == len(data)
        assert store.blobs() == [Blob("x.ckpt", len(data))]

    def test_chunks_of_other_types_of_memory(self, store):
        """A view of wider numbers is put by its bytes."""
        from array import array

        numbers = array("I", [1, 2, 3])
        assert store.put("x", [memoryview(numbers)]) == 12
        assert store.read("x", 0, 99) == numbers.tobytes()

    @examples(15)
    @given(data=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=4))
    def test_any_cut_of_the_bytes_gives_the_same_blob(self, store, data, cuts):
        """However the bytes are cut into chunks, the blob is their sequence."""
        at = [0, *sorted(cuts), len(data)]
        store.put("x", [data[start:end] for start, end in pairwise(at)])
        assert store.read("x", 0, 4000) == data
        assert store.read("x", len(data), 10) == store.read("x", len(data) + 5, 10) == b""

    @pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("odd"), Sudden()], ids=type)
    @pytest.mark.parametrize("before", [b"", b"x", b"x" * 300_000], ids=len)
    def test_a_put_that_fails_leaves_nothing(self, store, error, before):
        """When the source fails after some bytes, its error comes out and nothing is there or listed."""
        with pytest.raises(type(error)):
            store.put("x.ckpt", failing(before, error=error))
        assert store.blobs(depth=2) == []
        assert not store.exists("x.ckpt")
        store.put("x.ckpt", [b"next"])
        assert store.read("x.ckpt", 0, 9) == b"next"

    def test_a_put_that_fails_leaves_the_old_blob(self, store):
        """When a replacement fails, the old blob is there as it was."""
        store.put("x.ckpt", [b"old"])
        with pytest.raises(OSError, match="the source failed"):
            store.put("x.ckpt", failing(b"new, and longer"))
        assert store.read("x.ckpt", 0, 99) == b"old"
        assert store.blobs() == [Blob("x.ckpt", 3)]

    def test_nothing_is_seen_of_a_put_before_its_end(self, store):
        """While the bytes come, the old blob is what others see, and no temporary is listed."""
        store.put("x.ckpt", [b"old"])
        seen = []

        def chunks():
            for _ in range(3):
                yield b"n" * 70_000
                seen.append((store.read("x.ckpt", 0, 99), store.blobs(), store.exists("y.ckpt")))

        store.put("y.ckpt", chunks())
        store.put("x.ckpt", chunks())
        assert seen[:3] == [(b"old", [Blob("x.ckpt", 3)], False)] * 3
        assert seen[3:] == [(b"old", [Blob("x.ckpt", 3), Blob("y.ckpt", 210_000)], True)] * 3
        assert store.size("x.ckpt") == 210_000

    def test_a_link_has_the_same_bytes_and_its_own_life(self, store):
        """A second name reads the same, replaces what was there, and outlives the first name."""
        store.put("deep/a.ckpt", [b"one"])
        store.put("last.ckpt", [b"older and longer"])
        assert store.link("deep/a.ckpt", "last.ckpt") in ("hard link", "reflink", "copy")
        assert store.read("last.ckpt", 0, 99) == b"one"
        store.put("deep/a.ckpt", [b"two"])
        assert store.read("last.ckpt", 0, 99) == b"one"
        store.remove("deep/a.ckpt")
        assert store.blobs(depth=1) == [Blob("last.ckpt", 3)]

    def test_a_link_into_a_new_folder(self, store):
        """The folder of a second name is made; linking twice is the same as once."""
        store.put("a.ckpt", [b"one"])
        for _ in range(2):
            store.link("a.ckpt", "far/away/b.ckpt")
        assert store.read("far/away/b.ckpt", 0, 9) == b"one"
        assert len(store.blobs(depth=2)) == 2

    def test_a_link_to_nothing(self, store):
        """Linking a name that is not there is a FileNotFoundError and leaves the old target."""
        store.put("b.ckpt", [b"old"])
        with pytest.raises(FileNotFoundError):
            store.link("none.ckpt", "b.ckpt")
        assert store.read("b.ckpt", 0, 9) == b"old"

    def test_remove(self, store):
        """A removed blob is gone; removing it again, or from a folder that never was, is no error."""
        store.put("a/x.ckpt", [b"1"])
        store.put("a/y.ckpt", [b"2"])
        for name in ("a/x.ckpt", "a/x.ckpt", "none.ckpt", "no/folder/none.ckpt"):
            store.remove(name)
        assert store.blobs(depth=1) == [Blob("a/y.ckpt", 1)]

    @pytest.mark.parametrize("use", ["size", "read"])
    def test_what_is_not_there(self, store, use):
        """Asking for a blob that is not there is a FileNotFoundError."""
        arguments = ("none.ckpt",) if use == "size" else ("none.ckpt", 0, 4)
        with pytest.raises(FileNotFoundError):
            getattr(store, use)(*arguments)

    def test_depth(self, store):
        """A listing goes as many folders down as it was told, and is sorted by name."""
        names = ["z.ckpt", "a/b.ckpt", "a/c/d.ckpt", "a.ckpt", "a/c/e/f.ckpt"]
        for name in names:
            store.put(name, [b"x"])
        for depth in range(5):
            expected = sorted(name for name in names if name.count("/") <= depth)
            assert [blob.name for blob in store.blobs(depth)] == expected

    def test_paths_and_names(self, store):
        """A name's path leads back to the name; a path elsewhere has none."""
        for name in ("a.ckpt", "deep/er/b.ckpt"):
            store.put(name, [b"x"])
            assert store.name_of(store.path(name)) == name
        assert store.name_of(store.root + "-other/a.ckpt") is None

    def test_what_others_put_later_is_seen(self, store, again):
        """A second store of the same root sees at once what the first puts, replaces and removes."""
        other = again()
        assert other.blobs() == []
        store.put("x.ckpt", [b"1"])
        assert (other.exists("x.ckpt"), other.blobs()) == (True, [Blob("x.ckpt", 1)])
        store.put("x.ckpt", [b"22"])
        assert (other.size("x.ckpt"), other.read("x.ckpt", 0, 9)) == (2, b"22")
        store.remove("x.ckpt")
        assert (other.exists("x.ckpt"), other.blobs()) == (False, [])
