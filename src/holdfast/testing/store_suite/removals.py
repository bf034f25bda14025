"""What goes: by removal, or retired, with its space for the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.storage import Blob, Store
from holdfast.testing.store_suite.base import Exam
from holdfast.testing.store_suite.material import (
    FAILURE,
    POOL,
    SIZES,
    aligned,
    examples,
    failing,
)


class Removals(Exam):
    """What goes: by removal, or retired, with its space for the next."""

    def test_remove(self, store: Store) -> None:
        """A removed blob is gone; removing it again, or from a folder that never was, is no error."""
        store.put("a/x.ckpt", [b"1"])
        store.put("a/y.ckpt", [b"2"])
        for name in ("a/x.ckpt", "a/x.ckpt", "none.ckpt", "no/folder/none.ckpt"):
            store.remove(name)
        assert store.blobs(depth=1) == [Blob("a/y.ckpt", 1)]

    @pytest.mark.parametrize("name", ["x.ckpt", "deep/er/x.ckpt"])
    def test_a_retired_blob_is_gone(self, store: Store, name: str) -> None:
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
    def test_a_put_over_a_retired_blob(self, store: Store, before: int, after: int, whole: bool) -> None:
        """In the space of a retired blob, smaller, larger or the same, a new one is exact, and nothing else is left."""
        store.put("kept.ckpt", [b"kept"])
        store.put("old.ckpt", [POOL[:before]])
        over = store.retire("old.ckpt")
        chunk = aligned(POOL[-after:]) if whole and after else POOL[len(POOL) - after :]
        assert store.put("new.ckpt", [chunk], over=over) == after
        assert store.size("new.ckpt") == after
        assert store.read("new.ckpt", 0, after + 1) == POOL[len(POOL) - after :]
        assert store.read("kept.ckpt", 0, 99) == b"kept"
        assert self.everything(store) == ["kept.ckpt", "new.ckpt"]

    def test_a_put_over_a_retired_blob_that_fails(self, store: Store) -> None:
        """If a put over a retired blob fails at its source or its gate, nothing of either is left."""

        def gate() -> None:
            raise FAILURE

        for words in ({"chunks": failing(POOL)}, {"chunks": [POOL], "gate": gate}):
            store.put("x.ckpt", [POOL[: 1 << 20]])
            over = store.retire("x.ckpt")
            with pytest.raises(OSError, match="the source failed"):
                store.put("x.ckpt", over=over, **words)
            assert self.everything(store) == []

    def test_over_what_is_gone(self, store: Store) -> None:
        """To write over what is not there, or is in use already, is to write as always."""
        store.put("x.ckpt", [b"old"])
        over = store.retire("x.ckpt")

        def chunks() -> Iterator[bytes | memoryview]:
            yield b"out"
            store.put("inner.ckpt", [b"inner"], over=over)
            yield b"er"

        store.put("outer.ckpt", chunks(), over=over)
        for number, spare in enumerate((over, "never.tmp", "no/folder/never.tmp")):
            store.put(f"{number}.ckpt", [b"%d" % number], over=spare)
        names = ["0.ckpt", "1.ckpt", "2.ckpt", "inner.ckpt", "outer.ckpt"]
        assert [store.read(name, 0, 9) for name in names] == [b"0", b"1", b"2", b"inner", b"outer"]
        assert self.everything(store) == names

    def test_over_what_was_never_retired(self, store: Store) -> None:
        """A blob that has its name still is not written over, even if a caller mistakes it for a retired one."""
        store.put("precious.ckpt", [b"precious"])
        store.put("x.ckpt", [b"new"], over="precious.ckpt")
        assert store.read("precious.ckpt", 0, 99) == b"precious"
        assert store.read("x.ckpt", 0, 99) == b"new"
