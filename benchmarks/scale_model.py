"""A model of a large run: ranks, disks, stragglers and failures, thrown with a seed. No torch, no clock, no disk."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from statistics import median

from holdfast import optimal_interval


@dataclass(frozen=True)
class Cluster:
    """What is assumed of the machines. Rates are in bytes a second, times in seconds.

    Attributes:
        ranks: processes, one for each GPU.
        each: ranks on a node.
        copying: from a GPU to host memory, for each rank.
        node_rate: what a node writes to the shared filesystem, for all its ranks together.
        store_rate: what the filesystem takes from all nodes together.
        spread: the standard deviation of the logarithm of a rank's rate.
        stragglers: the share of ranks that are slow at a save.
        slowness: by which factor those are.
        fsync: of one file, and of a directory.
        rename: of a directory, with the fsync of its parent.
        hop: one message between two ranks.
        message: bytes a second between two nodes, on the network that the small messages take.
        node_failures: of one node, in a second.

    """

    ranks: int = 1024
    each: int = 8
    copying: float = 20e9
    node_rate: float = 4e9
    store_rate: float = 400e9
    spread: float = 0.15
    stragglers: float = 1e-3
    slowness: float = 4.0
    fsync: float = 0.05
    rename: float = 0.05
    hop: float = 50e-6
    message: float = 1e9
    node_failures: float = 6.5e-3 / 86_400

    @property
    def nodes(self) -> int:
        """How many machines."""
        return -(-self.ranks // self.each)

    @property
    def mtbf(self) -> float:
        """Mean seconds between failures of any node."""
        return 1 / (self.node_failures * self.nodes)


@dataclass(frozen=True)
class Load:
    """What a save has to carry. Sizes are in bytes, times in seconds.

    Attributes:
        state: of all ranks together.
        told: what each rank tells rank 0 behind the training.
        metadata: DCP's, and our manifest: what rank 0 writes.
        preparing: how long rank 0 takes to make them.

    """

    state: float
    told: float
    metadata: float
    preparing: float


@dataclass(frozen=True)
class Save:
    """How long one save took, in seconds.

    Attributes:
        stall: the training stands still.
        first: until the first rank's file is durable.
        last: until the last rank's is.
        commit: until it is committed, from its beginning.

    """

    stall: float
    first: float
    last: float
    commit: float


def save(cluster: Cluster, load: Load, dice: random.Random) -> Save:
    """Throw one save."""
    part = load.state / cluster.ranks
    steps = math.ceil(math.log2(max(2, cluster.ranks)))
    stall = 2 * steps * cluster.hop + part / cluster.copying  # one small reduction, and the copy
    rate = min(cluster.node_rate / cluster.each, cluster.store_rate / cluster.ranks)
    times = []
    for _ in range(cluster.ranks):
        own = rate * math.exp(dice.gauss(0, cluster.spread))
        times.append(part / (own / cluster.slowness if dice.random() < cluster.stragglers else own) + cluster.fsync)
    last = stall + max(times)
    gathering = cluster.ranks * (cluster.hop + load.told / cluster.message)  # one after the other, at rank 0
    sealing = load.preparing + load.metadata / min(rate * cluster.each, cluster.node_rate) + 3 * cluster.fsync
    return Save(stall, stall + min(times), last, last + gathering + sealing + cluster.rename + steps * cluster.hop)


def saves(cluster: Cluster, load: Load, many: int, seed: int = 0) -> list[Save]:
    """Throw many saves."""
    dice = random.Random(seed)  # noqa: S311 - repeatable is what is wanted
    return [save(cluster, load, dice) for _ in range(many)]


def typical(thrown: list[Save]) -> Save:
    """Return the medians."""
    return Save(*(median(getattr(one, name) for one in thrown) for name in ("stall", "first", "last", "commit")))


@dataclass(frozen=True)
class Failing:
    """How a run fails: mean seconds between failures, seconds of a restart, and the seed of the dice."""

    mtbf: float
    restart: float
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """What became of a run. Times are in seconds.

    Attributes:
        wall: from the beginning to the end.
        failures: how often it was interrupted.
        stalls: in all.
        again: what was computed again.
        restarts: in all.

    """

    wall: float
    failures: int
    stalls: float
    again: float
    restarts: float

    @property
    def waste(self) -> float:
        """The share of the time that was no progress."""
        return (self.stalls + self.again + self.restarts) / self.wall


def run(wanted: float, interval: float, cost: Save, failing: Failing) -> Run:
    """Train for so many seconds of progress, saving behind the training every ``interval``; failures as they come.

    A failure goes back to the newest save that was committed by then. Failures come at random, also in a restart.
    """
    dice = random.Random(failing.seed)  # noqa: S311 - repeatable is what is wanted
    wall = stalls = again = restarts = done = committed = 0.0
    failures = 0
    under_way: list[tuple[float, float]] = []  # when each save will be committed, and what progress it holds
    next_failure = dice.expovariate(1 / failing.mtbf)
    while done < wanted:
        step = min(interval, wanted - done)
        stall = cost.stall if done + step < wanted else 0.0
        if next_failure >= wall + step + stall:
            under_way.append((wall + step + cost.commit, done + step))
            wall, done, stalls = wall + step + stall, done + step, stalls + stall
            continue
        committed = max([committed, *(progress for time, progress in under_way if time <= next_failure)])
        trained = min(step, next_failure - wall)
        again += done + trained - committed
        stalls += next_failure - wall - trained
        done, under_way = committed, []
        ready = next_failure
        while next_failure <= ready:  # one that comes in a restart begins it anew
            failures += 1
            ready = next_failure + failing.restart
            next_failure += dice.expovariate(1 / failing.mtbf)
            restarts += min(ready, next_failure) - (ready - failing.restart)
        wall = ready
    return Run(wall, failures, stalls, again, restarts)


def around(cost: Save, failing: Failing, wanted: float) -> list[tuple[float, Run]]:
    """Throw runs at the interval of the formula and at others around it; each with the same failures."""
    right = optimal_interval(cost.stall, failing.mtbf, write=cost.commit)
    intervals = sorted({max(cost.commit, right * factor) for factor in (0.25, 0.5, 1.0, 2.0, 4.0, 16.0)})
    return [(each, run(wanted, each, cost, failing)) for each in intervals]


def sized(cluster: Cluster, ranks: int) -> Cluster:
    """Return the same machines, more or fewer of them."""
    return replace(cluster, ranks=ranks)
