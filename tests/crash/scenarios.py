"""Short trainings in which saves do one thing each: what is killed, and let fail, at every system call."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

import torch

from holdfast import Best, Checkpointer, EverySteps, Latest, OnImprovement
from holdfast.storage.local import LocalStore
from tests.crash.training import learn, loss_at, parts, put_in_place
from tests.support.bits import Acknowledged, digest_of_parts

EVERY = {"every_n_train_steps": 1}
RANKED = {**EVERY, "monitor": "loss", "save_top_k": 2}
RULES = {"save_when": EverySteps(2) | OnImprovement("loss"), "keep": Latest(2) | Best(2, "loss")}
WAITING = {"async_save": False}
LEFTOVER = ".holdfast-0123456789abcdef.tmp"


@dataclass(frozen=True)
class Scenario:
    """A training.

    Attributes:
        words: of the checkpointer that is struck.
        steps: up to which it trains.
        before: words of an earlier run whose checkpoints it finds, and the steps that it took.
        leftover: whether that run has left an unfinished file.
        hoarded: whether that run was cut off before it could drop any of its checkpoints.
        width: of the model; only wide ones are copied later.
        rest: unfinished files that a kill may leave.

    """

    words: dict
    steps: int
    before: tuple = ()
    leftover: bool = False
    hoarded: bool = False
    width: int = 8
    rest: int = 1

    @property
    def top(self):
        """How many of the best must be there; -1 for all."""
        if "keep" in self.words:
            return max(term.k for term in self.words["keep"].parts if isinstance(term, Best))
        return self.words.get("save_top_k", 1) if "monitor" in self.words else min(self.words.get("save_top_k", 1), 0)

    def best(self, steps):
        """Those of some steps that must be kept."""
        return set(self._ranking(steps)[: None if self.top < 0 else self.top])

    def _ranking(self, steps):
        return sorted(steps, key=loss_at, reverse=self.words.get("mode") == "max")


SCENARIOS = {
    "first save": Scenario({**EVERY, "save_last": True, **WAITING}, 2),
    "top-k eviction": Scenario({**RANKED, **WAITING}, 20, before=({**RANKED, **WAITING}, 3)),
    "last replacing": Scenario({**EVERY, "save_top_k": 0, "save_last": True, **WAITING}, 14),
    "last beside top-k": Scenario({**RANKED, "save_last": True, **WAITING}, 14),
    "last as a link": Scenario({**RANKED, "save_last": "link", **WAITING}, 14),
    "asynchronous": Scenario({**RANKED, "save_last": True}, 16, rest=2),
    "resume and first save": Scenario(
        {**RANKED, "save_last": True, **WAITING}, 6, before=({**RANKED, "save_last": True}, 5), leftover=True, rest=2
    ),
    "retention of many": Scenario({**EVERY, **WAITING}, 14, before=({**EVERY, **WAITING}, 12), hoarded=True, rest=2),
    "all in folders": Scenario({**EVERY, "save_top_k": -1, "filename": "{epoch}/{step}", **WAITING}, 8),
    "rules": Scenario({**RULES, **WAITING}, 14),
    "rules after other words": Scenario(
        {**RULES, **WAITING}, 10, before=({**EVERY, "save_top_k": -1, **WAITING}, 6), rest=2
    ),
    "recycled blocks": Scenario({**RANKED, "save_last": True, "recycle_blocks": True}, 16, rest=4),
    "overlap": Scenario(
        {**RANKED, "save_last": True, "overlap": True, "images": 2, "recycle_blocks": True}, 14, width=8192, rest=4
    ),
    "zero copy": Scenario({**RANKED, "save_last": True, "zero_copy": True}, 14, width=8192, rest=2),
}


def batch_of(step):
    """The batch of a step, which the step alone decides."""
    return torch.rand(5, 4, generator=torch.Generator().manual_seed(step))


def train(tell, folder, name):
    """Train through a scenario from wherever the folder says."""
    scenario = SCENARIOS[name]
    _train(tell, folder, scenario.words, scenario.steps, scenario.width)


def train_in_place(tell, folder, name):
    """The same with a saver that is known to be wrong: it writes under the final name."""
    LocalStore.put = put_in_place
    train(tell, folder, name)


def prepare(tell, folder, name):
    """Be the earlier run whose checkpoints a scenario finds."""
    scenario = SCENARIOS[name]
    if scenario.before:
        aside = f"{folder}-aside"
        os.makedirs(aside)
        keep = (lambda: _link_all(folder, aside)) if scenario.hoarded else lambda: None
        _train(tell, folder, *scenario.before, scenario.width, after=keep)
        _link_all(aside, folder)
    if scenario.leftover:
        with open(os.path.join(folder, LEFTOVER), "wb") as file:
            file.write(bytes(5000))


def _link_all(source, target):
    """Give every file of a folder a second name in another, where it has none yet."""
    for name in os.listdir(source):
        if not os.path.exists(os.path.join(target, name)):
            os.link(os.path.join(source, name), os.path.join(target, name))


def warm():
    """Train without checkpoints: torch imports a good deal at the first step."""
    torch.set_num_threads(1)
    model, optimizer, schedule = parts()
    learn(model, optimizer, schedule, batch_of(1))


def _train(tell, folder, words, steps, width, *, after=lambda: None):
    torch.set_num_threads(1)
    random.seed(7)
    model, optimizer, schedule = parts(width)
    made = {"model": model, "optimizer": optimizer, "lr_scheduler": schedule, "on_error": "raise"}
    with Checkpointer(folder, **made, **words) as ckpt:
        start = ckpt.resume()
        tell({"resumed": start.step, "missed": list(start.missed), "digest": digest_of_parts(model, optimizer)})
        acknowledged = Acknowledged(ckpt)
        for step in range(start.step + 1, steps + 1):
            learn(model, optimizer, schedule, batch_of(step))
            tell({"step": step, "digest": digest_of_parts(model, optimizer)})
            ckpt.step({"loss": loss_at(step)})
            tell({"acknowledged": acknowledged.after(step)})
            after()
    tell({"finished": steps, "digest": digest_of_parts(model, optimizer)})
