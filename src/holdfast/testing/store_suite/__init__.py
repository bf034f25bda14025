"""The exam of a store: what ``holdfast.storage.Store`` promises, as tests. See ``docs/stores.md``.

>>> class TestMine(StoreSuite):
...     def make_store(self):
...         return MyStore(...)
"""

from holdfast.testing.store_suite.bundles import BundleSuite
from holdfast.testing.store_suite.gates import Gates
from holdfast.testing.store_suite.looks import Looks
from holdfast.testing.store_suite.reads import Reads
from holdfast.testing.store_suite.removals import Removals
from holdfast.testing.store_suite.second_names import SecondNames
from holdfast.testing.store_suite.writes import Writes

__all__ = ["BundleSuite", "StoreSuite"]


class StoreSuite(Writes, Gates, Reads, Looks, SecondNames, Removals):
    """The exam of a store of single files. Subclass it in a test module, give ``make_store``, and run pytest.

    Each test is one promise. A store that has bundles, too, for sharded checkpoints, passes ``BundleSuite``.
    """
