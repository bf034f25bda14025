"""The mean of several checkpoints as a new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast import ConfigurationError, DamagedCheckpointError, FakeClock, SaveError
from holdfast.cli import main
from tests.support.files import content, listing, put, save, small_state
from tests.support.properties import examples
from tests.support.states import dense, same
from tests.tensors.test_statistics import flip


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield made


def models(folder, *states, **facts):
    """Save models, each a step later; return the paths."""
    return [
        save(os.path.join(folder, f"{step}.ckpt"), {"state_dict": state, "global_step": step}, step=step, **facts)
        for step, state in enumerate(states, 1)
    ]


def averaged(folder, paths, **words):
    """Average into ``out.ckpt``; return what torch loads of it."""
    out = os.path.join(folder, "out.ckpt")
    holdfast.average(paths, out, **{"overwrite": True, **words})
    return torch.load(out, weights_only=True)["state_dict"]


def wide(tensor):
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


@examples(60)
@given(tensor=dense(), factors=st.lists(st.sampled_from((0.0, 0.5, 1.0, 2.0, -1.0)), min_size=1, max_size=4))
def test_the_mean_is_that_of_double_precision_rounded_once(folder, tensor, factors):
    """Real and complex tensors of any type and shape have the mean in double precision; others those of the newest."""
    states = [{"x": (wide(tensor) * factor).to(tensor.dtype), "n": torch.tensor(5)} for factor in factors]
    found = averaged(folder, models(folder, *states))
    assert found["n"].item() == 5
    if not (tensor.is_floating_point() or tensor.is_complex()):
        assert same(found["x"], states[-1]["x"])
        return
    mean = torch.zeros_like(wide(tensor))
    for state in states:
        mean.add_(wide(state["x"]), alpha=1 / len(states))
    assert torch.allclose(wide(found["x"]), wide(mean.to(tensor.dtype)), rtol=1e-15, atol=0, equal_nan=True)


@examples(30)
@given(tensor=dense(), count=st.integers(1, 4))
def test_the_mean_of_equal_ones_is_the_same(folder, tensor, count):
    """The average of copies of one checkpoint has its weights, to the last bit of single precision."""
    found = averaged(folder, models(folder, *[{"x": tensor}] * count))
    bits = 1e-15 if tensor.dtype in (torch.float64, torch.complex128) else 0
    assert torch.allclose(wide(found["x"]), wide(tensor), rtol=bits, atol=0, equal_nan=True)


def test_weights_belong_to_the_paths_and_the_decay_to_the_steps(tmp_path):
    """Weights count in the order of the paths, whatever the steps; a moving average goes from the oldest on."""
    one, two, three = models(tmp_path, *({"x": torch.tensor([value])} for value in (1.0, 2.0, 4.0)))
    assert averaged(tmp_path, [three, one], weights=[3, 1])["x"].item() == 3.25
    assert averaged(tmp_path, [three, one, two], ema=0.5)["x"].item() == 0.5 * (0.5 * 1 + 0.5 * 2) + 0.5 * 4
    assert averaged(tmp_path, [one, two, three], weights=[0, 1, 0])["x"].item() == 2.0
    assert holdfast.verify(tmp_path / "out.ckpt").facts.reason == "the weighted average of 1.ckpt, 2.ckpt, 3.ckpt"


def test_what_shares_memory_still_does(tmp_path):
    """Tied weights, overlapping views, interleaved ones and expanded ones are averaged once, and stay as they are."""

    def state(seed):
        base = torch.rand(6, 8, generator=torch.Generator().manual_seed(seed))
        row = torch.rand(1, 3, generator=torch.Generator().manual_seed(seed + 9))
        return {
            "a": base, "tied": base, "turned": base.t(), "even": base[:, ::2], "odd": base[:, 1::2], "rest": base[2:],
            "wide": row.expand(5, 3), "conj": torch.complex(base, base).conj(),
        }  # fmt: skip

    states = [state(seed) for seed in range(3)]
    found = averaged(tmp_path, models(tmp_path, *states))
    for name, tensor in found.items():
        mean = sum(wide(item[name]) for item in states) / 3
        assert torch.allclose(wide(tensor), mean, rtol=1e-6), name
        assert tensor.stride() == states[0][name].stride()
    names = ("a", "tied", "turned", "even", "odd", "rest")
    assert len({found[name].untyped_storage().data_ptr() for name in names}) == 1
    assert found["wide"].untyped_storage().nbytes() == 12


def test_another_type_is_that_of_all_real_tensors(tmp_path):
    """With ``dtype`` the real tensors are of that type, tied as before; complex ones and integers as they were."""
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "a": base,
        "t": base.t(),
        "c": torch.ones(2, dtype=torch.complex64),
        "n": torch.tensor(1),
        "e": torch.empty(0),
    }
    found = averaged(tmp_path, models(tmp_path, state, state), dtype="bfloat16")
    assert [found[name].dtype for name in "atcne"] == [
        torch.bfloat16, torch.bfloat16, torch.complex64, torch.int64, torch.bfloat16,
    ]  # fmt: skip
    assert torch.equal(found["t"].float(), base.t())
    assert found["a"].data_ptr() == found["t"].data_ptr()
    assert found["a"].untyped_storage().nbytes() == 24
    for wrong in ("int8", "bfloat15", torch.int64, "nn", torch.complex64):
        with pytest.raises(ConfigurationError, match="dtype"):
            holdfast.average([tmp_path / "1.ckpt"], tmp_path / "x.ckpt", dtype=wrong)


def test_the_model_is_found_in_files_of_many_forms(tmp_path):
    """A file that is a state dict itself, one with the usual keys, and one with a key that is told; optimizers go."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    own = {"opt": optimizer.state_dict(), "opts": [optimizer.state_dict()], "epoch": 3, "arguments": {"lr": 1}}
    for form, key, keys in (
        (model.state_dict(), None, {"weight", "bias"}),
        ({"model": model.state_dict(), **own}, None, {"model", "epoch", "arguments"}),
        ({"generator": model.state_dict(), **own}, "generator", {"generator", "epoch", "arguments"}),
    ):
        torch.save(form, tmp_path / "x.pt")
        holdfast.average([tmp_path / "x.pt"] * 2, tmp_path / "out.pt", key=key, overwrite=True)
        loaded = torch.load(tmp_path / "out.pt", weights_only=True)
        assert set(loaded) == keys
        weights = loaded[key or "model"] if "epoch" in loaded else loaded
        model.load_state_dict(weights)
        assert holdfast.verify(tmp_path / "out.pt").facts.epoch == (3 if "epoch" in loaded else 0)
    with pytest.raises(ConfigurationError, match="its keys are 'generator'"):
        holdfast.average([tmp_path / "x.pt"], tmp_path / "new.pt")
    assert not (tmp_path / "new.pt").exists()


def test_what_has_no_mean_is_refused_by_name(tmp_path):
    """Other shapes, other names, complex beside real, and weights tied in one alone are errors that name the tensor."""
    weight = torch.ones(2, 2)
    newest = {"a": weight, "b": weight}
    for other, text in (
        ({"a": torch.ones(2, 3), "b": weight}, r"'a' is not alike.*\[2, 2\] and float32 \[2, 3\]"),
        ({"a": weight}, "'b'"),
        ({"a": weight, "b": weight, "c": weight}, "'c'"),
        ({"a": weight.to(torch.complex64), "b": weight}, "'a' is not alike"),
        ({"a": weight, "b": torch.ones(2, 2)}, "'a' and 'b' share their memory otherwise"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            holdfast.average(models(tmp_path, other, newest), tmp_path / "out.ckpt")
    found = averaged(tmp_path, models(tmp_path, newest, {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}))
    assert found["a"].tolist() == found["b"].tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_wrong_arguments_are_named(tmp_path):
    """No paths, weights of another number or sign, a decay out of its range, and both at once are named."""
    paths = models(tmp_path, {"x": torch.ones(1)}, {"x": torch.ones(1)})
    for words, text in (
        ({"weights": [1]}, "one for each of the 2"),
        ({"weights": [1, -1]}, "none below 0"),
        ({"weights": [0, 0]}, "not all 0"),
        ({"weights": [1, float("nan")]}, "finite"),
        ({"ema": 1.0}, "below 1"),
        ({"ema": float("nan")}, "below 1"),
        ({"ema": 0.5, "weights": [1, 1]}, "two ways"),
        ({"key": "model"}, "'model'"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            holdfast.average(paths, tmp_path / "out.ckpt", **words)
    with pytest.raises(ConfigurationError, match="at least one"):
        holdfast.average([], tmp_path / "out.ckpt")
    with pytest.raises(ConfigurationError, match="path of a file"):
        holdfast.average(paths, "memory://x/")
    assert listing(tmp_path) == ["1.ckpt", "2.ckpt"]


def test_nothing_that_is_there_is_harmed(tmp_path):
    """A file that is there is replaced only on request, a source never, by none of its names; a folder stays one."""
    paths = models(tmp_path, {"x": torch.ones(1)}, {"x": torch.zeros(1)})
    put(tmp_path / "there.ckpt", b"precious")
    with pytest.raises(ConfigurationError, match=r"there is a file .*there\.ckpt already"):
        holdfast.average(paths, tmp_path / "there.ckpt")
    assert content(tmp_path / "there.ckpt") == b"precious"
    os.symlink(paths[0], tmp_path / "link.ckpt")
    os.link(paths[0], tmp_path / "hard.ckpt")
    before = content(paths[0])
    for name in ("1.ckpt", "link.ckpt", "hard.ckpt"):
        with pytest.raises(ConfigurationError, match="one of the checkpoints to average"):
            holdfast.average(paths, tmp_path / name, overwrite=True)
    assert content(paths[0]) == before
    (tmp_path / "folder").mkdir()
    with pytest.raises(SaveError, match="folder"):
        holdfast.average(paths, tmp_path / "folder", overwrite=True)
    holdfast.average(paths, tmp_path / "there.ckpt", overwrite=True)
    assert holdfast.load(tmp_path / "there.ckpt")["state_dict"]["x"].item() == 0.5


def test_a_file_that_appears_meanwhile_is_not_written_over(tmp_path):
    """What another process commits under the name after the check is there still; the average is given up."""

    class Meanwhile(FakeClock):
        def now(self):
            put(tmp_path / "out.ckpt", b"of another")
            return datetime(2000, 1, 1, tzinfo=timezone.utc)

    paths = models(tmp_path, {"x": torch.ones(1)})
    with pytest.raises(ConfigurationError, match="already"):
        holdfast.average(paths, tmp_path / "out.ckpt", clock=Meanwhile())
    assert content(tmp_path / "out.ckpt") == b"of another"
    assert listing(tmp_path) == ["1.ckpt", "out.ckpt"]


@pytest.mark.parametrize("stock", [False, True])
def test_a_damaged_source_is_refused_and_nothing_is_written(tmp_path, stock):
    """Damage in any source is refused by its record's name, no file appears, and one that was there is there still."""
    paths = models(tmp_path, small_state()["state_dict"], small_state(1)["state_dict"])
    if stock:
        for path in paths:
            torch.save(holdfast.load(path), path)
    put(tmp_path / "out.ckpt", b"precious")
    for place in (0, 1):
        before = content(paths[place])
        flip(paths[place], "data/1", 3)
        with pytest.raises(DamagedCheckpointError, match="data/1"):
            holdfast.average(paths, tmp_path / "out.ckpt", overwrite=True)
        put(paths[place], before)
    assert content(tmp_path / "out.ckpt") == b"precious"
    assert listing(tmp_path) == ["1.ckpt", "2.ckpt", "out.ckpt"]


def test_from_and_to_urls(tmp_path):
    """Sources and result may lie behind URLs; the result's own URL may not be a source's."""
    local = models(tmp_path, {"x": torch.zeros(70_000)}, {"x": torch.ones(70_000)})
    remote = models("memory://average/", {"x": torch.zeros(70_000)}, {"x": torch.ones(70_000)})
    holdfast.average([local[0], remote[1]], "memory://average/out.ckpt")
    assert holdfast.load("memory://average/out.ckpt")["state_dict"]["x"].unique().tolist() == [0.5]
    for taken in (remote[1], "memory://average/out.ckpt"):
        with pytest.raises(ConfigurationError, match="memory://average"):
            holdfast.average(remote, taken)


def test_how_far_it_has_come_is_told(tmp_path):
    """``advance`` is called with the bytes of each record that is read, and not of those that need not be."""
    paths = models(tmp_path, {"x": torch.zeros(100)}, {"x": torch.ones(100)})
    told = []
    holdfast.average(paths, tmp_path / "out.ckpt", advance=told.append)
    assert sum(told) == 800
    told.clear()
    holdfast.diff(*paths, advance=told.append)
    assert sum(told) == 800
    told.clear()
    holdfast.diff(paths[0], paths[0], advance=told.append)
    assert told == []


def test_averaging_takes_the_memory_of_a_few_tensors(tmp_path):
    """The average of three files of 12 tensors takes a few tensors' memory, not a file's."""
    paths = models(
        tmp_path, *({f"t{n}": torch.full((2_000_000,), value) for n in range(12)} for value in (1.0, 2.0, 6.0))
    )
    small = models(tmp_path / "small", {"x": torch.ones(1000)}, {"x": torch.ones(1000)})
    code = f"""
import resource, torch, holdfast
holdfast.average({small!r}, {str(tmp_path / "small" / "out.ckpt")!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
holdfast.average({paths!r}, {str(tmp_path / "out.ckpt")!r})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 72 << 20  # of 96 MB a file: two tensors of 8, a sum of 16, and what reads and writes
    assert holdfast.tensor(tmp_path / "out.ckpt", "t11").unique().tolist() == [3.0]


def test_the_command_averages(tmp_path, capsys):
    """``average`` says what it made of what; ``--json`` has keys that are promised; it refuses to write over a file."""
    paths = models(tmp_path, {"x": torch.zeros(1), "n": torch.tensor(1)}, {"x": torch.ones(1), "n": torch.tensor(2)})
    out = str(tmp_path / "out.ckpt")
    assert main(["average", *paths, "--out", out]) == 0
    shown = capsys.readouterr().out
    for text in ("0.5     " + paths[0], "tensors averaged: 1", "taken from the newest: n", f"written: {out}"):
        assert text in shown
    assert main(["average", *paths, "--out", out, "--weights", "1,3"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["average", *paths, "--out", out, "--weights", "1,3", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "path": out, "sources": paths, "weights": [0.25, 0.75], "averaged": ["x"], "taken": ["n"], "step": 2,
    }  # fmt: skip
    assert holdfast.tensor(out, "x").item() == 0.75
    assert main(["average", *paths, "--out", out, "--ema", "0.9", "--dtype", "float64", "--force"]) == 0
    assert holdfast.tensor(out, "x").item() == pytest.approx(0.1, rel=1e-12)
    assert main(["average", str(tmp_path / "none.ckpt"), "--out", out, "--force"]) == 3
    for wrong in (["--weights", "1,x"], ["--weights", "1,1", "--ema", "0.5"]):
        with pytest.raises(SystemExit):
            main(["average", *paths, "--out", out, *wrong])
