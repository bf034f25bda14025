"""Loops of several ranks that tell each other of time, saves and signals; what each rank then knows."""

from __future__ import annotations

import math
import os
import random
import signal
import time
import warnings

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from holdfast import Checkpointer, EverySeconds, EverySteps, FakeClock, Latest
from holdfast.errors import RankError
from holdfast.front.pulse import News, Pulse
from holdfast.ranks import Ranks, ranks_here
from holdfast.storage.local import LocalStore
from tests.support.ranks import await_word, tell


def counted(seen):
    """Count what goes over our ranks from now on, by its kind."""
    real = Ranks._round

    def count(self, kind, *args):
        seen[kind] = seen.get(kind, 0) + 1
        return real(self, kind, *args)

    Ranks._round = count
    return seen


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


def beats(rounds, steps):
    """At which steps a pulse beats, what it then says and how it goes on, on ranks whose steps and clocks differ."""
    ranks, rank = ranks_here(), dist.get_rank()
    draws = [(random.Random(seed), random.Random(seed + 1000 * rank)) for seed in range(rounds)]  # noqa: S311 - repeatable
    return [_beats(ranks, shared, own, steps) for shared, own in draws]


def _beats(ranks, shared, own, steps):
    clock = FakeClock(1000.0 * own.random())
    pulse = Pulse(ranks, [signal.SIGUSR1, signal.SIGTERM], clock, own.choices([signal.SIGUSR1], k=own.randint(0, 1)))
    scale = 10 ** own.uniform(-4, 2)
    found = []
    for step in range(steps):
        clock.advance(scale * own.random())
        if shared.random() < 0.02:
            pulse.soon()
        if pulse.due():
            heard = pulse.beat(lambda: News(own.randint(0, 7)), lambda: own.choice([math.inf, own.random()]))
            found.append((step, heard, pulse.every))
    return found


def by_time(folder, steps):
    """The steps at which a time trigger saves, with rank 1's clock standing still."""
    clock = FakeClock()
    with Checkpointer(
        folder, model=torch.nn.Linear(1, 1), clock=clock, save_when=EverySeconds(60), keep="All()", filename="{step}"
    ) as ckpt:
        for _ in range(steps):
            clock.advance(0.0 if dist.get_rank() else 0.7)
            ckpt.step()
        ckpt.wait()
        return [entry.step for entry in ckpt._ledger.entries]


def landing(folder):
    """By each rank's own book, the files once the second save is committed, with no event in between."""
    with Checkpointer(
        folder, model=torch.nn.Linear(1, 1), save_when=EverySteps(1000), keep=Latest(1), save_on_signal=False
    ) as ckpt:
        for _ in range(2000):
            ckpt.step()
        while ckpt._waiting:
            time.sleep(0.001)
            ckpt.step()
        return [entry.step for entry in ckpt._ledger.entries]


def ahead(folder):
    """What is there after a deadline has gone by, in steps of 10 s, that rank 0 was given as 100 s."""
    rank = dist.get_rank()
    clock = FakeClock(1e9 * rank)
    words = {"deadline": 5 if rank else 100, "save_on_signal": False, "every_n_train_steps": 10**6}
    with Checkpointer(folder, model=torch.nn.Linear(1, 1), clock=clock, **words) as ckpt:
        for _ in range(14):
            clock.advance(10)
            ckpt.step()
        return [entry.name for entry in ckpt._ledger.preempted]


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


def deferred(folder):
    """The steps of the saves that waited for a metric of rank 0's, and the objects sent at the steps between."""
    rank = dist.get_rank()
    with Checkpointer(
        folder, model=torch.nn.Linear(1, 1), monitor="v", every_n_train_steps=10, save_top_k=-1, clock=FakeClock()
    ) as ckpt:
        for step in range(1, 12):
            ckpt.step({"v": 1.0} if rank == 0 and step % 7 == 0 else None)
        seen = counted({})
        for _ in range(12, 14):
            ckpt.step()
        objects = seen.get("agree", 0)
        for step in range(14, 23):
            ckpt.step({"v": 1.0} if rank == 0 and step % 7 == 0 else None)
        ckpt.wait()
        return [entry.step for entry in ckpt._ledger.entries], objects


def two_preempted(folder):
    """Two checkpointers of one loop, until a signal ends it."""
    model = torch.nn.Linear(4, 4)
    words = {"model": model, "every_n_train_steps": 10**6}
    with Checkpointer(folder / "a", **words) as one, Checkpointer(folder / "b", **words) as other:
        while True:
            one.step()
            other.step()
            if one.global_step == 3:
                tell("training")
            time.sleep(0.001)


def closed(folder):
    """A loop that is sent a signal after its last step."""
    with Checkpointer(folder, model=torch.nn.Linear(4, 4), every_n_train_steps=10**6, save_last=True) as ckpt:
        for _ in range(5):
            ckpt.step()
        tell("trained")
        await_word("sent")
        time.sleep(0.05)


def interrupted(folder):
    """A loop that Ctrl-C ends; what each rank then sees."""
    try:
        with Checkpointer(folder, model=torch.nn.Linear(4, 4), every_n_train_steps=10**6) as ckpt:
            ckpt.step()
            tell("training")
            while True:
                time.sleep(0.001)
                ckpt.step()
    except KeyboardInterrupt:
        return ckpt.global_step, sorted(name for name in os.listdir(folder) if name.startswith("preempted"))


def interrupted_twice(folder, sharded):
    """A loop on a disk so slow that Ctrl-C's save is still on its way when the next one comes; how it then ends."""
    warnings.simplefilter("ignore")
    put = LocalStore.put

    def slow(store, name, chunks, **words):
        if slow.on:
            tell("saving")
            time.sleep(5)
        return put(store, name, chunks, **words)

    slow.on = False
    LocalStore.put = slow
    model = torch.nn.Linear(4, 4)
    if sharded:
        fully_shard(model)
    error = None
    try:
        with Checkpointer(folder, model=model, every_n_train_steps=10**6, save_last=True) as ckpt:
            ckpt.step()
            ckpt.save_checkpoint()
            slow.on = True
            tell("training")
            while True:
                time.sleep(0.001)
                ckpt.step()
    except (KeyboardInterrupt, RankError) as problem:
        error = type(problem).__name__
    tell("over")
    return error
