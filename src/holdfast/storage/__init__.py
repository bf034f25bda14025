"""Where bytes live. Knows nothing of checkpoints: names, bytes, and what "durable" means here."""

from holdfast.storage.contract import Blob, Store
from holdfast.storage.locate import is_local, join_path, open_store, split_path

__all__ = ["Blob", "Store", "is_local", "join_path", "open_store", "split_path"]
