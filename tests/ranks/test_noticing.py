"""What ranks say to each other arrives; who fails, dies or does something else is noticed by all, soon."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from holdfast.rank_meeting import Place, here, is_gone
from tests.ranks import jobs_noticing as jobs
from tests.support.ranks import run_ranks, start_ranks

BOUND = 8.0  # seconds: far below any timeout of torch's, far above what a noticed failure takes


def _values(run):
    return [outcome.value for outcome in run.wait(timeout=40)]


@pytest.mark.parametrize("store", ["file", "tcp"])
def test_what_is_said_arrives(store):
    """Every kind of call gives what it promises, for values that fit into one message and for those that do not."""
    for rank, told in enumerate(run_ranks(3, jobs.everything, store=store)):
        assert told == {
            "agree": ("rank 0", 0),
            "agree large": 50_001,
            "exchange": [0, 10, 20],
            "exchange large": [7, 1, 7],
            "gather": ["0", "1", "2"] if rank == 0 else [],
            "gather large": [50_001] * 3 if rank == 0 else [],
            "together": rank,
            "highest": [2, 5, -(2**40)],
            "behind": [0, 1, 2],
        }


def test_an_error_of_rank_0_is_one_on_all_and_they_go_on():
    """An error of ours arrives as it is, any other as one that names rank 0; the ranks are as good as before."""
    for rank, (told, after) in enumerate(run_ranks(2, jobs.an_error_of_rank_0)):
        assert told[0][::2] == ("SaveError", 28)
        if rank == 0:
            assert [name for name, _, _ in told[1:]] == ["ZeroDivisionError", "ValueError"]
        else:
            assert told[1][:2] == ("RankError", "rank 0 failed at a save: ZeroDivisionError: a bug")
            assert told[2][0] == "RankError"
            assert "ValueError" in told[2][1]
        assert after == [0, 1]


@pytest.mark.parametrize("who", [0, 1])
def test_what_fails_on_one_rank_is_an_error_on_all(who):
    """``together``: the rank itself raises its own error, the others one that names it and the cause."""
    outcomes = run_ranks(3, jobs.one_fails_together, who)
    for rank, (kind, text, after) in enumerate(outcomes):
        assert after == [0, 1, 2]
        if rank == who:
            assert (kind, text) == ("OSError", "rotten")
        else:
            assert (kind, text) == ("RankError", f"rank {who} failed at a resume: OSError: rotten")


@pytest.mark.parametrize(
    ("kind", "who", "how", "store"),
    [("agree", 0, "fail", "file"), ("gather", 1, "fail", "tcp"), ("exchange", 2, "kill", "file")],
)
def test_who_leaves_is_named_to_those_who_wait(kind, who, how, store):
    """A rank that fails or is killed is an error on all others, which names it; so is every later call."""
    with start_ranks(3, jobs.one_leaves, kind, who, how, store=store) as run:
        outcomes = run.wait(timeout=40)
    _check_left(outcomes, who, how)


@pytest.mark.long
@pytest.mark.parametrize("store", ["file", "tcp"])
@pytest.mark.parametrize("how", ["fail", "kill"])
@pytest.mark.parametrize("who", [0, 1, 2])
@pytest.mark.parametrize("kind", jobs.KINDS)
def test_whoever_leaves_is_named_whatever_the_others_wait_in(kind, who, how, store):
    """The same for every kind of call, every rank, and a store that dies with rank 0 or does not."""
    with start_ranks(3, jobs.one_leaves, kind, who, how, store=store) as run:
        outcomes = run.wait(timeout=40)
    _check_left(outcomes, who, how)


def _check_left(outcomes, who, how):
    for outcome in outcomes:
        if outcome.rank == who and how == "kill":
            assert outcome.signal == signal.SIGKILL
            continue
        assert outcome.ok, str(outcome)
        if outcome.rank == who:
            assert "no room on this GPU" in outcome.value[1]
            continue
        (rank, text, seconds), again = outcome.value
        assert rank == who, text
        assert f"rank {who} failed" in text
        assert ("MemoryError: no room on this GPU" if how == "fail" else "process") in text
        assert seconds < BOUND
        assert again[:2] == (rank, text)


def test_who_is_stopped_is_not_dead():
    """A rank that is stopped for three seconds amid another's wait is waited for; the call gives what it promises."""
    with start_ranks(3, jobs.one_is_slow, "exchange", 0.5) as run:
        run.heard(1, "busy")
        os.kill(run.pids[1], signal.SIGSTOP)
        time.sleep(3)
        os.kill(run.pids[1], signal.SIGCONT)
        assert [outcome.value for outcome in run.wait(timeout=30)] == [[0, 1, 2]] * 3


@pytest.mark.parametrize(
    ("kinds", "ats"),
    [
        (["agree", "agree"], ["step at 100", "train end at 99"]),
        (["agree", "agree"], ["train end at 99", "step at 100"]),
        (["exchange", "highest"], ["step at 7", "step at 7"]),
        (["highest", "gather"], ["", "wait at 8"]),
    ],
)
def test_ranks_that_come_apart_are_told_what_each_is_at(kinds, ats):
    """Ranks that call different things all get the same error, at once; it names what each was at."""
    outcomes = run_ranks(2, jobs.apart, kinds, ats)
    assert outcomes[0][0][:2] == outcomes[1][0][:2]
    for first, again in outcomes:
        rank, text, seconds = first
        assert (rank, seconds < BOUND) == (1, True)
        assert all(kind in text for kind in kinds)
        assert all(at in text for at in ats)
        assert again[:2] == (rank, text)


def _schedules(seeds):
    for seed in seeds:
        size = 2 + seed % 3
        draw = random.Random(seed)  # noqa: S311 - a schedule, no secret
        at, who, how = draw.randrange(20), draw.randrange(size), draw.choice(("fail", "kill", "apart"))
        with start_ranks(size, jobs.schedule, seed, size) as run:
            outcomes = run.wait(timeout=40)
        for outcome in outcomes:
            assert not outcome.late, (seed, str(outcome))
            if outcome.rank == who and how == "kill":
                continue
            number, rank, text = outcome.value
            assert number >= at, seed
            assert (rank, number < 40) == (who if how != "apart" or who else 1, True), (seed, how, text)


def test_random_schedules_end_on_all_ranks():
    """Whatever the ranks call, whoever fails at whatever moment: all others end with an error that names it."""
    _schedules(range(4))


@pytest.mark.long
def test_many_random_schedules_end_on_all_ranks():
    """The same, many times."""
    _schedules(range(4, 80))


def test_a_process_is_looked_at_by_its_number_and_its_beginning():
    """This process lives; another that got its number would not pass for it; one that has ended is gone."""
    mine = here()
    assert not is_gone(mine)
    assert is_gone(Place(mine.machine, mine.pid, "1", mine.name))
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert _until(lambda: is_gone(Place(mine.machine, child, mine.began, mine.name)))
    os.waitpid(child, 0)


def _until(condition):
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()
