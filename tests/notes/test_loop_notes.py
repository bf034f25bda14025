"""What a loop says of its own checkpoints."""

from __future__ import annotations

import pytest
import torch

import holdfast
from holdfast import Checkpointer, CheckpointNotFoundError, ConfigurationError, FakeClock


def test_a_loop_notes_its_checkpoints(tmp_path):
    """A checkpointer tags, pins, notes and scores a committed checkpoint by its path, with the time of its clock."""
    clock = FakeClock(3.0)
    with Checkpointer(tmp_path, model=torch.nn.Linear(2, 2), every_n_epochs=1, clock=clock) as ckpt:
        ckpt.step()
        ckpt.end_epoch()
        ckpt.wait()
        path = ckpt.best_model_path
        ckpt.tag(path, "paper", "v1")
        ckpt.untag(path, "v1")
        ckpt.pin(path)
        ckpt.note(path, "a text")
        ckpt.add_metrics(path, {"acc": torch.tensor(0.5)})
        with pytest.raises(CheckpointNotFoundError):
            ckpt.pin(tmp_path / "no.ckpt")
        with pytest.raises(ConfigurationError):
            ckpt.tag(path, "a,b")
    (checkpoint,) = holdfast.catalog(tmp_path)
    assert (checkpoint.tags, checkpoint.pinned, checkpoint.late_metrics) == (("paper",), True, {"acc": 0.5})
    assert [(note.text, note.time) for note in checkpoint.notes] == [("a text", "2000-01-01T00:00:03+00:00")]
    with Checkpointer(tmp_path, model=torch.nn.Linear(2, 2), every_n_epochs=1) as ckpt:
        ckpt.resume()
        ckpt.unpin(path)
    assert not holdfast.open(path).pinned
