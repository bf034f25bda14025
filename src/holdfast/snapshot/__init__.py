"""How state becomes bytes of this host: torch lives here."""

from holdfast.snapshot.capture import Snapshot, capture
from holdfast.snapshot.rng import restore_rng, rng_state

__all__ = ["Snapshot", "capture", "restore_rng", "rng_state"]
