"""Where bytes live. Knows nothing of checkpoints: names, bytes, and what "durable" means here."""

from holdfast.storage.contract import Blob, Store
from holdfast.storage.locate import join_path, open_store, same_place, split_path
from holdfast.storage.paths import is_local, plain_path, real_path
from holdfast.storage.regular import open_regular

__all__ = [
    "Blob",
    "Store",
    "is_local",
    "join_path",
    "open_regular",
    "open_store",
    "plain_path",
    "real_path",
    "same_place",
    "split_path",
]
