"""Second names and moves: as atomic as a write, and never over another's bytes."""

from __future__ import annotations

import pytest

from holdfast.storage import Blob, Store
from holdfast.testing.store_suite.base import Exam
from holdfast.testing.store_suite.material import (
    NAMES,
)


class SecondNames(Exam):
    """Second names and moves: as atomic as a write, and never over another's bytes."""

    def test_a_link_has_the_same_bytes_and_its_own_life(self, store: Store) -> None:
        """A second name reads the same, replaces what was there, and outlives the first name."""
        store.put("deep/a.ckpt", [b"one"])
        store.put("last.ckpt", [b"older and longer"])
        assert store.link("deep/a.ckpt", "last.ckpt") in ("hard link", "reflink", "copy")
        assert store.read("last.ckpt", 0, 99) == b"one"
        store.put("deep/a.ckpt", [b"two"])
        assert store.read("last.ckpt", 0, 99) == b"one"
        store.remove("deep/a.ckpt")
        assert store.blobs(depth=1) == [Blob("last.ckpt", 3)]

    def test_a_link_into_a_new_folder(self, store: Store) -> None:
        """The folder of a second name is made; linking twice is the same as once."""
        store.put("a.ckpt", [b"one"])
        for _ in range(2):
            store.link("a.ckpt", "far/away/b.ckpt")
        assert store.read("far/away/b.ckpt", 0, 9) == b"one"
        assert len(store.blobs(depth=2)) == 2

    def test_a_link_to_nothing(self, store: Store) -> None:
        """Linking a name that is not there is a FileNotFoundError and leaves the old target."""
        store.put("b.ckpt", [b"old"])
        with pytest.raises(FileNotFoundError):
            store.link("none.ckpt", "b.ckpt")
        assert store.read("b.ckpt", 0, 9) == b"old"

    @pytest.mark.parametrize("name", NAMES[:4])
    def test_a_move_is_whole_or_not_at_all(self, store: Store, name: str) -> None:
        """A moved blob has its new name and no other; a store without such a step says so and changes nothing."""
        store.put(name, [b"bytes"])
        target = name + ".damaged"
        now = target if store.move(name, target) else name
        assert store.blobs(depth=3) == [Blob(now, 5)]
        assert store.read(now, 0, 9) == b"bytes"

    def test_a_move_never_replaces(self, store: Store) -> None:
        """A name that is taken is an error, or the store moves nothing: both blobs stay as they were."""
        for name in ("a", "b"):
            store.put(name, [name.encode()])
        try:
            moved = store.move("a", "b")
        except FileExistsError:
            moved = False
        assert not moved
        assert [store.read(name, 0, 9) for name in ("a", "b")] == [b"a", b"b"]

    def test_a_blob_can_be_held(self, store: Store) -> None:
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
        assert self.everything(store) == []
