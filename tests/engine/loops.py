"""Training loops of many kinds, as people write them, around one model."""

from __future__ import annotations

import copy

import torch

STEPS = 5


class Net(torch.nn.Module):
    """Parameters large enough to be copied later; buffers, small and large, that the forward writes; dropout."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(160, 128)
        self.norm = torch.nn.BatchNorm1d(128)
        self.drop = torch.nn.Dropout(0.3)
        self.second = torch.nn.Linear(128, 160)
        self.register_buffer("seen", torch.zeros(20_000))

    def forward(self, batch):
        self.seen.add_(1.0)
        return self.second(self.drop(torch.relu(self.norm(self.first(batch)))))


class Kind:
    """A way to train: ``before`` the forward, and ``step`` with the gradients. ``ckpt`` is None without one."""

    make = staticmethod(lambda parameters: torch.optim.AdamW(parameters, lr=0.01))

    def __init__(self):
        torch.manual_seed(1)
        self.model = Net()
        self.optimizers = [self.make(list(self.model.parameters()))]
        self.number = 0

    @property
    def optimizer(self):
        return self.optimizers[0]

    def loss(self):
        return self.model(torch.rand(4, 160)).pow(2).mean()

    def before(self):
        """Do what happens between the save and the forward."""

    def train(self, ckpt):
        self.before()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self.loss().backward()
        self.step(ckpt)
        self.number += 1

    def step(self, ckpt):
        self.optimizer.step()

    def states(self):
        states = [item.state_dict() for item in self.optimizers]
        return copy.deepcopy({"state_dict": self.model.state_dict(), "optimizer_states": states})


def optimizer_kind(make):
    return type("Optimizer", (Kind,), {"make": staticmethod(make)})


class Closure(Kind):
    """LBFGS, which runs forward and backward many times inside of a step."""

    make = staticmethod(lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=3, history_size=2))

    def train(self, ckpt):
        self.optimizer.step(self.closure)
        self.number += 1

    def closure(self):
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        return loss


class ClosureByName(Closure):
    """A closure that is passed by name."""

    make = staticmethod(Kind.make)

    def train(self, ckpt):
        self.optimizer.step(closure=self.closure)
        self.number += 1


class SearchedClosure(Closure):
    """LBFGS with a line search, which writes the parameters back and forth."""

    make = staticmethod(
        lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=3, line_search_fn="strong_wolfe")
    )


class Scaler(Kind):
    """A gradient scaler that skips a step now and then."""

    def __init__(self):
        super().__init__()
        self.scaler = torch.amp.GradScaler("cpu", growth_interval=2)

    def step(self, ckpt):
        if self.number % 2:
            self.model.first.weight.grad[0, 0] = torch.inf
        self.scaler.scale(torch.zeros(1))
        self.scaler.step(self.optimizer)
        self.scaler.update()


class Compiled(Kind):
    """The step is compiled, before the first save."""

    backend = "aot_eager"

    def __init__(self):
        super().__init__()
        torch._dynamo.reset()
        self.compiled = torch.compile(self.optimizer.step, backend=self.backend)

    def step(self, ckpt):
        self.compiled()


class CompiledByInductor(Compiled):
    """The step is machine code, which writes to the parameters' memory."""

    backend = "inductor"


class CompiledWhole(Compiled):
    """Forward, backward and step in one compiled function."""

    def __init__(self):
        super().__init__()
        self.whole = torch.compile(self._whole, backend=self.backend)

    def _whole(self, batch):
        loss = self.model(batch).pow(2).mean()
        loss.backward()
        self.optimizer.step()

    def train(self, ckpt):
        self.optimizer.zero_grad()
        self.whole(torch.rand(4, 160))
        self.number += 1


class InBackward(Kind):
    """Each parameter has an optimizer, which steps within the backward."""

    def __init__(self):
        super().__init__()
        self.optimizers = []
        for parameter in self.model.parameters():
            optimizer = torch.optim.Adam([parameter], lr=0.01)
            self.optimizers.append(optimizer)
            parameter.register_post_accumulate_grad_hook(lambda _, optimizer=optimizer: optimizer.step())

    def step(self, ckpt):
        """Do nothing: it is done."""


class TwoOptimizers(Kind):
    """Two optimizers that step one after the other, with a forward in between."""

    def __init__(self):
        super().__init__()
        halves = (self.model.first, self.model.second)
        self.optimizers = [torch.optim.SGD(half.parameters(), lr=0.1, momentum=0.9) for half in halves]

    def step(self, ckpt):
        self.optimizers[0].step()
        self.loss().backward()
        self.optimizers[1].step()


class Own:
    """An optimizer that is none of torch's."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.momentum = [torch.zeros_like(item) for item in parameters]

    def zero_grad(self):
        for item in self.parameters:
            item.grad = None

    @torch.no_grad()
    def step(self):
        for item, momentum in zip(self.parameters, self.momentum, strict=True):
            momentum.mul_(0.9).add_(item.grad)
            item.sub_(momentum, alpha=0.1)

    def state_dict(self):
        return {"momentum": self.momentum}

    def load_state_dict(self, state):
        self.momentum = state["momentum"]


class OwnByData(Own):
    """The same, through ``.data``, as many are written."""

    def step(self):
        for item, momentum in zip(self.parameters, self.momentum, strict=True):
            momentum.data.mul_(0.9).add_(item.grad.data)
            item.data.sub_(momentum.data, alpha=0.1)


class OwnFenced(Kind):
    """An optimizer that is none of torch's, with the fence before it."""

    make = Own

    def step(self, ckpt):
        if ckpt is not None:
            ckpt.fence()
        super().step(ckpt)


class OwnFencedByData(OwnFenced):
    """The same, through ``.data``."""

    make = OwnByData


class OwnUnfenced(Kind):
    """An optimizer that is none of torch's, and nobody said so."""

    make = Own


class OwnUnfencedByData(Kind):
    """The same, through ``.data``."""

    make = OwnByData


class OwnThenTorch(Kind):
    """An optimizer that is none of torch's for one half, and torch's for the other."""

    own = Own

    def __init__(self):
        super().__init__()
        halves = [list(half.parameters()) for half in (self.model.first, self.model.second)]
        self.optimizers = [self.own(halves[0]), torch.optim.Adam(halves[1], lr=0.01)]

    def step(self, ckpt):
        for optimizer in self.optimizers:
            optimizer.step()


class OwnByDataThenTorch(OwnThenTorch):
    """The same, through ``.data``."""

    own = OwnByData


class Replaces(Kind):
    """Gives a parameter new memory between save and step."""

    def before(self):
        self.model.first.weight.data = self.model.first.weight.data * 0.99


class Reloads(Kind):
    """Loads the optimizer's state between save and step, which gives it new tensors."""

    def before(self):
        self.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))


class Averages(Kind):
    """A slow copy of the model, among its parameters, follows within the forward."""

    def __init__(self):
        super().__init__()
        self.model.slow = copy.deepcopy(self.model.first).requires_grad_(requires_grad=False)

    @torch.no_grad()
    def before(self):
        self.model.slow.weight.lerp_(self.model.first.weight, 0.1)


class AveragesSometimes(Averages):
    """The same, only at every other step, and not at the first ones."""

    def before(self):
        if self.number in (3, 4):
            super().before()


class Clips(Kind):
    """Clips the weights between save and step."""

    @torch.no_grad()
    def before(self):
        self.model.second.weight.clamp_(-0.01, 0.01)


class ClipsData(Kind):
    """The same, through ``.data``."""

    def before(self):
        self.model.second.weight.data.clamp_(-0.01, 0.01)


class ReloadsModel(Kind):
    """Loads weights between save and step, in place."""

    def before(self):
        if self.number == 3:
            self.model.load_state_dict({name: value * 0.5 for name, value in self.model.state_dict().items()})


def _with(kind, **words):
    return optimizer_kind(lambda parameters: kind(parameters, lr=0.01, **words))


OPTIMIZERS = {
    f"{name}-{way}": _with(kind, **options, **words)
    for name, kind, options in (
        ("adamw", torch.optim.AdamW, {}),
        ("amsgrad", torch.optim.Adam, {"amsgrad": True}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.9}),
        ("adagrad", torch.optim.Adagrad, {}),
    )
    for way, words in (("loop", {"foreach": False}), ("foreach", {"foreach": True}), ("fused", {"fused": True}))
    if not (name == "rmsprop" and way == "fused")
}
