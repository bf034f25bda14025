"""Bundles: checkpoints of several files, which appear, move and go as one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

import pytest

from holdfast.storage import SEAL, Blob, Draft, Store
from holdfast.storage.marks import marked
from holdfast.testing.store_suite.base import Exam

Files = Mapping[str, bytes]  # by name

SHARDS: Files = {"__0_0.distcp": b"zero" * 1000, "__1_0.distcp": b"one"}
SMALL: Files = {".metadata": b"meta", "meta.pt": b"more"}
_MOST = 1 << 20  # bytes of a file here


def put_bundle(
    store: Store, name: str, seal: bytes = b"seal", shards: Files = SHARDS, small: Files = SMALL
) -> dict[str, bytes]:
    """Commit a bundle as its writers do; return the bytes of its files by their names."""
    draft = store.draft(name)
    try:
        return finish(store, draft, seal, shards, small)
    finally:
        draft.drop()


def finish(
    store: Store, draft: Draft, seal: bytes = b"seal", shards: Files = SHARDS, small: Files = SMALL
) -> dict[str, bytes]:
    """Fill a draft and settle it. A seal names the files."""
    files = {marked(file, draft.mark): data for file, data in shards.items()}
    for file, data in files.items():
        store.put(f"{draft.folder}/{file}", [data])
    for file, data in small.items():
        draft.add(file, data)
    whole = {**files, **small}
    text = seal + json.dumps(sorted(whole)).encode()
    draft.add(SEAL, text)
    draft.settle({file: len(data) for file, data in files.items()})
    return {**whole, SEAL: text}


def read_bundle(store: Store, name: str, files: Iterable[str]) -> dict[str, bytes]:
    """Return the bytes of these files of it."""
    return {file: store.read(f"{name}/{file}", 0, _MOST) for file in files}


def seen(name: str, files: Files) -> Blob:
    """Return what a listing shows of it."""
    return Blob(name, len(files[SEAL]), bundle=True)


class BundleSuite(Exam):
    """The exam of a store's bundles, beside ``StoreSuite``: subclass it likewise. Sharded checkpoints need it."""

    def takes_both(self, store: Store) -> bool:
        """Tell whether a file may give way to a folder of its name."""
        return store.is_local

    @pytest.mark.parametrize("name", ["a.ckpt", "deep/er/b=1.ckpt", "with space é 損.ckpt", "a" * 200])
    def test_a_settled_bundle_is_one_blob(self, store: Store, name: str) -> None:
        """A bundle is listed once and without its files, has the size of all of them, and each is read by its name."""
        made = put_bundle(store, name)
        assert store.blobs(name.count("/")) == [seen(name, made)]
        assert store.blobs(9) == [seen(name, made)]
        assert store.exists(name)
        assert store.size(name) == sum(map(len, made.values()))
        assert read_bundle(store, name, made) == made
        assert store.files(name) == [Blob(file, len(made[file])) for file in sorted(made)]
        assert store.leftovers(9) == []
        assert store.sweep(9) == []

    def test_a_draft_is_invisible(self, store: Store) -> None:
        """Until it is settled nothing of a bundle is listed but as a leftover, and no sweep of ours takes it."""
        draft = store.draft("x.ckpt")
        shard = marked("__0_0.distcp", draft.mark)
        store.put(f"{draft.folder}/{shard}", [b"zero"])
        draft.add(SEAL, f'"{shard}"'.encode())
        assert (store.blobs(9), store.exists("x.ckpt")) == ([], False)
        assert store.leftovers(9) == [draft.folder]
        assert store.sweep(9) == []
        draft.settle({shard: 4})
        assert [blob.name for blob in store.blobs()] == ["x.ckpt"]
        assert store.leftovers() == []

    def test_nothing_has_changed_where_the_gate_is_shut(self, store: Store) -> None:
        """An error right before the commit leaves the old bundle as it was; once dropped, nothing of the new one."""
        old = put_bundle(store, "last.ckpt", b"old")
        draft = store.draft("last.ckpt")
        store.put(f"{draft.folder}/{marked('__0_0.distcp', draft.mark)}", [b"new"])
        draft.add(".metadata", b"new")
        draft.add(SEAL, b"new")

        def shut() -> None:
            raise PermissionError

        with pytest.raises(PermissionError):
            draft.settle(gate=shut)
        assert store.blobs() == [seen("last.ckpt", old)]
        draft.drop()
        assert read_bundle(store, "last.ckpt", old) == old
        assert self.everything(store) == sorted(f"last.ckpt/{file}" for file in old)
        assert store.leftovers(9) == []

    def test_a_dropped_draft_is_gone(self, store: Store) -> None:
        """Dropping removes what was written."""
        draft = store.draft("deep/x.ckpt")
        store.put(f"{draft.folder}/{marked('__0_0.distcp', draft.mark)}", [b"zero"])
        draft.drop()
        draft.drop()
        assert self.everything(store) == []
        assert store.leftovers(9) == []

    def test_dropping_what_was_settled_does_nothing(self, store: Store) -> None:
        """A drop that comes after the commit, as in a ``finally``, leaves the bundle."""
        draft = store.draft("x.ckpt")
        made = finish(store, draft)
        draft.drop()
        assert store.blobs() == [seen("x.ckpt", made)]
        assert read_bundle(store, "x.ckpt", made) == made

    def test_a_draft_without_a_seal_is_not_settled(self, store: Store) -> None:
        """What no listing would show is not committed: an error, and the draft is still one."""
        draft = store.draft("x.ckpt")
        with pytest.raises(OSError, match=SEAL):
            draft.settle()
        made = finish(store, draft)
        assert store.blobs() == [seen("x.ckpt", made)]

    @pytest.mark.parametrize("old", ["nothing", "bundle", "file", "empty folder"])
    def test_a_bundle_takes_the_place_of_what_has_its_name(self, store: Store, old: str) -> None:
        """A bundle replaces a bundle or a file of its name, and of the old one nothing is left."""
        if old == "bundle":
            put_bundle(
                store, "last.ckpt", b"old", {"gone.distcp": b"x"}, {".metadata": b"old", "holdfast.keys": b"old"}
            )
        elif old == "file" and self.takes_both(store):
            store.put("last.ckpt", [b"old file"])
        elif old == "empty folder" and store.is_local:
            os.makedirs(store.path("last.ckpt"))
        made = put_bundle(store, "last.ckpt")
        assert store.blobs() == [seen("last.ckpt", made)]
        assert read_bundle(store, "last.ckpt", made) == made
        assert self.everything(store) == sorted(f"last.ckpt/{file}" for file in made)
        assert store.leftovers(9) == []

    def test_a_file_takes_the_place_of_a_bundle(self, store: Store) -> None:
        """A single file that is put, or linked, where a bundle was replaces it whole."""
        if not store.is_local:
            pytest.skip("a file and a folder of one name are two things there, or one that cannot be")
        store.put("one.ckpt", [b"one"])
        for replace in (lambda: store.put("last.ckpt", [b"one"]), lambda: store.link("one.ckpt", "last.ckpt")):
            store.remove("last.ckpt")
            put_bundle(store, "last.ckpt")
            replace()
            assert store.blobs() == [Blob("last.ckpt", 3), Blob("one.ckpt", 3)]
            assert store.read("last.ckpt", 0, 9) == b"one"
        assert self.everything(store) == ["last.ckpt", "one.ckpt"]

    def test_a_folder_of_others_is_not_replaced(self, store: Store) -> None:
        """A folder that is no bundle has somebody's files: settling over it is an error, and all stays as it was."""
        store.put("x.ckpt/precious.txt", [b"precious"])
        with pytest.raises(IsADirectoryError, match="no holdfast has made"):
            put_bundle(store, "x.ckpt")
        assert self.everything(store) == ["x.ckpt/precious.txt"]

    def test_a_second_name(self, store: Store) -> None:
        """A link to a bundle reads the same, replaces what was there, is the same twice, and outlives the first."""
        made = put_bundle(store, "deep/a.ckpt")
        put_bundle(store, "last.ckpt", b"old", {"gone.distcp": b"x"})
        for _ in range(2):
            assert store.link("deep/a.ckpt", "last.ckpt") in ("hard link", "reflink", "copy")
        first, second = store.blobs(1)
        assert (first, second) == (seen("deep/a.ckpt", made), seen("last.ckpt", made))
        assert first.file_id == second.file_id
        put_bundle(store, "deep/a.ckpt", b"newer", {"__0_0.distcp": b"new"})
        assert read_bundle(store, "last.ckpt", made) == made
        store.remove("deep/a.ckpt")
        assert store.blobs(9) == [seen("last.ckpt", made)]
        assert self.everything(store) == sorted(f"last.ckpt/{file}" for file in made)

    def test_a_move(self, store: Store) -> None:
        """A moved bundle has its new name and no other; never over another."""
        made = put_bundle(store, "x.ckpt")
        store.put("taken", [b"taken"])
        if not store.move("x.ckpt", "x.ckpt.damaged"):
            assert store.blobs() == [Blob("taken", 5), seen("x.ckpt", made)]
            return
        assert store.blobs() == [Blob("taken", 5), seen("x.ckpt.damaged", made)]
        with pytest.raises(FileExistsError):
            store.move("x.ckpt.damaged", "taken")
        assert read_bundle(store, "x.ckpt.damaged", made) == made

    @pytest.mark.parametrize("how", ["remove", "retire"])
    def test_a_removed_bundle_is_gone(self, store: Store, how: str) -> None:
        """Removed or retired, a bundle leaves nothing, nor the folders that were only for it."""
        put_bundle(store, "deep/er/x.ckpt")
        store.put("kept.ckpt", [b"kept"])
        assert getattr(store, how)("deep/er/x.ckpt") in ("", None)
        assert not store.exists("deep")
        assert self.everything(store) == ["kept.ckpt"]
        assert getattr(store, how)("deep/er/x.ckpt") in ("", None)

    def test_a_stamp_tells_of_another_bundle(self, store: Store) -> None:
        """The stamp of a bundle stays until another takes its name, with as many bytes, too; a second name keeps it.

        A copy need not: some servers count their writings.
        """
        put_bundle(store, "a.ckpt")
        before = store.stamp("a.ckpt")
        how = store.link("a.ckpt", "b.ckpt")
        if before is None and not store.is_local:
            pytest.skip("a store without etags")
        assert before is not None
        assert store.stamp("a.ckpt") == before
        assert how == "copy" or store.stamp("b.ckpt") == before
        put_bundle(store, "a.ckpt")
        assert store.stamp("a.ckpt") != before

    def test_a_bundle_can_be_held(self, store: Store) -> None:
        """Who holds a bundle alone keeps others from holding it, under any of its names."""
        put_bundle(store, "a.ckpt")
        store.link("a.ckpt", "b.ckpt")
        with store.hold("a.ckpt", alone=True) as first, store.hold("b.ckpt") as second:
            assert (first, second) == (True, not store.is_local)
        with store.hold("a.ckpt") as first, store.hold("b.ckpt") as second:
            assert (first, second) == (True, True)
        with store.hold("none.ckpt") as held:
            assert not held
