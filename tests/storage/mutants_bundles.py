"""Stores with one bug each in their bundles."""

from __future__ import annotations

import os
import shutil

from holdfast.storage import SEAL, Blob
from holdfast.storage.local import LocalStore


class ShowsDrafts(LocalStore):
    """Lists a bundle that is being written."""

    def blobs(self, depth=0, odd=None):
        drafts = [name for name in self.leftovers(depth) if os.path.isdir(self.path(name))]
        return super().blobs(depth, odd) + [Blob(name, 0, bundle=True) for name in drafts]


class ShowsTheFilesOfABundle(LocalStore):
    """Lists what is in a bundle, too."""

    def blobs(self, depth=0, odd=None):
        found = super().blobs(depth, odd)
        inside = [
            Blob(f"{blob.name}/{file.name}", file.size)
            for blob in found
            if blob.bundle
            for file in self.files(blob.name)
        ]
        return sorted(found + inside, key=lambda blob: blob.name)


class RemovesOnlyTheSeal(LocalStore):
    """Leaves the files of a bundle where they are."""

    def remove(self, name):
        if os.path.exists(self.path(f"{name}/{SEAL}")):
            os.unlink(self.path(f"{name}/{SEAL}"))
        else:
            super().remove(name)


class TakesTheSealForAll(LocalStore):
    """Says of a bundle the bytes of its seal."""

    def size(self, name):
        return super().size(f"{name}/{SEAL}" if super().exists(f"{name}/{SEAL}") else name)


class LosesTheMark(LocalStore):
    """A second name of a bundle lacks a file."""

    def link(self, source, target):
        how = super().link(source, target)
        for file in self.files(target)[:1]:
            os.unlink(self.path(f"{target}/{file.name}"))
        return how


class _OtherDraft:
    """A draft that does one thing else."""

    def __init__(self, draft, **other):
        self._draft, self.folder, self.mark = draft, draft.folder, draft.mark
        self.add, self.settle, self.drop = draft.add, draft.settle, draft.drop
        for name, does in other.items():
            setattr(self, name, does)


class ForgetsTheGateOfADraft(LocalStore):
    """Settles without asking."""

    def draft(self, name, mark=""):
        draft = super().draft(name, mark)
        return _OtherDraft(draft, settle=lambda sizes=None, gate=None: draft.settle(sizes))


class RemovesTheOldFirst(LocalStore):
    """Makes room before it is known that the new one may come."""

    def draft(self, name, mark=""):
        draft = super().draft(name, mark)

        def settle(sizes=None, gate=None):
            self.remove(name)
            draft.settle(sizes, gate)

        return _OtherDraft(draft, settle=settle)


class DropsWhatIsSettled(LocalStore):
    """Removes at a drop whatever has the name."""

    def draft(self, name, mark=""):
        return _OtherDraft(super().draft(name, mark), drop=lambda: self.remove(name))


class DropsNothing(LocalStore):
    """Leaves a draft that was dropped."""

    def draft(self, name, mark=""):
        return _OtherDraft(super().draft(name, mark), drop=lambda: None)


class ReplacesOthersFolders(LocalStore):
    """Takes the place of a folder, whatever is in it."""

    def draft(self, name, mark=""):
        shutil.rmtree(self.path(name), ignore_errors=True)
        return super().draft(name, mark)


class SealsByItself(LocalStore):
    """Settles what has no seal."""

    def draft(self, name, mark=""):
        draft = super().draft(name, mark)

        def settle(sizes=None, gate=None):
            if not self.exists(f"{draft.folder}/{SEAL}"):
                draft.add(SEAL, b"{}")
            draft.settle(sizes, gate)

        return _OtherDraft(draft, settle=settle)


MUTANTS = [kind for kind in list(globals().values()) if isinstance(kind, type) and kind.__base__ is LocalStore]
