"""``ModelCheckpoint`` and ``CheckpointIO`` for the package ``pytorch_lightning``: change the import, nothing else.

>>> from holdfast.pytorch_lightning import ModelCheckpoint
>>> ModelCheckpoint(dirpath="runs/digits", monitor="val_loss", save_top_k=3).save_top_k
3
"""

from __future__ import annotations

from holdfast.errors import MissingExtraError
from holdfast.integrations.callback import ModelCheckpointCore
from holdfast.integrations.family import without_logic_of
from holdfast.integrations.lightning_io import CheckpointIOCore

try:
    from lightning_fabric.plugins.io import CheckpointIO as StockCheckpointIO
    from lightning_fabric.plugins.io import TorchCheckpointIO
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
    from pytorch_lightning.callbacks import ModelCheckpoint as StockModelCheckpoint
except ImportError as error:
    raise MissingExtraError("pytorch_lightning", "pytorch-lightning") from error

__all__ = ["CheckpointIO", "ModelCheckpoint"]


class CheckpointIO(CheckpointIOCore, StockCheckpointIO):
    """Durable, verified checkpoint files for ``Trainer(plugins=[CheckpointIO()])``.

    Works with any callback; ``ModelCheckpoint`` of this module installs it by itself. On return from
    ``save_checkpoint`` the file survives a power cut; ``load_checkpoint`` checks every byte first.
    """


@without_logic_of(StockModelCheckpoint)
class ModelCheckpoint(ModelCheckpointCore, StockModelCheckpoint):  # type: ignore[misc]  # none of its members is used
    """Save the model periodically by monitoring a quantity.

    A drop-in for Lightning's class of the same name: the same words, attributes and files, with
    commits that survive a kill, a ranking read from the directory, and files that are verified.

    Args:
        dirpath: directory or fsspec URL; by default the logger's directory, or the Trainer's
            ``default_root_dir``, with ``checkpoints`` below.
        filename: template of the names, such as ``"{epoch}-{val_loss:.2f}"``; by default
            ``"{epoch}-{step}"``.
        monitor: the logged metric to rank by; None keeps the newest.
        verbose: report each decision.
        save_last: keep ``last.ckpt`` at the state of the last epoch (and of each step or time
            save), whatever the ranking; ``"link"`` means the same.
        save_top_k: how many of the best to keep; -1 all, 0 none.
        save_weights_only: leave out the state of the optimizers.
        mode: ``"min"`` or ``"max"``: which scores are better. NaN is worst in both.
        auto_insert_metric_name: write ``val_loss=0.12`` rather than ``0.12`` into names.
        every_n_train_steps: save whenever this many optimizer steps are finished.
        train_time_interval: save whenever this much time has gone by.
        every_n_epochs: save after every so many epochs. Of these three at most one.
        save_on_train_epoch_end: epoch saves happen at the end of the training epoch (True) or of
            the validation (False).
        every_n_val_epochs: deprecated name of ``every_n_epochs``.
        save_on_exception: save the state when training is interrupted, under a name of its own.
        enable_version_counter: append ``-v1``, ``-v2`` … instead of writing over other files.
        on_save_error: ``"raise"`` stops training when a save fails; ``"warn"`` goes on.
        clock: where the time comes from; for tests.

    Attributes:
        best_model_path: the best committed checkpoint, or "".
        best_model_score: its score, a 0-dimensional tensor, or None.
        best_k_models: the scores of the kept checkpoints by path.
        kth_best_model_path: the worst of them, once there are ``save_top_k``, or "".
        kth_value: its score.
        last_model_path: the file that ``save_last`` wrote, or "".
        current_score: the score of the newest ranked checkpoint, or None.

    Raises:
        MisconfigurationException: for a word that cannot be meant, when the callback is built.
        SaveError: from the hooks, when a checkpoint could not be committed.

    """

    _misconfiguration = MisconfigurationException
    _new_checkpoint_io = CheckpointIO
    _default_checkpoint_io = TorchCheckpointIO

    def _rank_zero_warn(self, message: str) -> None:
        rank_zero_warn(message)

    def _rank_zero_info(self, message: str) -> None:
        rank_zero_info(message)
