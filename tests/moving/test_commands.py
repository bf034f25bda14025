"""``holdfast export`` and ``holdfast import`` as commands."""

from __future__ import annotations

import json

import pytest
import torch

from holdfast.cli import main
from tests.moving.states import lightning_state
from tests.support.files import listing, save


@pytest.fixture
def source(tmp_path):
    return save(tmp_path / "x.ckpt", lightning_state(), step=120, epoch=4, metrics={"val_loss": 0.5})


def test_export_says_what_it_wrote(source, tmp_path, capsys):
    """``export`` prints the files, what is tied and what was left out; ``--json`` has it all by stable keys."""
    assert main(["export", source, str(tmp_path / "out"), "--strip-prefix", "model.", "--max-shard-size", "200"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(str(tmp_path / "out" / "model-00001-of-"))
    assert "tied: head.weight is embedding.weight" in text
    assert "left out (1): loss.weight" in text
    assert main(["export", source, str(tmp_path / "w.pt"), "--to", "torch", "--dtype", "bfloat16", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert set(value) == {"files", "size", "tensors", "tied", "left_out", "overflowed"}
    assert torch.load(tmp_path / "w.pt", weights_only=True)["model.double"].dtype == torch.bfloat16


def test_import_says_what_it_made(source, tmp_path, capsys):
    """``import`` prints where the checkpoint is, and its step, epoch and metrics; ``--json`` its facts."""
    assert main(["export", source, str(tmp_path / "out")]) == 0
    capsys.readouterr()
    made = str(tmp_path / "run" / "y.ckpt")
    assert main(["import", str(tmp_path / "out"), made, "--metric", "f1=0.25", "--metric", "a=b=nan"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "step 120, epoch 4, val_loss=0.5, f1=0.25, a=b=nan"
    assert main(["import", "--json", "--force", "--step", "7", str(tmp_path / "out"), made]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["path"], value["facts"]["step"]) == (made, 7)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["export", "nothing.ckpt", "out"], 3),
        (["export", "{source}", "out", "--dtype", "int4"], 2),
        (["export", "{source}", "out", "--max-shard-size", "none"], 2),
        (["export", "garbage.ckpt", "out"], 1),
        (["import", "nothing.safetensors", "out.ckpt"], 3),
        (["import", "{source}", "out.ckpt", "--metric", "loss"], 2),
        (["import", "{source}", "out.ckpt", "--metric", "loss=low"], 2),
        (["import", "garbage.safetensors", "out.ckpt"], 1),
    ],
)
def test_exit_codes(source, tmp_path, capsys, arguments, code):
    """What is wrong is said in one line on stderr, with the exit code of its kind; nothing is written."""
    for name in ("garbage.ckpt", "garbage.safetensors"):
        (tmp_path / name).write_bytes(b"garbage" * 100)
    before = listing(tmp_path)
    assert main([argument.format(source=source) for argument in arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("holdfast: ")
    assert said.err.count("\n") == 1
    assert listing(tmp_path) == before
