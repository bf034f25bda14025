"""Resuming straight into the tensors of model and optimizer: what goes where, and what damage may cost."""

from __future__ import annotations

import copy
import os
import warnings

import pytest
import torch

from holdfast import Checkpointer, LoadError
from holdfast.engine import Into, filling, load_into
from holdfast.snapshot import named_tensors
from tests.support.states import same

WIDE = 256  # a weight of 256 KiB


class Model(torch.nn.Module):
    """Large and small parameters, a tied one, a buffer and a convolution."""

    def __init__(self, width=WIDE, *, tied=True):
        super().__init__()
        self.first = torch.nn.Linear(width, width)
        self.second = torch.nn.Linear(width, width)
        if tied:
            self.second.weight = self.first.weight
        self.conv = torch.nn.Conv2d(64, 64, 3)
        self.register_buffer("seen", torch.zeros(width, width))

    def forward(self, x):
        picture = torch.ones(1, 64, 3, 3)
        return self.second(self.first(x)).sum() + self.conv(picture).sum()


def trained(seed, **words):
    """A model and its optimizer after a few steps."""
    torch.manual_seed(seed)
    model = Model(**words)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        train(model, optimizer)
    return model, optimizer


def train(model, optimizer):
    optimizer.zero_grad()
    model(torch.rand(3, model.first.in_features)).backward()
    optimizer.step()
    model.seen += 1


def saved(folder, seed, steps=1, **words):
    """Save a model at each of some steps; return the states that were saved."""
    model, optimizer = trained(seed, **words)
    states = []
    with Checkpointer(folder, model=model, optimizer=optimizer, every_n_train_steps=1, save_top_k=-1) as ckpt:
        for _ in range(steps):
            train(model, optimizer)
            states.append(state_of(model, optimizer))
            ckpt.step()
    return states


def state_of(model, optimizer):
    return copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})


def addresses(model, optimizer):
    named = named_tensors({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    return {name: tensor.data_ptr() for name, tensor in named if tensor.numel() >= WIDE * WIDE}


def resume(folder, model, optimizer, path=None):
    """Resume; return the start, and what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Checkpointer(folder, model=model, optimizer=optimizer, every_n_train_steps=10**9) as ckpt:
            start = ckpt.resume(path)
    return start, [str(item.message) for item in caught]


def spoil(path, value):
    """Flip a bit in the middle of a tensor's data."""
    with open(path, "r+b") as file:
        data = file.read()
        at = data.index(value.numpy().tobytes()) + value.nbytes // 2
        file.seek(at)
        file.write(bytes([data[at] ^ 1]))


def evict(path):
    """Throw a file out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


@pytest.fixture(params=["cached", "cold"])
def bring(request):
    """Have files in the page cache, or not."""

    def look(folder):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            evict(path)
            if request.param == "cached":
                with open(path, "rb") as file:
                    file.read()

    return look


@pytest.fixture
def images(monkeypatch):
    """Collect the bytes of fresh memory that a load touches in huge pages or fills, as the ranges outside of homes."""
    seen = []
    real = filling.page_memory

    def fresh(size, huge=None):
        if huge is not None:
            seen.append(sum(end - begin for begin, end in huge))
        return real(size, huge)

    monkeypatch.setattr(filling, "page_memory", fresh)
    return seen


@pytest.mark.parametrize("steps", [1, 2])
def test_a_resume_holds_no_second_state(tmp_path, images, bring, steps):
    """Values come right to the memory of a stepped model and optimizer, if it can be done safely in one reading."""
    states = saved(tmp_path, 1, steps)
    model, optimizer = trained(2)
    before = addresses(model, optimizer)
    bring(tmp_path)
    start, said = resume(tmp_path, model, optimizer)
    assert (start.step, said) == (steps, [])
    assert same(state_of(model, optimizer), states[-1])
    whole = sum(tensor.nbytes for _, tensor in named_tensors(states[-1]))
    if images[-1] < whole // 4:
        assert addresses(model, optimizer) == before
    else:
        assert steps == 1, "with an older checkpoint to fall back on, one reading is enough"


def test_a_fresh_optimizer_gets_memory_of_its_own(tmp_path):
    """A new process has no moments yet: the weights come to their place, the moments to new memory."""
    (state,) = saved(tmp_path, 1)
    torch.manual_seed(5)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    weights = model.first.weight.data_ptr()
    resume(tmp_path, model, optimizer)
    assert same(state_of(model, optimizer), state)
    assert model.first.weight.data_ptr() == weights
    assert model.second.weight is model.first.weight
    train(model, optimizer)


@pytest.mark.parametrize(("there", "here"), [(True, False), (False, True), (False, False)])
def test_tied_there_and_not_here(tmp_path, there, here):
    """Weights tied in the file alone, or in the model alone, come out as ``load_state_dict`` has them."""
    saved(tmp_path, 1, tied=there)
    path = next(os.scandir(tmp_path)).path
    expected, model = (trained(2, tied=here)[0] for _ in range(2))
    expected.load_state_dict(torch.load(path)["state_dict"])
    ckpt = Checkpointer(tmp_path, model=model)
    ckpt.resume()
    ckpt.close()
    assert same(model.state_dict(), expected.state_dict())


def test_another_memory_format(tmp_path):
    """A weight that is laid out in memory otherwise than it was saved holds the right values."""
    (state,) = saved(tmp_path, 1)
    model, optimizer = trained(2)
    model.conv.to(memory_format=torch.channels_last)
    assert not model.conv.weight.is_contiguous()
    resume(tmp_path, model, optimizer)
    assert torch.equal(model.conv.weight, state["model"]["conv.weight"])
    assert not model.conv.weight.is_contiguous()


def test_a_model_of_another_width(tmp_path):
    """What does not fit is an error, as ever, and names what."""
    saved(tmp_path, 1)
    model, optimizer = trained(2, width=WIDE + 8)
    with pytest.raises(LoadError, match=r"first\.weight"):
        resume(tmp_path, model, optimizer)


@pytest.mark.parametrize("older", [0, 1, 2])
def test_damage_goes_back_to_the_newest_whole_one(tmp_path, bring, older):
    """A damaged newest one is passed over by name; where none is whole, model and optimizer are as they were."""
    states = saved(tmp_path, 1, older + 1)
    model, optimizer = trained(2)
    before = state_of(model, optimizer)
    newest = tmp_path / f"epoch=0-step={older + 1}.ckpt"
    spoil(newest, states[-1]["model"]["second.weight"])
    bring(tmp_path)
    start, said = resume(tmp_path, model, optimizer)
    assert any("passed over" in text and newest.name in text for text in said)
    assert start.step == older
    assert same(state_of(model, optimizer), states[-2] if older else before)


def test_when_none_is_whole_nobody_trains_on_what_is_not(tmp_path):
    """If damaged files have been read into the model, and no other is whole, that is an error and no fresh start."""
    states = saved(tmp_path, 1, 2)
    for number, state in enumerate(states, 1):
        spoil(tmp_path / f"epoch=0-step={number}.ckpt", state["model"]["second.weight"])
    model, optimizer = trained(2)
    with pytest.raises(LoadError, match=r"holds what was read of .*step=2\.ckpt.*anew"):
        resume(tmp_path, model, optimizer)


def test_a_damaged_file_that_was_asked_for_harms_nothing(tmp_path, bring):
    """``resume(path)`` of a damaged file is an error, and model and optimizer are as they were."""
    states = saved(tmp_path, 1, 2)
    model, optimizer = trained(2)
    before = state_of(model, optimizer)
    path = tmp_path / "epoch=0-step=2.ckpt"
    spoil(path, states[-1]["model"]["second.weight"])
    bring(tmp_path)
    with pytest.raises(LoadError, match="data"):
        resume(tmp_path, model, optimizer, path)
    assert same(state_of(model, optimizer), before)


def test_a_save_on_its_way_is_not_written_over(tmp_path, monkeypatch):
    """Another checkpointer's overlapped save of the same model is finished before a resume writes into it."""
    states = saved(tmp_path / "from", 1, 2)
    model, optimizer = trained(2)
    words = {"every_n_train_steps": 1, "save_top_k": -1, "async_save": True, "overlap": True}
    with Checkpointer(tmp_path / "to", model=model, optimizer=optimizer, **words) as other:
        for _ in range(3):
            train(model, optimizer)
            other.step()
        expected = state_of(model, optimizer)
        resume(tmp_path / "from", model, optimizer)
        assert same(state_of(model, optimizer), states[-1])
    there = torch.load(tmp_path / "to" / "epoch=0-step=3.ckpt")
    assert same(there["state_dict"], expected["model"])
    assert same(there["optimizer_states"][0], expected["optimizer"])


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.double(),
        lambda x: x[:, :-1],
        lambda x: x.t(),
        lambda x: torch.empty(2 * x.numel())[: x.numel()].view_as(x),
        lambda x: x[:1].expand(x.shape),
        lambda x: x.to_sparse(),
        lambda x: x.to("meta"),
        lambda x: x.reshape(-1),
    ],
)
def test_what_does_not_fit_is_left_alone(tmp_path, change):
    """A living tensor of another kind, shape, extent or place is not written to."""
    (state,) = saved(tmp_path, 1)
    weight = state["model"]["first.weight"]
    own = change(torch.rand(WIDE, WIDE))
    before = own.clone() if own.device.type == "cpu" else None
    into = Into({"state_dict.first.weight": own}, careful=False)
    loaded = load_into(next(os.scandir(tmp_path)).path, into)
    assert torch.equal(loaded["state_dict"]["first.weight"], weight)
    if before is not None and own.shape != weight.t().shape:
        assert torch.equal(own.to_dense() if own.is_sparse else own, before.to_dense() if own.is_sparse else before)


def test_the_cache_may_forget_meanwhile(tmp_path, monkeypatch):
    """A file that is damaged between the look over it and the load is refused by the load's own check."""
    (state,) = saved(tmp_path, 1)
    path = next(os.scandir(tmp_path)).path
    real = filling.pour

    def look_and_spoil(*arguments, **words):
        real(*arguments, **words)
        spoil(path, state["model"]["first.weight"])

    monkeypatch.setattr(filling, "pour", look_and_spoil)
    with open(path, "rb") as file:
        file.read()
    own = torch.rand(WIDE, WIDE)
    into = Into({"state_dict.first.weight": own})
    with pytest.raises(LoadError):
        load_into(path, into)
    assert into.touched
