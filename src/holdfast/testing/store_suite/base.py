"""What an examiner says of the store that is examined."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.storage import Store, open_store

_DEEP = 99  # folders down: everything


class Exam:
    """How a store is made, made again, and looked through.

    Give ``make_store`` in a subclass; the rest where the store needs it. Or give the fixture ``store`` itself.
    """

    def make_store(self) -> Store:
        """Return an empty store, of another root at each call; the root need not exist yet."""
        msg = f"{type(self).__name__} does not say how a store is made: define make_store(self)"
        raise NotImplementedError(msg)

    def reopen(self, store: Store) -> Store:
        """Return a second store of the same root, as another process would make it."""
        return open_store(store.root)

    def everything(self, store: Store) -> list[str]:
        """Return the names of all that lies under the root, sorted: temporaries too, and each file of a bundle.

        This asks the store itself. Better is one that looks past it, as in the folder or the bucket: a store that
        leaves rubbish behind and does not list it is found out only so.
        """
        blobs = store.blobs(_DEEP)
        inside = [f"{blob.name}/{file.name}" for blob in blobs if blob.bundle for file in store.files(blob.name)]
        return sorted({*(blob.name for blob in blobs if not blob.bundle), *inside, *store.leftovers(_DEEP)})

    @pytest.fixture
    def store(self) -> Store:
        """The store of one test."""
        return self.make_store()

    @pytest.fixture
    def again(self, store: Store) -> Callable[[], Store]:
        """What opens it a second time."""
        return lambda: self.reopen(store)
