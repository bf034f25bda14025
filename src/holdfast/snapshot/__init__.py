"""How state becomes bytes of this host: torch lives here."""

from holdfast.snapshot.capture import Snapshot, capture, memory_of
from holdfast.snapshot.likeness import fingerprint, on_host
from holdfast.snapshot.naming import named_tensors
from holdfast.snapshot.rng import restore_rng, rng_state
from holdfast.snapshot.sharded import has_shards, is_sharded
from holdfast.snapshot.stepped import stepped, stepped_tensors, weigh

__all__ = [
    "Snapshot",
    "capture",
    "fingerprint",
    "has_shards",
    "is_sharded",
    "memory_of",
    "named_tensors",
    "on_host",
    "restore_rng",
    "rng_state",
    "stepped",
    "stepped_tensors",
    "weigh",
]
