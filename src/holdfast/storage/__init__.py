"""Where bytes live. Knows nothing of checkpoints: names, bytes, and what "durable" means here.

What only few need, and slow to import, is asked of its own module: ``abilities``, ``holders``, ``partial``.
"""

from holdfast.storage.contract import HIDDEN, NO_BLOB, SEAL, Blob, Draft, Free, Store
from holdfast.storage.doubt import is_in_doubt
from holdfast.storage.hurry import end_waiting, end_waiting_by, wait_again
from holdfast.storage.locate import join_path, open_store, same_place, split_path
from holdfast.storage.locks import RUN_LOCK, is_locked
from holdfast.storage.options import StorageOptions, use_options
from holdfast.storage.owning import Owner, give_up_all, is_own_place, own_place
from holdfast.storage.paths import is_local, plain_path, real_path
from holdfast.storage.regular import open_regular
from holdfast.storage.run_lock import Ownership, is_owned_here, own_directory
from holdfast.storage.schemes import register_store

__all__ = [
    "HIDDEN",
    "NO_BLOB",
    "RUN_LOCK",
    "SEAL",
    "Blob",
    "Draft",
    "Free",
    "Owner",
    "Ownership",
    "StorageOptions",
    "Store",
    "end_waiting",
    "end_waiting_by",
    "give_up_all",
    "is_in_doubt",
    "is_local",
    "is_locked",
    "is_own_place",
    "is_owned_here",
    "join_path",
    "open_regular",
    "open_store",
    "own_directory",
    "own_place",
    "plain_path",
    "real_path",
    "register_store",
    "same_place",
    "split_path",
    "use_options",
    "wait_again",
]
