"""Loops of several ranks that tell each other of time, saves and signals; what each rank then knows."""

from __future__ import annotations

import os
import signal
import time
import warnings

import torch
import torch.distributed as dist

from holdfast import Checkpointer, EverySeconds, EverySteps, FakeClock
from holdfast.front.pulse import News, Pulse
from holdfast.ranks import Ranks, ranks_here
from tests.support.ranks import tell


def counted(monkey):
    """Count what goes over our ranks from now on."""
    for name in ("highest", "_broadcast"):
        real = getattr(Ranks, name)

        def count(self, value, real=real, name=name):
            monkey[name] = monkey.get(name, 0) + 1
            return real(self, value)

        setattr(Ranks, name, count)
    return monkey


def quiet_steps(folder, words, steps):
    """How many collectives some steps make that save nothing, once the run has begun."""
    clock = FakeClock()
    with Checkpointer(folder, model=torch.nn.Linear(1, 1), clock=clock, every_n_train_steps=10**6, **words) as ckpt:
        ckpt.step()
        seen = counted({})
        for _ in range(steps):
            clock.advance(0.001)
            ckpt.step()
        return dict(seen)


def beats(seeds, steps):
    """At which steps a pulse beats, on ranks whose steps and clocks differ."""
    ranks = ranks_here()
    rank = dist.get_rank()
    clock = FakeClock(1000.0 * rank)
    pulse = Pulse(ranks, [signal.SIGUSR1], clock, [])
    found = []
    for step, seed in zip(range(steps), seeds, strict=False):
        clock.advance(seed * (1 + rank))
        if seed > 3:
            pulse.soon()
        if pulse.due():
            news = News.DUE if step % 3 else News.LANDED
            heard = pulse.beat(lambda news=news: news, lambda seed=seed: 10 * seed)
            found.append((step, int(heard.news), pulse.every))
    return found


def by_time(folder, steps):
    """The steps at which a time trigger saves, with rank 1's clock standing still."""
    clock = FakeClock()
    with Checkpointer(
        folder, model=torch.nn.Linear(1, 1), clock=clock, save_when=EverySeconds(60), keep="All", filename="{step}"
    ) as ckpt:
        for _ in range(steps):
            clock.advance(0.0 if dist.get_rank() else 0.7)
            ckpt.step()
        ckpt.wait()
        return [entry.step for entry in ckpt._ledger.entries]


def landing(folder):
    """Between two saves: how many files there are, by each rank's own book, once the second is committed."""
    with Checkpointer(
        folder, model=torch.nn.Linear(1, 1), save_when=EverySteps(1000), save_on_signal=False, clock=FakeClock()
    ) as ckpt:
        for _ in range(2000):
            ckpt.step()
        before = [entry.step for entry in ckpt._ledger.entries]
        while ckpt._waiting:
            time.sleep(0.001)
            ckpt.step()
        return before, [entry.step for entry in ckpt._ledger.entries]


def preempted(folder, returns, seconds=60):
    """Train until a signal ends it; with ``returns`` a handler of one's own stands below, and training goes on."""
    warnings.simplefilter("ignore")
    heard = []
    if returns:
        signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(sorted(os.listdir(folder))))
    model = torch.nn.Linear(4, 4)
    until = time.monotonic() + seconds
    with Checkpointer(folder, model=model, every_n_train_steps=10**6) as ckpt:
        ckpt.step()
        tell("training")
        stop = torch.zeros(1)
        while not stop.item():
            time.sleep(0.001)
            ckpt.step()
            stop += float(len(heard) > 0 or time.monotonic() > until)
            dist.all_reduce(stop, dist.ReduceOp.MAX)
        return ckpt.global_step, heard
