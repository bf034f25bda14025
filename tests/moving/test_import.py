"""Imports: checkpoints with a manifest, of what others wrote; and the way there and back."""

from __future__ import annotations

import json
import math
import os

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast.errors import (
    CheckpointNotFoundError,
    ConfigurationError,
    DamagedCheckpointError,
    LoadError,
    UnsafeCheckpointError,
)
from holdfast.format import safetensors as form
from tests.moving.states import lightning_state, same, weights
from tests.support.files import content, listing, put, save


@pytest.mark.parametrize("limit", [100, "5GB"])
def test_there_and_back_and_there_again(tmp_path, limit):
    """Export, import, export: the second export is the first, byte by byte, and ties, step and metrics came along."""
    source = save(
        tmp_path / "x.ckpt", lightning_state(), step=120, epoch=4, metrics={"val_loss": math.inf, "f1": 0.1}, run="ab"
    )
    first = holdfast.export(source, tmp_path / "one", max_shard_size=limit)
    made = holdfast.import_checkpoint(tmp_path / "one", tmp_path / "y.ckpt")
    second = holdfast.export(made.path, tmp_path / "two", max_shard_size=limit)
    assert [content(path) for path in first.files] == [content(path) for path in second.files]
    state = holdfast.load(made.path)
    assert (state["global_step"], state["epoch"]) == (120, 4)
    assert all(same(state["state_dict"][name], tensor) for name, tensor in weights().items())
    tied = [state["state_dict"][f"model.{name}.weight"].data_ptr() for name in ("head", "embedding")]
    assert tied[0] == tied[1]
    facts = holdfast.verify(made.path).facts
    assert dict(facts.metrics) == {"val_loss": math.inf, "f1": 0.1}
    assert (facts.step, facts.epoch, facts.run, facts.resumed_from.run) == (120, 4, "imported", "ab")


def test_a_stock_lightning_file(tmp_path):
    """Step, epoch, metric and mode come from Lightning's own words; the state stays as it is, and can be resumed."""
    torch.save(lightning_state(), tmp_path / "epoch=4.ckpt")
    made = holdfast.import_checkpoint(tmp_path / "epoch=4.ckpt", tmp_path / "run" / "epoch=4.ckpt")
    facts = made.manifest.facts
    assert (facts.step, facts.epoch, facts.kind, facts.weights_only) == (120, 4, "lightning", False)
    assert dict(facts.metrics) == {"val_acc": 0.25}
    assert dict(facts.policy) == {"monitor": "val_acc", "mode": "max", "save_top_k": -1}
    assert holdfast.newest(tmp_path / "run") == made.path
    state = holdfast.load(made.path)
    assert list(state) == list(lightning_state())
    assert all(same(state["state_dict"][name], tensor) for name, tensor in weights().items())


def test_the_score_is_the_files_own(tmp_path):
    """Where the callback lists the file among its best, the score is the one that stands there."""
    torch.save(lightning_state(), tmp_path / "best.ckpt")
    made = holdfast.import_checkpoint(tmp_path / "best.ckpt", tmp_path / "out.ckpt")
    assert dict(made.manifest.facts.metrics) == {"val_acc": 0.75}


def test_what_is_said_counts(tmp_path):
    """Step, epoch, metrics, run and ranking that are given stand over what the file says."""
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "m.safetensors")
    made = holdfast.import_checkpoint(
        tmp_path / "m.safetensors",
        tmp_path,
        metrics={"loss": 1},
        step=7,
        epoch=2,
        run="mine",
        monitor="loss",
        mode="max",
        add_prefix="model.",
    )
    assert made.path == str(tmp_path / "m.ckpt")
    facts = made.manifest.facts
    assert (facts.step, facts.epoch, facts.run, dict(facts.metrics)) == (7, 2, "mine", {"loss": 1.0})
    assert dict(facts.names) == {"ranked": "m.ckpt"}
    assert (facts.policy["monitor"], facts.policy["mode"]) == ("loss", "max")
    state = holdfast.load(made.path)
    assert (state["global_step"], state["epoch"], list(state["state_dict"])) == (7, 2, ["model.w"])


def test_a_prefix_for_a_torch_file(tmp_path):
    """``add_prefix`` names the weights anew, wherever they are in the state, and nothing else."""
    torch.save({"a": torch.ones(1)}, tmp_path / "bare.pt")
    torch.save({"model": {"a": torch.ones(1)}, "step": 3}, tmp_path / "deep.pt")
    holdfast.import_checkpoint(tmp_path / "bare.pt", tmp_path / "bare.ckpt", add_prefix="m.")
    holdfast.import_checkpoint(tmp_path / "deep.pt", tmp_path / "deep.ckpt", add_prefix="m.")
    assert list(holdfast.load(tmp_path / "bare.ckpt")) == ["m.a"]
    assert {
        key: list(value) if key == "model" else value for key, value in holdfast.load(tmp_path / "deep.ckpt").items()
    } == {
        "model": ["m.a"],
        "step": 3,
    }
    assert holdfast.verify(tmp_path / "deep.ckpt").facts.step == 3


def test_lightning_reads_what_was_imported(tmp_path):
    """``load_from_checkpoint`` takes a checkpoint that was made of safetensors, with the prefix of the module."""
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(3, 2)

    weights = {"weight": torch.rand(2, 3), "bias": torch.rand(2)}
    safetensors.torch.save_file(weights, tmp_path / "m.safetensors")
    made = holdfast.import_checkpoint(tmp_path / "m.safetensors", tmp_path, add_prefix="model.")
    module = Module.load_from_checkpoint(made.path, map_location="cpu")
    assert all(same(module.state_dict()[f"model.{name}"], tensor) for name, tensor in weights.items())


def test_imports_are_ranked_together(tmp_path, capsys):
    """Imported files of one directory are one run, ranked by the metric that was named."""
    from holdfast.cli import main

    for name, score in (("a", 0.5), ("b", 0.25)):
        safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / f"{name}.safetensors")
        code = main(
            [
                "import",
                str(tmp_path / f"{name}.safetensors"),
                str(tmp_path),
                "--metric",
                f"loss={score}",
                "--monitor",
                "loss",
            ]
        )
        assert code == 0
    capsys.readouterr()
    main(["ls", "--json", str(tmp_path)])
    kept = {look["name"]: look["kept"] for look in json.loads(capsys.readouterr().out)}
    assert "the best by loss" in kept["b.ckpt"]
    assert "the best by loss" not in kept["a.ckpt"]


class Stranger:
    """A class that the safe loader does not know."""


def test_code_is_not_run(tmp_path):
    """A pickle that needs more than tensors and plain values is refused, unless the caller asks in so many words."""
    torch.save({"state_dict": {"w": torch.ones(1)}, "other": Stranger()}, tmp_path / "x.pt")
    with pytest.raises(UnsafeCheckpointError, match="Stranger"):
        holdfast.import_checkpoint(tmp_path / "x.pt", tmp_path / "y.ckpt")
    assert listing(tmp_path) == ["x.pt"]
    holdfast.import_checkpoint(tmp_path / "x.pt", tmp_path / "y.ckpt", allow_unsafe=True)
    assert isinstance(holdfast.load(tmp_path / "y.ckpt", allow_unsafe=True)["other"], Stranger)


def test_nothing_is_written_over(tmp_path):
    """A file that is there stays, unless ``force``."""
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "m.safetensors")
    put(tmp_path / "m.ckpt", b"precious")
    with pytest.raises(ConfigurationError, match=r"is there already.*--force"):
        holdfast.import_checkpoint(tmp_path / "m.safetensors", tmp_path / "m.ckpt")
    assert content(tmp_path / "m.ckpt") == b"precious"
    holdfast.import_checkpoint(tmp_path / "m.safetensors", tmp_path / "m.ckpt", force=True)
    assert holdfast.verify(tmp_path / "m.ckpt") is not None


def test_which_file_is_meant(tmp_path):
    """A directory without safetensors, or with several that no index joins, is told as such."""
    with pytest.raises(CheckpointNotFoundError, match=r"no \.safetensors file"):
        holdfast.import_checkpoint(tmp_path, tmp_path / "x.ckpt")
    for name in "ab":
        safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(LoadError, match=r"has 2 of them and no index: name one: a\.safetensors"):
        holdfast.import_checkpoint(tmp_path, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointNotFoundError):
        holdfast.import_checkpoint(tmp_path / "nothing.safetensors", tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"weight_map": 3}',
        b'{"weight_map": {}}',
        b'{"weight_map": {"w": 3}}',
        b'{"weight_map": {"w": "../secret.safetensors"}}',
        b'{"weight_map": {"w": "/etc/passwd"}}',
        b'{"weight_map": {"v": "a.safetensors"}}',
        b'{"weight_map": {"w": "b.safetensors"}}',
        b"[" * 100000,
    ],
)
def test_an_index_that_is_none(tmp_path, text):
    """An index that cannot be, lies, or leads elsewhere is refused without a traceback, and nothing is written."""
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    put(tmp_path / "model.safetensors.index.json", text)
    with pytest.raises(LoadError):
        holdfast.import_checkpoint(tmp_path, tmp_path / "x.ckpt")
    assert not os.path.exists(tmp_path / "x.ckpt")


GOOD = {
    "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "v": {"dtype": "I8", "shape": [], "data_offsets": [8, 9]},
}
ODD = st.sampled_from(
    [-1, 0, 1, 7, 9, 2**40, 2**63, 2**70, True, 1.5, None, "F32", "F99", [], [2], [0, 8], {}, "x" * 9]
)


@st.composite
def headers(draw):
    """A header with some of its values replaced."""
    value = json.loads(json.dumps(GOOD))
    for _ in range(draw(st.integers(0, 2))):
        name, key = draw(st.sampled_from(["w", "v"])), draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))
        if isinstance(value[name], dict):
            value[name][key] = draw(ODD)
    if draw(st.booleans()):
        value[draw(st.sampled_from(["__metadata__", "u"]))] = draw(st.one_of(ODD, st.just({"a": "b"})))
    text = json.dumps(value).encode()
    cut = draw(st.integers(-3, 3))
    return text[:cut] if cut < 0 else text + b" " * cut


@given(headers(), st.integers(-1, 1))
def test_a_header_is_read_only_if_the_library_reads_it(text, extra):
    """What the safetensors library refuses, we refuse; what we read, we read as it does. Never another error."""
    data = len(text).to_bytes(8, "little") + text + bytes(9 + extra)
    try:
        header = form.decode(data[8 : 8 + len(text)], len(data))
    except form.HeaderError:
        return
    theirs = safetensors.torch.load(data)
    assert {entry.name: entry.shape for entry in header.entries} == {k: tuple(v.shape) for k, v in theirs.items()}


@pytest.mark.parametrize("at", [0, 4, 9, 60, -1])
def test_a_file_that_is_cut_or_changed(tmp_path, at):
    """A safetensors file whose frame is cut off or changed is damaged, and says so; nothing is written."""
    safetensors.torch.save_file({"w": torch.ones(200)}, tmp_path / "m.safetensors")
    data = content(tmp_path / "m.safetensors")
    put(tmp_path / "m.safetensors", data[:at])
    with pytest.raises(DamagedCheckpointError):
        holdfast.import_checkpoint(tmp_path / "m.safetensors", tmp_path / "x.ckpt")
    assert listing(tmp_path) == ["m.safetensors"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"step": -1}, "`step`"),
        ({"epoch": 1.5}, "`epoch`"),
        ({"mode": "most"}, "`mode`"),
        ({"metrics": {"loss": "low"}}, "`metrics`"),
        ({"metrics": 3}, "`metrics`"),
    ],
)
def test_wrong_words(tmp_path, words, message):
    """A wrong argument is an error that names the value."""
    with pytest.raises(ConfigurationError, match=message):
        holdfast.import_checkpoint(tmp_path / "x.safetensors", tmp_path / "x.ckpt", **words)
