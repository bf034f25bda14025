"""What looking tells: listings, sizes, stamps, paths, and what others have done since."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from holdfast.storage import Blob, Store
from holdfast.testing.store_suite.base import Exam


class Looks(Exam):
    """What looking tells: listings, sizes, stamps, paths, and what others have done since."""

    def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        """A root that does not exist yet is an empty store, not an error."""
        assert store.blobs() == store.blobs(depth=3) == []
        assert not store.exists("a.ckpt")
        assert store.sweep(3) == []

    def test_depth(self, store: Store) -> None:
        """A listing goes as many folders down as it was told, and is sorted by name."""
        names = ["z.ckpt", "a/b.ckpt", "a/c/d.ckpt", "a.ckpt", "a/c/e/f.ckpt"]
        for name in names:
            store.put(name, [b"x"])
        for depth in range(5):
            expected = sorted(name for name in names if name.count("/") <= depth)
            assert [blob.name for blob in store.blobs(depth)] == expected

    def test_hidden_folders_are_listed_only_by_name(self, store: Store) -> None:
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
        assert self.everything(store) == []

    @pytest.mark.parametrize("use", ["size", "read"])
    def test_what_is_not_there(self, store: Store, use: str) -> None:
        """Asking for a blob that is not there is a FileNotFoundError."""
        arguments = ("none.ckpt",) if use == "size" else ("none.ckpt", 0, 4)
        with pytest.raises(FileNotFoundError):
            getattr(store, use)(*arguments)

    def test_paths_and_names(self, store: Store) -> None:
        """A name's path leads back to the name; a path elsewhere has none."""
        for name in ("a.ckpt", "deep/er/b.ckpt"):
            store.put(name, [b"x"])
            assert store.name_of(store.path(name)) == name
        assert store.name_of(store.root + "-other/a.ckpt") is None

    @pytest.mark.parametrize("name", ["deep/../x.ckpt", "./x.ckpt", "deep/er/../../x.ckpt", "deep//../x.ckpt"])
    def test_a_name_leads_nowhere_else(self, store: Store, name: str) -> None:
        """A name with dots for its parts is refused, or is a name like others: it reaches no other blob."""
        store.put("x.ckpt", [b"precious"])
        with contextlib.suppress(OSError):
            assert store.read(name, 0, 99) != b"precious"
        with contextlib.suppress(OSError):
            store.put(name, [b"other"])
        assert store.read("x.ckpt", 0, 99) == b"precious"
        with contextlib.suppress(OSError):
            store.remove(name)
        assert store.read("x.ckpt", 0, 99) == b"precious"

    def test_names_that_begin_alike(self, store: Store) -> None:
        """A name is itself and nothing else: not what begins like it, and no folder; nor is it removed with those."""
        names = ["x.ckpt", "x.ckpt.sig", "x/y.ckpt", "xx/y.ckpt"]
        for name in names:
            store.put(name, [name.encode()])
        for name in ("x.ck", "x.ckpt.", "y.ckpt", "X.CKPT"):
            assert not store.exists(name)
            assert store.stamp(name) is None
            with pytest.raises(FileNotFoundError):
                store.size(name)
            store.remove(name)
        store.remove("x.ckpt")
        assert [blob.name for blob in store.blobs(1)] == names[1:]
        assert [blob.name for blob in store.files("x")] == ["y.ckpt"]

    def test_what_is_committed_is_no_leftover(self, store: Store) -> None:
        """No sweep takes what was committed, however small or hidden, and nothing calls it a leftover."""
        names = [".holdfast-x/a", "sub/x.ckpt", "x.ckpt"]
        for name in names:
            store.put(name, [b""])
        assert store.leftovers(9) == []
        assert store.sweep(9) == []
        assert [store.exists(name) for name in names] == [True] * 3

    def test_what_others_put_later_is_seen(self, store: Store, again: Callable[[], Store]) -> None:
        """A second store of the same root sees at once what the first puts, replaces and removes."""
        other = again()
        assert other.blobs() == []
        store.put("x.ckpt", [b"1"])
        assert (other.exists("x.ckpt"), other.blobs()) == (True, [Blob("x.ckpt", 1)])
        store.put("x.ckpt", [b"22"])
        assert (other.size("x.ckpt"), other.read("x.ckpt", 0, 9)) == (2, b"22")
        store.remove("x.ckpt")
        assert (other.exists("x.ckpt"), other.blobs()) == (False, [])

    def test_a_stamp_tells_of_another_writing(self, store: Store) -> None:
        """A stamp, where a store has them, stays until the blob is written anew, also with as many bytes."""
        store.put("a.ckpt", [b"first"])
        before = store.stamp("a.ckpt")
        store.link("a.ckpt", "b.ckpt")
        assert store.stamp("a.ckpt") == before
        store.put("a.ckpt", [b"other"])
        assert before is None or store.stamp("a.ckpt") != before
        assert store.stamp("none.ckpt") is None

    def test_what_is_free(self, store: Store) -> None:
        """What is left is a number of bytes, and of files where those are limited; or None, where nobody can say."""
        free = store.free()
        if free is not None:
            assert free.bytes >= 0
            assert free.files is None or free.files >= 0
