"""Several ranks save in shards to a real server, and one of them, or all, are killed; then others go on from there."""

from __future__ import annotations

import os
import secrets
import signal
import time
from dataclasses import dataclass

import pytest

import holdfast
from holdfast.scanning import scan
from holdfast.storage import open_store
from tests.crash import counts, rank_training_there
from tests.crash.rank_training import MODES, STEPS
from tests.crash.test_ranks_kill import BOUND, TRAINING, expected, said
from tests.support.properties import chance
from tests.support.ranks import run_ranks, start_ranks

REQUESTS = {0: 6, 1: 1}  # that a rank makes, about, in each save: rank 0, which commits, and any other
KIND = "sharded"

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def assert_sound(url, acknowledged):
    """What is listed is whole, and what was acknowledged is there; return the newest step."""
    found = scan(open_store(url))
    for item in found:
        assert not item.problem, f"{item.name} is listed and damaged: {item.problem}"
        assert holdfast.verify(item.path).facts == item.facts
    newest = max((item.facts.step for item in found), default=0)
    assert newest >= acknowledged, f"step {acknowledged} was acknowledged, and {newest} is the newest there"
    return newest


@dataclass
class Run:
    """A run to a bucket, of so many ranks and steps."""

    s3: object
    url: str
    mode: str
    size: int
    steps: int
    all: bool = False  # whether all ranks are killed, whenever: those that are left wait for the dead, for seconds

    @property
    def words(self):
        return {"mode": self.mode, "steps": self.steps}


def killed_once(dice, its, acks, start):
    """Go on from that step, and be killed; returns whether it was, and the newest step that must be there now."""
    os.makedirs(acks, exist_ok=True)
    fault, size = None, its.size
    if not its.all and dice.random() < 0.75:
        rank, changes = dice.randrange(size), dice.random() < 0.8
        most = REQUESTS[min(rank, 1)] * (its.steps - start) * (1 if changes else 2)
        fault = {"rank": rank, "at": dice.randint(1, most), "after": dice.random() < 0.5, "changes": changes}
    given = (its.s3.options, its.url, its.words, str(acks), fault)
    with start_ranks(size, rank_training_there.train, *given, group_timeout=TRAINING) as run:
        if fault is None:
            run.heard(0, f"step{dice.randint(start + 1, its.steps)}", timeout=BOUND)
            time.sleep(dice.uniform(0, 0.1))
            for victim in range(size) if its.all or dice.random() < 0.5 else (dice.randrange(size),):
                run.kill(victim)
        outcomes = run.wait(BOUND)
    victims = [outcome for outcome in outcomes if outcome.signal == signal.SIGKILL and not outcome.late]
    for outcome in outcomes:
        assert not outcome.late, f"{fault}: a survivor waited for ever\n{outcome}"
        assert outcome.ok or outcome in victims or (victims and outcome.error is not None), f"{fault}\n{outcome}"
    told = [item for rank in range(size) for item in said(acks, rank)]
    return bool(victims), max((item["acknowledged"] for item in told if "acknowledged" in item), default=0)


def kill_and_go_on(dice, s3, folder, laps, **sample):
    """Kill runs, each up to twice, and let others go on, now and then with another number of ranks."""
    killed = 0
    for lap in range(laps):
        newest, size, mode = 0, 2 if sample else dice.randint(2, 3), dice.choice(sorted(MODES))
        url = s3.url(f"killed-{secrets.token_hex(4)}")
        its = Run(s3, url, mode, size, **{"steps": STEPS, **sample})
        for turn in range(dice.randint(1, 2)):
            if newest < its.steps:
                died, told = killed_once(dice, its, folder / f"{lap}-{turn}", newest)
                killed += died
                newest = assert_sound(url, told)
        acks = folder / f"{lap}-end"
        acks.mkdir()
        others = size if dice.random() < 0.7 or newest == its.steps else dice.randint(1, 3)
        run_ranks(others, rank_training_there.train, s3.options, url, its.words, str(acks))
        for rank in range(others):
            first, *_, last = said(acks, rank)
            assert first["resumed"] == newest
            assert first["digest"] == (expected(KIND, size)[newest] if newest else "")
            if others == size:
                assert last["finished"] == expected(KIND, size)[its.steps]
        assert_sound(url, its.steps)
        assert open_store(url).leftovers(9) == []
    counts.count("runs of 2 and 3 ranks killed in a save to an object store", killed)


def test_killed_in_a_save_there(s3, tmp_path):
    """Both ranks are killed at a random moment of a save: others go on from the newest whole one, to the bit."""
    kill_and_go_on(chance("ranks there"), s3, tmp_path, 1, steps=2, all=True)


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_killed_in_very_many_saves_there(s3, tmp_path, part):
    """The same in many runs."""
    kill_and_go_on(chance(f"ranks there {part}"), s3, tmp_path, 20)
