"""The exam of a store: what its contract promises. A store passes by a subclass that says how to make one."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.memory import PAGE, allocate
from holdfast.storage import Blob
from tests.support.properties import chance, examples

NAMES = ("a.ckpt", "deep/er/b=1.ckpt", "epoch=0-step=1.ckpt", "with space é 損.ckpt", "val[0]+x,y.ckpt", "a" * 200)


FAILURE = OSError("the source failed")


class Sudden(BaseException):
    """What may come at any time, as Ctrl-C does."""


def failing(*chunks, error=FAILURE):
    """Yield some chunks and then fail."""
    yield from chunks
    raise error


def aligned(data, shift=0):
    """The same bytes in writable memory that begins at a page, or some bytes behind it."""
    view = memoryview(allocate(len(data) + shift))[shift : shift + len(data)]
    view[:] = data
    return view


POOL = random.Random(7).randbytes(9 << 20)  # noqa: S311 - any bytes will do
MAKERS = {
    "bytes": bytes,
    "aligned": aligned,
    "shifted": lambda data: aligned(data, 64),
    "read-only": lambda data: aligned(data).toreadonly(),
}
_EDGES = [edge + by for edge in (PAGE, 1 << 20, 1 << 22, 2 << 22) for by in (-1, 0, 1, PAGE)]
SIZES = st.one_of(st.integers(0, 3 << 20), st.sampled_from(_EDGES))
PIECES = st.tuples(st.sampled_from(sorted(MAKERS)), SIZES)


class StoreSuite:
    """Subclass it and give the fixtures ``store``, an empty store whose root need not exist yet, and ``again``.

    ``really_there`` returns the names of all that the store holds, sorted, of temporaries too.
    """

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

    def test_hidden_folders_are_listed_only_by_name(self, store):
        """What lies in a folder whose name begins with ``.holdfast-`` is in no listing, and is found by its name."""
        names = [".holdfast-x/a", ".holdfast-x/in/b", "sub/.holdfast-x/in/c", "sub/deep/.holdfast-x/d", "sub/x.ckpt"]
        for name in names:
            store.put(name, [name.encode()])
        assert store.blobs(depth=9) == [Blob("sub/x.ckpt", 10)]
        for depth, count in ((0, 2), (1, 3), (2, 4), (9, 4)):
            assert store.hidden(".holdfast-x", depth) == [Blob(name, len(name)) for name in names[:count]]
        assert store.hidden(".holdfast-x/in") == [Blob(names[1], len(names[1]))]
        assert store.hidden("sub/.holdfast-x") == [Blob(names[2], len(names[2]))]
        assert store.hidden(".holdfast-y", 9) == []
        for name in names:
            assert store.read(name, 0, 99) == name.encode()
            store.remove(name)
        assert self.really_there(store) == []

    def test_a_blob_can_be_held(self, store):
        """Holding says whether the blob is there, also if it goes meanwhile; those who hold it together do not wait."""
        with store.hold("x.ckpt") as there:
            assert not there
        store.put("x.ckpt", [b"bytes"])
        with store.hold("x.ckpt") as first, store.hold("x.ckpt") as second:
            assert first
            assert second
        with store.hold("x.ckpt", alone=True) as there:
            assert there
            store.remove("x.ckpt")
        assert self.really_there(store) == []

    @pytest.mark.parametrize("name", NAMES[:4])
    def test_a_move_is_whole_or_not_at_all(self, store, name):
        """A moved blob has its new name and no other; a store without such a step says so and changes nothing."""
        store.put(name, [b"bytes"])
        target = name + ".damaged"
        now = target if store.move(name, target) else name
        assert store.blobs(depth=3) == [Blob(now, 5)]
        assert store.read(now, 0, 9) == b"bytes"

    def test_a_move_never_replaces(self, store):
        """A name that is taken is an error, or the store moves nothing: both blobs stay as they were."""
        for name in ("a", "b"):
            store.put(name, [name.encode()])
        try:
            assert not store.move("a", "b")
        except FileExistsError:
            assert store.is_local
        assert [store.read(name, 0, 9) for name in ("a", "b")] == [b"a", b"b"]

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

    def test_a_stamp_tells_of_another_writing(self, store):
        """A stamp, where a store has them, stays until the blob is written anew, also with as many bytes."""
        store.put("a.ckpt", [b"first"])
        before = store.stamp("a.ckpt")
        store.link("a.ckpt", "b.ckpt")
        assert store.stamp("a.ckpt") == before
        store.put("a.ckpt", [b"other"])
        assert before is None or store.stamp("a.ckpt") != before
        assert store.stamp("none.ckpt") is None

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

    @examples(6)
    @given(pieces=st.lists(PIECES, max_size=6), seed=st.integers(0, 99))
    def test_large_blobs_are_exact(self, store, pieces, seed):
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

    @pytest.mark.parametrize("size", [0, 5, 5 << 20])
    def test_the_gate(self, store, size):
        """The gate is called once, after the last byte was taken, while the old blob is still what all see."""
        store.put("x.ckpt", [b"old"])
        seen = []

        def chunks():
            yield from (aligned(POOL[:size]), POOL[:100])
            seen.append("all bytes")

        def gate():
            seen.append((store.read("x.ckpt", 0, 99), store.blobs()))

        store.put("x.ckpt", chunks(), gate=gate)
        store.put("y.ckpt", [], gate=lambda: seen.append(store.exists("y.ckpt")))
        assert seen == ["all bytes", (b"old", [Blob("x.ckpt", 3)]), False]
        assert store.read("x.ckpt", 0, size + 999) == POOL[:size] + POOL[:100]
        assert store.exists("y.ckpt")

    @pytest.mark.parametrize("error", [OSError("the gate is shut"), RuntimeError("odd"), Sudden()], ids=type)
    @pytest.mark.parametrize("size", [3, 5 << 20])
    def test_a_gate_that_is_shut(self, store, error, size):
        """If the gate raises, its error comes out, the old blob stays, and nothing new is there under any name."""
        store.put("x.ckpt", [b"old"])

        def gate():
            raise error

        for name in ("x.ckpt", "y.ckpt"):
            with pytest.raises(type(error)) as caught:
                store.put(name, [aligned(POOL[:size]), b"end"], gate=gate)
            assert caught.value is error
        assert store.read("x.ckpt", 0, 99) == b"old"
        assert self.really_there(store) == ["x.ckpt"]
        store.put("y.ckpt", [b"next"])
        assert store.read("y.ckpt", 0, 99) == b"next"

    @pytest.mark.parametrize("name", ["x.ckpt", "deep/er/x.ckpt"])
    def test_a_retired_blob_is_gone(self, store, name):
        """A retired blob is neither listed, found nor read; retiring what is not there is no error."""
        store.put("other.ckpt", [b"stays"])
        store.put(name, [b"old"])
        store.retire(name)
        assert store.blobs(depth=3) == [Blob("other.ckpt", 5)]
        assert not store.exists(name)
        with pytest.raises(FileNotFoundError):
            store.read(name, 0, 1)
        assert store.retire(name) == store.retire("never.ckpt") == ""

    @examples(8)
    @given(before=SIZES, after=SIZES, whole=st.booleans())
    def test_a_put_over_a_retired_blob(self, store, before, after, whole):
        """In the space of a retired blob, smaller, larger or the same, a new one is exact, and nothing else is left."""
        store.put("kept.ckpt", [b"kept"])
        store.put("old.ckpt", [POOL[:before]])
        over = store.retire("old.ckpt")
        chunk = aligned(POOL[-after:]) if whole and after else POOL[len(POOL) - after :]
        assert store.put("new.ckpt", [chunk], over=over) == after
        assert store.size("new.ckpt") == after
        assert store.read("new.ckpt", 0, after + 1) == POOL[len(POOL) - after :]
        assert store.read("kept.ckpt", 0, 99) == b"kept"
        assert self.really_there(store) == ["kept.ckpt", "new.ckpt"]

    def test_a_put_over_a_retired_blob_that_fails(self, store):
        """If a put over a retired blob fails at its source or its gate, nothing of either is left."""

        def gate():
            raise FAILURE

        for words in ({"chunks": failing(POOL)}, {"chunks": [POOL], "gate": gate}):
            store.put("x.ckpt", [POOL[: 1 << 20]])
            over = store.retire("x.ckpt")
            with pytest.raises(OSError, match="the source failed"):
                store.put("x.ckpt", over=over, **words)
            assert self.really_there(store) == []

    def test_over_what_is_gone(self, store):
        """To write over what is not there, or is in use already, is to write as always."""
        store.put("x.ckpt", [b"old"])
        over = store.retire("x.ckpt")

        def chunks():
            yield b"out"
            store.put("inner.ckpt", [b"inner"], over=over)
            yield b"er"

        store.put("outer.ckpt", chunks(), over=over)
        for number, spare in enumerate((over, "never.tmp", "no/folder/never.tmp")):
            store.put(f"{number}.ckpt", [b"%d" % number], over=spare)
        names = ["0.ckpt", "1.ckpt", "2.ckpt", "inner.ckpt", "outer.ckpt"]
        assert [store.read(name, 0, 9) for name in names] == [b"0", b"1", b"2", b"inner", b"outer"]
        assert self.really_there(store) == names

    def test_over_what_was_never_retired(self, store):
        """A blob that has its name still is not written over, even if a caller mistakes it for a retired one."""
        store.put("precious.ckpt", [b"precious"])
        store.put("x.ckpt", [b"new"], over="precious.ckpt")
        assert store.read("precious.ckpt", 0, 99) == b"precious"
        assert store.read("x.ckpt", 0, 99) == b"new"

    def test_what_is_free(self, store):
        """What is left is a number of bytes, and of files where those are limited; or None, where nobody can say."""
        free = store.free()
        if store.is_local:
            assert free.bytes >= 0
            assert free.files is None or free.files >= 0
        else:
            assert free is None

    def test_many_puts_at_once(self, store):
        """Puts from many threads, of their own names and of one that they share, are each whole."""
        wholes = [POOL[number << 16 : (number + 9) << 16] for number in range(6)]
        together = threading.Barrier(len(wholes))

        def work(number):
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
        assert self.really_there(store) == [f"{number}.ckpt" for number in range(len(wholes))] + ["shared.ckpt"]
