"""``ModelCheckpoint`` and ``CheckpointIO`` for the package ``pytorch_lightning``: change the import, nothing else.

>>> from holdfast.pytorch_lightning import ModelCheckpoint
>>> ModelCheckpoint(dirpath="runs/digits", monitor="val_loss", save_top_k=3).save_top_k
3
"""

from __future__ import annotations

from holdfast.errors import ConfigurationError, MissingExtraError
from holdfast.integrations.callback import ModelCheckpointCore
from holdfast.integrations.family import described_by, without_logic_of
from holdfast.integrations.lightning_io import CheckpointIOCore

try:
    from lightning_fabric.plugins.io import CheckpointIO as StockCheckpointIO
    from lightning_fabric.plugins.io import TorchCheckpointIO
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
    from pytorch_lightning.callbacks import ModelCheckpoint as StockModelCheckpoint
except ImportError as error:
    raise MissingExtraError("pytorch_lightning", "pytorch-lightning") from error

__all__ = ["CheckpointIO", "MisconfigurationError", "ModelCheckpoint"]


class MisconfigurationError(ConfigurationError, MisconfigurationException):
    """A wrong argument, for those who catch Lightning's class and for those who catch ours."""


class CheckpointIO(CheckpointIOCore, StockCheckpointIO):
    """Durable, verified checkpoint files for ``Trainer(plugins=[CheckpointIO()])``.

    Works with any callback; ``ModelCheckpoint`` of this module installs it by itself. On return from
    ``save_checkpoint`` the file survives a power cut; ``load_checkpoint`` checks every byte first.
    """


@without_logic_of(StockModelCheckpoint)
@described_by(ModelCheckpointCore)
class ModelCheckpoint(ModelCheckpointCore, StockModelCheckpoint):  # type: ignore[misc]  # none of its members is used
    """Save the model periodically by monitoring a quantity; described in full by ``help(ModelCheckpoint)``."""

    _misconfiguration = MisconfigurationError
    _new_checkpoint_io = CheckpointIO
    _default_checkpoint_io = TorchCheckpointIO

    def _rank_zero_warn(self, message: str) -> None:
        rank_zero_warn(message)

    def _rank_zero_info(self, message: str) -> None:
        rank_zero_info(message)
