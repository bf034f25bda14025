"""What two checkpoints differ in."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast import DamagedCheckpointError
from holdfast.cli import main
from holdfast.records import Lineage
from holdfast.snapshot import named_tensors
from tests.support.files import save, small_state
from tests.support.properties import examples
from tests.support.states import dense, plain, states
from tests.tensors.test_statistics import flip


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield made


def pair(folder, one, other, **facts):
    """Save two states; return their paths."""
    return save(os.path.join(folder, "a.ckpt"), one, **facts), save(os.path.join(folder, "b.ckpt"), other, **facts)


@pytest.mark.parametrize("stock", [False, True])
@examples(40)
@given(state=states(leaves=st.one_of(dense(), plain())))
def test_a_state_does_not_differ_from_its_copy(folder, stock, state):
    """Any state, NaNs and all, is the same as its deep copy, whoever wrote it."""
    a, b = pair(folder, {"state": state}, {"state": copy.deepcopy(state)})
    if stock:
        torch.save({"state": state}, b)
    found = holdfast.diff(a, b)
    assert found.same
    assert found.equal == len(dict(named_tensors({"state": state})))


@examples(40)
@given(state=states(leaves=st.one_of(dense(), plain())), data=st.data())
def test_one_change_is_the_only_one_that_is_told(folder, state, data):
    """Of any state in which one tensor is another, that one is told, and no other that does not share its memory."""
    wanted = torch.tensor([1.0, 2.0])
    a, b = pair(
        folder, {"state": state, "x": wanted}, {"state": state, "x": data.draw(st.sampled_from(OTHERS))(wanted)}
    )
    found = holdfast.diff(a, b)
    assert not found.same
    told = [item.name for item in (*found.changed, *found.reshaped, *found.added, *found.removed)]
    assert told == ["x"]
    assert found.values == ()


OTHERS = (
    lambda x: x + 1,
    lambda x: x.half(),
    lambda x: x[:1].clone(),
    lambda x: torch.full_like(x, math.nan),
    lambda x: -x,
    lambda x: x.to(torch.complex64) * 1j,
)


def test_how_far_tensors_are_apart(tmp_path):
    """The relative change is that of the norms; infinite from zeros; NaN first; equal values of another type are 0."""
    one = {
        "half": torch.ones(100),
        "zero": torch.zeros(3),
        "nan": torch.ones(2),
        "type": torch.ones(2),
        "same": torch.tensor([math.inf, math.nan]),
        "masked": torch.tensor([-math.inf, 3.0]),
        "count": torch.tensor([3, 4]),
        "flag": torch.tensor([True, True]),
        "complex": torch.tensor([3 + 4j]),
    }
    other = {
        "half": torch.full((100,), 1.5),
        "zero": torch.ones(3),
        "nan": torch.tensor([1.0, math.nan]),
        "type": torch.ones(2, dtype=torch.bfloat16),
        "same": torch.tensor([math.inf, math.nan]),
        "masked": torch.tensor([-math.inf, 4.5]),
        "count": torch.tensor([3, 9]),
        "flag": torch.tensor([True, False]),
        "complex": torch.tensor([3 + 3j]),
    }
    found = holdfast.diff(*pair(tmp_path, one, other))
    told = {item.name: (item.relative, item.largest) for item in found.changed}
    assert list(told)[:2] == ["nan", "zero"]
    assert math.isnan(told["nan"][0])
    assert told["zero"] == (math.inf, 1.0)
    assert told["half"] == (0.5, 0.5)
    assert told["type"] == (0.0, 0.0)
    assert told["masked"] == (0.5, 1.5)
    assert told["count"] == (1.0, 5.0)
    assert told["flag"] == (pytest.approx(math.sqrt(0.5)), 1.0)
    assert told["complex"] == (pytest.approx(0.2), pytest.approx(1.0))
    assert found.equal == 1


def test_large_and_strided_tensors_are_compared_whole(tmp_path):
    """One changed element among millions is found, in a tensor or a view of it, whatever the strides of the other."""
    base = torch.zeros(1000, 3000)
    other = torch.empty(3000, 1000).t().copy_(base)
    other[999, 2999] = 5.0
    found = holdfast.diff(*pair(tmp_path, {"x": base, "view": base[::3, 1:]}, {"x": other, "view": other[::3, 1:]}))
    assert [(item.name, item.largest) for item in found.changed] == [("view", 5.0), ("x", 5.0)]


def test_values_are_named_by_their_paths(tmp_path):
    """Learning rates, tuples, lists, namespaces and hyperparameters are told by name; long lists as one value."""

    def state(rate, size, seed):
        space = argparse.Namespace(size=size, path="x")
        return {
            "optimizer_states": [{"param_groups": [{"lr": rate, "betas": (0.9, rate), "params": list(range(40))}]}],
            "hyper_parameters": {"net": space, "kind": "mlp"},
            "rng": [seed, *range(100)],
            "scores": OrderedDict(a=math.nan),
        }

    a, b = pair(tmp_path, state(0.1, 3, 1), state(0.2, 4, 2) | {"more": "yes\x1b"})
    found = holdfast.diff(a, b)
    assert {item.name: (item.what, item.before, item.after) for item in found.values} == {
        "optimizer_states.0.param_groups.0.lr": ("changed", 0.1, 0.2),
        "optimizer_states.0.param_groups.0.betas.1": ("changed", 0.1, 0.2),
        "rng": ("changed", "[1, 0, 1, ... 101 items]", "[2, 0, 1, ... 101 items]"),
        "more": ("added", None, "yes\\x1b"),
    }
    assert [item.name for item in found.hyperparameters] == ["hyper_parameters.net.size"]
    back = holdfast.diff(b, a)
    assert [(item.name, item.what) for item in back.values if item.what != "changed"] == [("more", "removed")]


def test_metrics_versions_and_lineage(tmp_path):
    """Metrics and versions that differ are told, and how the two are related."""

    def two(one, other):
        a = save(tmp_path / "a.ckpt", **{"run": "r1", "step": 5} | one)
        b = save(tmp_path / "b.ckpt", **{"run": "r1", "step": 5} | other)
        return holdfast.diff(a, b)

    found = two(
        {"metrics": {"x": 1.0, "y": 2.0}, "versions": {"torch": "1"}},
        {"metrics": {"x": 3.0, "y": 2.0}, "git_commit": "c"},
    )
    assert [(item.name, item.before, item.after) for item in found.metrics] == [("x", 1.0, 3.0)]
    assert [(item.name, item.what) for item in found.versions] == [("torch", "removed"), ("git commit", "added")]
    assert (found.same, found.relation.text) == (True, "two saves of one run, at the same step")
    resumed = Lineage("elsewhere/a.ckpt", 5, "r1")
    later = two({}, {"run": "r2", "step": 8, "resumed_from": resumed}).relation
    assert (later.text, later.resumed) == ("of two runs, the run of b resumed from a, 3 steps later", True)
    earlier = two({"run": "r2", "step": 8, "resumed_from": Lineage("b.ckpt", 5, None)}, {}).relation
    assert earlier.text == "of two runs, the run of a resumed from b, 3 steps earlier"
    siblings = two({"run": "r2", "resumed_from": resumed}, {"run": "r3", "resumed_from": resumed}).relation
    assert siblings.text == "of two runs, both runs resumed from elsewhere/a.ckpt, at the same step"
    strangers = two({"run": "r2"}, {"run": "r3", "resumed_from": Lineage("a.ckpt", 4, "r2")}).relation
    assert (strangers.resumed, strangers.same_run) == (False, False)
    torch.save(small_state(), tmp_path / "c.ckpt")
    assert holdfast.diff(tmp_path / "a.ckpt", tmp_path / "c.ckpt").relation.text == ""


def test_what_has_equal_digests_is_not_read(tmp_path):
    """Records of equal digests are not read, so that damage in them is not met; in any other record it is refused."""
    a, b = pair(tmp_path, small_state(), small_state() | {"global_step": 3})
    flip(a, "data/0")
    assert [item.name for item in holdfast.diff(a, b).values] == ["global_step"]
    a, b = pair(tmp_path, small_state(), small_state(1))
    flip(b, "data/3", 5)
    with pytest.raises(DamagedCheckpointError, match="data/3"):
        holdfast.diff(a, b)


def test_comparing_takes_the_memory_of_two_tensors(tmp_path):
    """Comparing two files of 12 tensors takes the memory of two of them."""
    a, b = pair(
        tmp_path,
        {f"t{n}": torch.ones(2_000_000) for n in range(12)},
        {f"t{n}": torch.full((2_000_000,), 2.0) for n in range(12)},
    )
    code = f"""
import resource, torch, holdfast
small = {save(tmp_path / "y.ckpt", {"x": torch.ones(1000)})!r}
holdfast.diff(small, {save(tmp_path / "z.ckpt", {"x": torch.zeros(1000)})!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(holdfast.diff({a!r}, {b!r}).changed) == 12
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 48 << 20  # of 192 MB: two tensors of 8, their pages, the blocks and what reads them


def test_the_command_tells_it(tmp_path, capsys):
    """``diff`` prints tables of a limited length; ``--json`` has keys that are promised; wrong use is told."""
    a, b = pair(
        tmp_path,
        small_state() | {"hyper_parameters": {"width": 3}},
        small_state(1) | {"hyper_parameters": {"width": 4}},
    )
    assert main(["diff", a, b, "--top", "1"]) == 0
    out = capsys.readouterr().out
    for text in (
        "two saves of one run",
        "tensors changed, the most first (3)",
        "and 2 more",
        "hyper_parameters.width  3  4",
    ):
        assert text in out
    assert main(["diff", a, b, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {
        "a", "b", "relation", "added", "removed", "reshaped", "changed", "equal", "hyperparameters", "values",
        "metrics", "versions", "same",
    }  # fmt: skip
    assert set(told["changed"][0]) == {"name", "shape", "dtypes", "relative", "largest", "norm"}
    assert main(["diff", a, a]) == 0
    assert "the same in all tensors (4) and all values" in capsys.readouterr().out
    assert main(["diff", a, str(tmp_path / "none.ckpt")]) == 3
    flip(b, "data/0")
    assert main(["diff", a, b]) == 1
    assert "data/0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["diff", a, b, "--top", "-1"])
