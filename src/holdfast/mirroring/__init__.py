"""The second tier: committed checkpoints are carried to another store, behind the training or by hand. No torch.

What arrives there is committed as anywhere: whole or not at all, and checked against its manifest on the way.
"""

from holdfast.mirroring.carrying import COPIED, GONE, LINKED, SKIPPED, Carried, Carrier, OccupiedError
from holdfast.mirroring.mirror import Mirror
from holdfast.mirroring.status import Status

__all__ = ["COPIED", "GONE", "LINKED", "SKIPPED", "Carried", "Carrier", "Mirror", "OccupiedError", "Status"]
