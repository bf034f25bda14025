"""Files of the plain loop, read by Lightning as they are."""

from __future__ import annotations

import pytest
import torch

from holdfast import Checkpointer
from tests.support.lightning_models import Scripted


@pytest.mark.parametrize("weights_only", [False, True])
def test_load_from_checkpoint_reads_what_a_loop_has_saved(tmp_path, weights_only):
    """A LightningModule that was trained in a plain loop loads by ``load_from_checkpoint``, without holdfast's help."""
    model = Scripted()
    with Checkpointer(tmp_path, model=model, every_n_train_steps=1, save_weights_only=weights_only) as ckpt:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        ckpt.step()
    again = type(model).load_from_checkpoint(ckpt.best_model_path)
    assert [value.tolist() for value in again.state_dict().values()] == [
        value.tolist() for value in model.state_dict().values()
    ]
