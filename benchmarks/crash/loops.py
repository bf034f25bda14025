"""Savers that are part of a training: Lightning's ``ModelCheckpoint``, holdfast's, and ``Checkpointer``."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch

import holdfast
from benchmarks.crash.content import WIDE, content

Tell = Callable[[Any], None]
WORDS: dict[str, dict[str, Any]] = {
    "overwritten": {"save_top_k": 1, "filename": "model", "enable_version_counter": False, "monitor": None},
    "top-k": {"save_top_k": 2, "monitor": "loss"},
    "last": {"save_top_k": -1, "save_last": True, "monitor": "loss"},
}


def load(path: str) -> dict[str, Any]:
    """Load as Lightning's own users do."""
    loaded: dict[str, Any] = torch.load(path, weights_only=False)
    return loaded


def ours(path: str) -> dict[str, Any]:
    """Load as holdfast's users do."""
    loaded: dict[str, Any] = holdfast.load(path)
    return loaded


class Model(torch.nn.Module):
    """One tensor, whose content the step decides."""

    def __init__(self, size: int = WIDE) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(content(0, size))


def checkpointer(tell: Tell, _peer: str, scenario: str, folder: str, steps: int, *, size: int = WIDE) -> None:
    """Train a plain loop with holdfast."""
    torch.set_num_threads(1)
    model = Model(size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    words = WORDS[scenario] | {"every_n_train_steps": 1}
    with holdfast.Checkpointer(folder, model=model, optimizer=optimizer, **words) as ckpt:
        for step in range(1, steps + 1):
            model.weight.data.copy_(content(step, size))
            ckpt.step({"loss": 1.0 / step})
            ckpt.wait()
            for path in {ckpt.best_model_path, ckpt.last_model_path} - {""}:
                tell({"saved": path, "step": step})


def lightning(  # noqa: PLR0913 - as `plain.run`
    tell: Tell, peer: str, scenario: str, folder: str, steps: int, *, size: int = WIDE
) -> None:
    """Train under Lightning, with the callback and the plugin that the peer's name says."""
    from lightning.fabric.plugins.io import TorchCheckpointIO  # noqa: PLC0415 - where it is installed
    from lightning.pytorch import LightningModule, Trainer  # noqa: PLC0415
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint  # noqa: PLC0415
    from lightning.pytorch.plugins.io import AsyncCheckpointIO  # noqa: PLC0415

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Telling(TorchCheckpointIO):
        """Says what has been saved and what is removed, from whichever thread."""

        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            super().save_checkpoint(checkpoint, path, storage_options)
            tell({"saved": os.fspath(path), "step": checkpoint["global_step"]})

    class Watching(Callback):
        """Says what our callback says is committed: its attributes follow the commits, one a step, in order."""

        def on_train_batch_start(self, *_: Any) -> None:
            if is_ours:
                for path in {*callback.best_k_models, callback.best_model_path, callback.last_model_path} - {""}:
                    named = re.search(r"step=(\d+)", path)
                    tell({"saved": path, "step": int(named[1]) if named else callback.stats.committed})

    class Module(LightningModule):
        """One tensor, whose content the step decides."""

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.weight = torch.nn.Parameter(content(0, size))

        def training_step(self, _batch: Any, _index: int) -> None:
            self.optimizers().step()
            self.weight.data.copy_(content(self.global_step, size))
            self.log("loss", torch.tensor(1.0 / self.global_step))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    is_ours = peer.startswith("holdfast")
    if is_ours:
        from holdfast.lightning import ModelCheckpoint as Ours  # noqa: PLC0415

        callback: Any = Ours(folder, every_n_train_steps=1, **WORDS[scenario])
        plugins: list[Any] = []
    else:
        callback = ModelCheckpoint(folder, every_n_train_steps=1, **WORDS[scenario])
        plugins = [AsyncCheckpointIO(Telling()) if "Async" in peer else Telling()]
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_steps=steps, callbacks=[Watching(), callback], plugins=plugins, default_root_dir=folder, **options
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.zeros(steps, 1)))
