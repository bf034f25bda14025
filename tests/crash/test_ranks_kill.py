"""Several ranks train, and one of them, or all, are killed in the midst of a save; then others go on from there."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import holdfast
from holdfast.front.opening import checkpoints
from tests.crash import counts, rank_training
from tests.crash.rank_training import MODES, STEPS
from tests.support.properties import FACTOR, chance
from tests.support.ranks import run_ranks, start_ranks
from tests.support.running import PYTHONPATH, REPOSITORY

BOUND = 120  # seconds in which the survivors have to end, with an error: far more than they take at leisure
TRAINING = 10  # seconds that the training's own collectives wait for a dead rank: gloo's do not always notice
# How often, about, a rank makes such a call in each save.
CALLS = {"replicated": {"write": 1, "fsync": 2, "open": 2, "rename": 1}}
CALLS["sharded"] = CALLS["replicated"] | {"unlink": 1}
COLLECTIVES = {"agree": 2, "exchange": 1, "gather": 1, "highest": 1}
KINDS = ("replicated", "sharded")


@functools.cache
def expected(kind, size):
    """The digest after each step, of a run of that many ranks that saves nothing."""
    first, *others = run_ranks(size, rank_training.undisturbed, kind)
    assert all(other == first for other in others)
    return first


def said(acks, rank):
    path = os.path.join(acks, str(rank))
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file]


def hidden(folder):
    """What unfinished saves have left."""
    return sorted(name for name in os.listdir(folder) if name.startswith(".holdfast-") and name.endswith(".tmp"))


def assert_sound(folder, acknowledged):
    """What is listed is whole, what was acknowledged is there, and there is nothing else but what is hidden."""
    found = checkpoints(folder) if os.path.isdir(folder) else []
    for item in found:
        assert not item.problem, f"{item.name} is listed and damaged: {item.problem}"
        assert holdfast.verify(item.path).facts == item.facts
    names = {item.name for item in found}
    visible = {name for name in os.listdir(folder) if not name.startswith(".holdfast-")} if found else set()
    assert visible == names, "there is something that is no checkpoint and not hidden"
    newest = max((item.facts.step for item in found), default=0)
    assert newest >= acknowledged, f"step {acknowledged} was acknowledged, and {newest} is the newest there"
    return newest


def struck(dice, size, run, start):
    """Kill one rank or all at a random moment of a save: some time after a step, chosen by chance."""
    rank, step = dice.randrange(size), dice.randint(start + 1, STEPS)
    run.heard(rank, f"step{step}", timeout=BOUND)
    time.sleep(dice.uniform(0, 0.03))
    for victim in range(size) if dice.random() < 0.2 else (rank,):
        run.kill(victim)


def faulty(dice, kind, size, steps):
    """A fault for one rank: it is killed right before a call that touches the folder, or a collective of ours."""
    call = dice.choice([*CALLS[kind], *COLLECTIVES])
    others = call in COLLECTIVES or (kind == "sharded" and call not in {"rename", "unlink"})
    often = COLLECTIVES.get(call) or CALLS[kind][call]
    at = dice.randint(1, max(1, often * steps))
    return {"rank": dice.randrange(size) if others else 0, "call": call, "do": "kill", "at": at}


def killed_once(dice, folder, start, *, kind, mode, size):
    """Go on from that step, and be killed; returns whether it was, and the newest step that must be there now."""
    acks = f"{folder}-acks-{start}"
    os.makedirs(acks, exist_ok=True)
    fault = faulty(dice, kind, size, STEPS - start) if dice.random() < 0.7 else None
    given = (str(folder), kind, mode, acks, fault)
    with start_ranks(size, rank_training.train, *given, group_timeout=TRAINING) as run:
        if fault is None:
            struck(dice, size, run, start)
        outcomes = run.wait(BOUND)
    victims = [outcome for outcome in outcomes if outcome.signal == signal.SIGKILL and not outcome.late]
    for outcome in outcomes:
        assert not outcome.late, f"{fault}: a survivor waited for ever\n{outcome}"
        assert outcome.ok or outcome in victims or (victims and outcome.error is not None), f"{fault}\n{outcome}"
    told = [item for rank in range(size) for item in said(acks, rank)]
    return bool(victims), max((item["acknowledged"] for item in told if "acknowledged" in item), default=0)


def assert_goes_on(folder, kind, mode, size, newest):
    """Ranks that come after find the newest that is whole, bit for bit, and come to the right end."""
    acks = f"{folder}-acks-end"
    os.makedirs(acks)
    run_ranks(size, rank_training.train, str(folder), kind, mode, acks)
    for rank in range(size):
        first, *_, last = said(acks, rank)
        assert first["resumed"] == newest
        yield first["digest"], last["finished"]
    assert hidden(folder) == []
    assert_sound(folder, STEPS)


def kill_and_go_on(dice, folder, kind, laps):
    """Kill runs, each up to twice, and let others go on, now and then with another number of ranks."""
    killed = 0
    for lap in range(laps):
        mode, size, acknowledged, newest = dice.choice(sorted(MODES)), dice.randint(2, 4), 0, 0
        place = folder / f"{kind}-{lap}"
        for _ in range(dice.randint(1, 2)):
            if newest == STEPS:
                break
            died, told = killed_once(dice, place, newest, kind=kind, mode=mode, size=size)
            killed += died
            acknowledged = max(told, acknowledged)
            newest = assert_sound(place, acknowledged)
        others = size if dice.random() < 0.7 or newest == STEPS else dice.randint(1, 4)
        for loaded, finished in assert_goes_on(place, kind, mode, others, newest):
            assert loaded == (expected(kind, size)[newest] if newest else "")
            if others == size:
                assert finished == expected(kind, size)[STEPS]
    counts.count(f"runs of 2 to 4 ranks killed in a save ({kind})", killed)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_a_save(tmp_path, kind):
    """One rank or all are killed at a random call, collective or moment: the newest whole one is the next start."""
    kill_and_go_on(chance(f"ranks {kind}"), tmp_path, kind, FACTOR)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", range(4))
def test_killed_in_very_many_saves(tmp_path, kind, part):
    """The same in some hundred runs."""
    kill_and_go_on(chance(f"ranks {kind} {part}"), tmp_path, kind, 50)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", [{"rank": 0, "call": "fsync", "at": 12}, {"rank": 1, "call": "agree", "at": 7}])
def test_torchrun_starts_the_ranks_again_and_they_resume(tmp_path, kind, fault):
    """One rank is killed in the midst of a save; torchrun's --max-restarts is all it takes to the right end."""
    folder, acks = tmp_path / "run", tmp_path / "acks"
    acks.mkdir()
    words = [str(folder), kind, "waiting", str(acks), json.dumps({**fault, "do": "kill"})]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--monitor-interval", "0.1", "-m", "tests.crash.rank_training", *words]
    # torch 2.13: the ranks that are started again may find the addresses of those before in torchrun's own store.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH, "GLOO_SOCKET_IFNAME": "lo"}
    env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    ended = subprocess.run(
        command, cwd=REPOSITORY, env=env, timeout=120, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert ended.returncode == 0, ended.stdout.decode()[-4000:]
    for rank in range(2):
        first, *between, last = said(acks, rank)
        again = next(item for item in between if "resumed" in item)
        told = [item["acknowledged"] for item in between[: between.index(again)] if "acknowledged" in item]
        assert first["resumed"] == 0
        assert again["resumed"] >= max(told, default=0)
        assert again["digest"] == expected(kind, 2).get(again["resumed"], "")
        assert last["finished"] == expected(kind, 2)[STEPS]
    assert hidden(folder) == []
    assert_sound(folder, STEPS)
