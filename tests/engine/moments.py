"""What a training may do to its tensors while they are being copied."""

from __future__ import annotations

import copy
import os
import warnings

import torch

from holdfast import verify
from holdfast.engine import Order
from holdfast.errors import ChangedStateError
from holdfast.records import Facts
from holdfast.snapshot import stepped
from holdfast.storage import open_store
from tests.support.states import same


class Subject:
    """A model and an optimizer whose tensors are large enough to be copied later."""

    def __init__(self, saver, folder):
        torch.manual_seed(0)
        self.saver, self.folder = saver, str(folder)
        self.model = torch.nn.Linear(160, 128)
        self.model.register_buffer("ema", torch.rand(20_000))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.weight = self.model.weight
        self.saves = 0
        self.step()

    def step(self):
        self.model(torch.rand(2, 160)).pow(2).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def submit(self):
        """Begin a save; return it, with its path and what has to stand in it."""
        self.saves += 1
        name = f"{self.saves}.ckpt"
        state, oracle = self.state(), copy.deepcopy(self.state())
        later = stepped(self.model, [self.optimizer])
        flight = self.saver.submit(Order(open_store(self.folder), name, state, Facts(), stepped=later))
        return flight, os.path.join(self.folder, name), oracle

    def rehearse(self):
        """Save and step until copies are left for later."""
        self.submit()
        self.step()
        self.saver.wait()


def outcome(saver, flight, path, oracle):
    """Say what became of a save, and see to it that it is nothing else than whole or nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flight.wait()
        saver.poll()
    if not flight.committed:
        assert isinstance(flight.error, ChangedStateError)
        assert not os.path.exists(path)
        return "given up"
    verify(path)
    assert same(torch.load(path, weights_only=False), oracle), "torn"
    return "committed"


@torch.no_grad()
def _ema(one):
    one.weight.lerp_(torch.zeros(128, 160), 0.1)


@torch.no_grad()
def _clip(one):
    one.weight.clamp_(-0.01, 0.01)


@torch.no_grad()
def _add(one):
    one.weight.add_(1.0)


@torch.no_grad()
def _foreach(one):
    torch._foreach_mul_(list(one.model.parameters()), 0.5)


@torch.no_grad()
def _one_element(one):
    one.weight[3, 4] = 7.0
    one.weight[120, 4] = 7.0


@torch.no_grad()
def _one_row_through_a_view(one):
    one.weight.view(-1)[:10].zero_()
    one.weight.view(-1)[-10:].zero_()


def _detached(one):
    one.weight.detach().mul_(2.0)


def _init(one):
    torch.nn.init.zeros_(one.weight)


def _load(one):
    one.model.load_state_dict({name: value + 1 for name, value in one.model.state_dict().items()})


def _moments(one):
    one.optimizer.state[one.weight]["exp_avg"].zero_()


def _moments_squared(one):
    one.optimizer.state[one.weight]["exp_avg_sq"].add_(1.0)


def _inference(one):
    with torch.inference_mode():
        one.weight.mul_(0.5)


def _out(one):
    with torch.no_grad():
        torch.mul(one.weight, 3.0, out=one.weight.detach())


IN_PLACE = (
    _ema,
    _clip,
    _add,
    _foreach,
    _one_element,
    _one_row_through_a_view,
    _detached,
    _init,
    _load,
    _moments,
    _moments_squared,
    _inference,
    _out,
)


def _rebind(one):
    one.weight.data = torch.zeros(128, 160)


def _load_assign(one):
    state = {name: value + 1 for name, value in one.model.state_dict().items()}
    one.model.load_state_dict(state, assign=True)


def _load_optimizer(one):
    one.optimizer.load_state_dict(copy.deepcopy(one.optimizer.state_dict()))
    one.optimizer.state[one.weight]["exp_avg"].zero_()


def _from_vector(one):
    vector = torch.zeros(sum(item.numel() for item in one.model.parameters()))
    torch.nn.utils.vector_to_parameters(vector, one.model.parameters())


def _other_type(one):
    one.model.double()


def _buffer(one):
    one.model.ema.mul_(0.5)


def _gradients(one):
    one.model(torch.rand(2, 160)).sum().backward()


HARMLESS = (_rebind, _load_assign, _load_optimizer, _from_vector, _other_type, _buffer, _gradients)


def write_data(one):
    one.weight.data.mul_(2.0)


def _numpy(one):
    one.weight.detach().numpy()[:] = 3.0


UNSEEN = (write_data, _numpy)
