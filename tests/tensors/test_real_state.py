"""Statistics, differences and averages of checkpoints that a real Trainer has saved."""

from __future__ import annotations

import pytest
import torch

import holdfast
from holdfast import Checkpointer
from holdfast.snapshot import named_tensors
from tests.support.states import same

pytest.importorskip("lightning")
from tests.tensors.real import Real, train


@pytest.fixture(scope="module", params=["stock", "holdfast", "ema"])
def saved(request, tmp_path_factory):
    """The checkpoints of three epochs, by who saved them."""
    return request.param, train(tmp_path_factory.mktemp(request.param), request.param)


def state_of(path):
    return torch.load(path, weights_only=False)


def test_every_tensor_has_its_statistics(saved):
    """Each tensor of model, optimizer and average is there, with the norm that torch computes of it."""
    _, paths = saved
    state = dict(named_tensors(state_of(paths[-1])))
    found = {item.name: item for item in holdfast.statistics(paths[-1])}
    assert list(found) == list(state)
    for name, tensor in state.items():
        finite = tensor[torch.isfinite(tensor)]
        wide = finite.to(torch.complex128 if tensor.is_complex() else torch.float64)
        assert found[name].norm == pytest.approx(float(torch.linalg.vector_norm(wide)), rel=1e-12), name
        assert found[name].infinities == int(tensor.isinf().sum())


def test_the_difference_names_what_training_has_changed(saved):
    """Between two epochs: each tensor's true relative change, the learning rate, the steps, and nothing that stayed."""
    kind, paths = saved
    found = holdfast.diff(paths[0], paths[-1])
    one, other = (dict(named_tensors(state_of(path))) for path in (paths[0], paths[-1]))
    assert (found.added, found.removed, found.reshaped) == ((), (), ())
    relative = {item.name: item.relative for item in found.changed}
    numbers = {item.name for item in found.values}
    for name in one:
        wide = torch.complex128 if one[name].is_complex() else torch.float64
        before, after = one[name].to(wide), other[name].to(wide)
        if torch.equal(before, after):
            assert name not in relative
        elif not before.dim():
            assert name in numbers
        else:
            expected = float(torch.linalg.vector_norm(after - before) / torch.linalg.vector_norm(before))
            assert relative[name] == pytest.approx(expected, rel=1e-6), name
    assert list(relative.values()) == sorted(relative.values(), reverse=True)
    values = {item.name: (item.before, item.after) for item in found.values}
    assert values["optimizer_states.0.param_groups.0.lr"] == (0.005, 0.00125)
    assert values["global_step"] == (2, 6)
    assert values["optimizer_states.0.state.0.step"] == (2.0, 6.0)
    assert found.hyperparameters == ()
    assert found.relation.steps == (None if kind == "stock" else 4)
    assert found.relation.same_run is (None if kind == "stock" else True)


def test_a_checkpoint_does_not_differ_from_itself(saved):
    """A checkpoint compared with itself, or with a copy by ``torch.save``, is the same, masked values included."""
    _, paths = saved
    copy = paths[0].replace("epoch=0", "copy")
    torch.save(state_of(paths[0]), copy)
    for other in (paths[0], copy):
        found = holdfast.diff(paths[0], other)
        assert (found.same, found.changed, found.values) == (True, (), ())
        assert found.equal == len(dict(named_tensors(state_of(paths[0]))))


def test_hyperparameters_that_differ_have_a_list_of_their_own(saved, tmp_path):
    """A hyperparameter of another value is named by its path, apart from the other values."""
    _, paths = saved
    state = state_of(paths[0])
    state["hyper_parameters"]["name"] = "other"
    torch.save(state, tmp_path / "x.ckpt")
    found = holdfast.diff(paths[0], tmp_path / "x.ckpt")
    assert [(item.name, item.before, item.after) for item in found.hyperparameters] == [
        ("hyper_parameters.name", "real", "other")
    ]
    assert found.values == ()


@pytest.mark.parametrize("ema", [None, 0.75])
def test_the_average_loads_where_its_sources_do(saved, tmp_path, ema):
    """The average has the mean weights, stays tied, and loads by ``torch.load`` and ``load_from_checkpoint``."""
    _, paths = saved
    out = tmp_path / "mean.ckpt"
    made = holdfast.average([paths[2], paths[0], paths[1]], out, ema=ema)
    assert made.sources == tuple(paths)
    shares = [1 / 3] * 3 if ema is None else [0.5625, 0.1875, 0.25]
    assert made.weights == pytest.approx(shares)
    models = [state_of(path)["state_dict"] for path in paths]
    loaded = torch.load(out, weights_only=True)
    for name, tensor in loaded["state_dict"].items():
        if name not in made.averaged:
            assert same(tensor, models[-1][name])
            continue
        wide = torch.complex128 if tensor.is_complex() else torch.float64
        mean = sum(model[name].to(wide) * share for model, share in zip(models, shares, strict=True))
        assert torch.allclose(tensor.to(wide), mean, rtol=1e-2 if tensor.dtype is torch.bfloat16 else 1e-6), name
    assert set(made.taken) == {"norm.num_batches_tracked"}
    assert set(loaded) == {
        "epoch", "global_step", "pytorch-lightning_version", "state_dict", "hparams_name", "hyper_parameters",
    }  # fmt: skip
    state = loaded["state_dict"]
    assert state["first.weight"].data_ptr() == state["tied.weight"].data_ptr()
    storages = {state[name].untyped_storage().data_ptr() for name in ("even", "odd", "turned")}
    assert len(storages) == 1
    model = Real.load_from_checkpoint(out)
    assert torch.equal(model.first.weight, state["first.weight"])
    assert model.hparams.name == "real"


def test_the_manifest_of_an_average_names_its_sources(saved, tmp_path):
    """The average is a whole checkpoint whose manifest says that it is weights alone, of what, and why it was made."""
    kind, paths = saved
    out = tmp_path / "mean.ckpt"
    holdfast.average(paths, out)
    facts = holdfast.verify(out).facts
    assert (facts.kind, facts.weights_only, facts.step, facts.epoch) == ("lightning", True, 6, 2)
    assert facts.reason == "the average of epoch=0.ckpt, epoch=1.ckpt, epoch=2.ckpt"
    assert [source.path for source in facts.sources] == paths
    assert [source.step for source in facts.sources] == [2, 4, 6]
    assert (facts.names, facts.run) == ({}, "")
    found = holdfast.diff(paths[-1], out)
    assert found.relation.resumed is (kind != "stock")


def test_checkpoints_of_a_plain_loop(tmp_path):
    """What ``Checkpointer`` has saved is compared and averaged like all others."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    weights = []
    words = {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}"}
    with Checkpointer(tmp_path / "run", model=model, optimizer=optimizer, **words) as ckpt:
        for _ in range(3):
            model(torch.ones(4, 3)).pow(2).mean().backward()
            optimizer.step()
            ckpt.step()
            ckpt.wait()
            weights.append(model.weight.detach().double().clone())
    paths = [tmp_path / "run" / f"step={step}.ckpt" for step in (1, 2, 3)]
    holdfast.average(paths, tmp_path / "run" / "mean.ckpt")
    mean = torch.load(tmp_path / "run" / "mean.ckpt", weights_only=True)
    assert torch.allclose(mean["state_dict"]["weight"].double(), sum(weights) / 3)
    assert set(mean) == {"epoch", "global_step", "pytorch-lightning_version", "state_dict"}
    assert holdfast.newest(tmp_path / "run") == str(paths[-1])
    found = holdfast.diff(paths[0], paths[1])
    assert found.relation.text == "two saves of one run, 1 step later"
    assert "state_dict.weight" in {item.name for item in found.changed}
