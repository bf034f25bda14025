"""Stores that each break one promise, and the subclasses of the exam that examine them. Collected by name alone."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass, replace

from holdfast.storage import Blob
from holdfast.storage.local import LocalStore
from holdfast.testing import StoreSuite


@dataclass(frozen=True)
class Partial(LocalStore):
    """Writes under the name itself."""

    def put(self, name, chunks, *, over="", gate=None, size=0):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            written = sum(file.write(memoryview(chunk).cast("B")) for chunk in chunks)
        if gate is not None:
            gate()
        return written


@dataclass(frozen=True)
class Swallowing(LocalStore):
    """Commits what has come when its source fails."""

    def put(self, name, chunks, **how):
        def those_that_come():
            with contextlib.suppress(OSError):
                yield from chunks

        return super().put(name, those_that_come(), **how)


@dataclass(frozen=True)
class Gateless(LocalStore):
    """Asks the gate when all is done."""

    def put(self, name, chunks, *, gate=None, **how):
        written = super().put(name, chunks, **how)
        if gate is not None:
            gate()
        return written


@dataclass(frozen=True)
class Keeping(LocalStore):
    """Writes later what it was given, from memory that is the caller's again."""

    def put(self, name, chunks, **how):
        held = list(chunks)
        written = super().put(name, held, **how)
        if held and isinstance(held[0], memoryview) and not held[0].readonly:
            held[0][:] = bytes(len(held[0]))
            super().put(name, held)
        return written


@dataclass(frozen=True)
class Littering(LocalStore):
    """Leaves something behind at each write that fails."""

    def put(self, name, chunks, **how):
        try:
            return super().put(name, chunks, **how)
        except BaseException:
            with open(f"{self.root}/rubbish", "w"):
                raise


@dataclass(frozen=True)
class Behind(LocalStore):
    """Lists what it has seen at its first look."""

    def blobs(self, depth=0, odd=None):
        seen = self.__dict__.setdefault("seen", {})
        return seen.setdefault(depth, super().blobs(depth, odd))


@dataclass(frozen=True)
class Shallow(LocalStore):
    """Does not look into folders."""

    def blobs(self, depth=0, odd=None):
        return super().blobs(0, odd)


@dataclass(frozen=True)
class Unsorted(LocalStore):
    """Lists in some other order."""

    def blobs(self, depth=0, odd=None):
        return super().blobs(depth, odd)[::-1]


@dataclass(frozen=True)
class Untruthful(LocalStore):
    """Lists a size that is not there."""

    def blobs(self, depth=0, odd=None):
        return [replace(blob, size=blob.size - 1) for blob in super().blobs(depth, odd)]


@dataclass(frozen=True)
class Telling(LocalStore):
    """Lists what is hidden."""

    def blobs(self, depth=0, odd=None):
        return sorted([*super().blobs(depth, odd), *super().hidden(".holdfast-x", depth)], key=lambda blob: blob.name)


@dataclass(frozen=True)
class Sweeping(LocalStore):
    """Removes all whose names begin with the one that is to go."""

    def remove(self, name):
        for blob in self.blobs(9):
            if blob.name.startswith(name.rpartition(".")[0][:1]):
                super().remove(blob.name)
        super().remove(name)


@dataclass(frozen=True)
class Strict(LocalStore):
    """Has an error for what is gone already."""

    def remove(self, name):
        self.size(name)
        super().remove(name)


@dataclass(frozen=True)
class Short(LocalStore):
    """Reads at most a page."""

    def read_into(self, name, offset, view):
        return super().read_into(name, offset, view[:4096])


@dataclass(frozen=True)
class Shifted(LocalStore):
    """Reads another range than was asked for, where that does not begin at the beginning."""

    def read(self, name, offset, length):
        return super().read(name, offset + (offset > 0), length)


@dataclass(frozen=True)
class Sharing(LocalStore):
    """A second name is the first."""

    def link(self, source, target):
        self.remove(target)
        os.makedirs(os.path.dirname(self.path(target)), exist_ok=True)
        os.symlink(self.path(source), self.path(target))
        return "hard link"


@dataclass(frozen=True)
class Half(LocalStore):
    """Takes the target away before it knows of the source."""

    def link(self, source, target):
        self.remove(target)
        return super().link(source, target)


@dataclass(frozen=True)
class Overrunning(LocalStore):
    """Moves over what is there."""

    def move(self, name, target):
        os.makedirs(os.path.dirname(self.path(target)), exist_ok=True)
        os.replace(self.path(name), self.path(target))
        return True


@dataclass(frozen=True)
class Doubling(LocalStore):
    """A move leaves the old name."""

    def move(self, name, target):
        self.link(name, target)
        return True


@dataclass(frozen=True)
class Timeless(LocalStore):
    """Knows a blob by its size."""

    def stamp(self, name):
        return (self.size(name),) if self.exists(name) else None


@dataclass(frozen=True)
class Everywhere(LocalStore):
    """Takes every path for one of its own."""

    def name_of(self, path):
        return path.removeprefix(self.root).lstrip("/")


@dataclass(frozen=True)
class Retaining(LocalStore):
    """Retires nothing."""

    def retire(self, name):
        return name


@dataclass(frozen=True)
class Nameless(LocalStore):
    """Another error for what is not there."""

    def size(self, name):
        try:
            return super().size(name)
        except FileNotFoundError as error:
            raise KeyError(name) from error


@dataclass(frozen=True)
class Racing(LocalStore):
    """Writes all under one temporary name."""

    def put(self, name, chunks, **how):
        with open(f"{self.root}/../one-temporary", "wb") as file:
            file.writelines(chunks)
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        size = os.path.getsize(f"{self.root}/../one-temporary")
        os.link(f"{self.root}/../one-temporary", f"{self.path(name)}.new")
        os.replace(f"{self.path(name)}.new", self.path(name))
        return size


@dataclass(frozen=True)
class Inventing(LocalStore):
    """Lists what was never put."""

    def blobs(self, depth=0, odd=None):
        return [*super().blobs(depth, odd), Blob("zz", 1)]


# Each with the promise that it breaks, by the test of it.
MUTANTS = {
    Partial: "test_nothing_is_seen_of_a_put_before_its_end",
    Swallowing: "test_a_put_that_fails_leaves_the_old_blob",
    Gateless: "test_a_gate_that_is_shut",
    Keeping: "test_large_blobs_are_exact",
    Littering: "test_a_put_that_fails_leaves_nothing",
    Behind: "test_what_others_put_later_is_seen",
    Shallow: "test_depth",
    Unsorted: "test_depth",
    Untruthful: "test_what_was_put_is_there",
    Telling: "test_hidden_folders_are_listed_only_by_name",
    Sweeping: "test_remove",
    Strict: "test_remove",
    Short: "test_a_large_blob_is_read_into_memory",
    Shifted: "test_any_range_is_exact",
    Sharing: "test_a_link_has_the_same_bytes_and_its_own_life",
    Half: "test_a_link_to_nothing",
    Overrunning: "test_a_move_never_replaces",
    Doubling: "test_a_move_is_whole_or_not_at_all",
    Timeless: "test_a_stamp_tells_of_another_writing",
    Everywhere: "test_paths_and_names",
    Retaining: "test_a_retired_blob_is_gone",
    Nameless: "test_what_is_not_there",
    Racing: "test_many_puts_at_once",
    Inventing: "test_an_empty_store_lists_nothing",
}


def _examined(kind):
    class Examined(StoreSuite):
        def make_store(self):
            os.makedirs("rooms", exist_ok=True)
            return kind(os.path.abspath(f"rooms/{secrets.token_hex(4)}"))

        def reopen(self, store):
            return kind(store.root)

    return type(f"Test{kind.__name__}", (Examined,), {})


for _kind in (LocalStore, *MUTANTS):
    globals()[f"Test{_kind.__name__}"] = _examined(_kind)
