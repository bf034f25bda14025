"""The harness itself: several ranks as forked processes."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
import torch.distributed as dist

from holdfast.errors import RankError
from tests.support.ranks import RankFailed, await_word, run_ranks, start_ranks, tell


def total(number):
    tensor = torch.tensor([number + dist.get_rank()])
    dist.all_reduce(tensor)
    return int(tensor), os.environ["RANK"], os.getcwd()


def fails(rank):
    if dist.get_rank() == rank:
        raise RankError("no more", rank=rank)
    return "fine"


def unpicklable():
    return lambda: None


def leaves():
    os._exit(0)


def hangs():
    tell("hanging")
    if dist.get_rank() == 1:
        dist.barrier()
    else:
        time.sleep(60)


def waits():
    tell("waiting")
    await_word("go")
    return "went"


def no_group():
    return dist.is_initialized(), os.environ["FLAVOUR"]


@pytest.mark.parametrize("store", ["file", "tcp"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_talk_to_each_other_and_give_their_values_back(tmp_path, size, store):
    """Each rank is a member of one gloo group, runs where the test runs, and its value comes back in rank order."""
    expected = sum(5 + rank for rank in range(size))
    assert run_ranks(size, total, 5, store=store) == [(expected, str(rank), str(tmp_path)) for rank in range(size)]


def test_a_rank_that_raises_is_named_with_its_own_error():
    """A rank's exception comes back as it was raised, with its traceback, beside the values of the others."""
    with pytest.raises(RankFailed, match="no more") as caught:
        run_ranks(2, fails, 1)
    first, second = caught.value.outcomes
    assert (first.value, first.ok) == ("fine", True)
    assert isinstance(second.error, RankError)
    assert "in fails" in second.traceback


@pytest.mark.parametrize("job", [unpicklable, leaves])
def test_a_rank_that_hands_nothing_back_is_no_success(job):
    """A value that cannot be pickled, and a process that ends before its job, are failures and not None."""
    with pytest.raises(RankFailed):
        run_ranks(1, job)


def test_a_killed_rank_is_told_by_its_signal():
    """The outcome of a rank that was killed names the signal, and the other rank goes on to its end."""
    with start_ranks(2, waits) as run:
        assert run.heard(0, "waiting")
        assert run.heard(1, "waiting")
        run.kill(1)
        while run.alive(1):
            time.sleep(0.01)
        run.say("go")
        first, second = run.wait(timeout=30)
    assert first.value == "went"
    assert (second.signal, second.ok) == (signal.SIGKILL, False)


def test_ranks_that_hang_are_ended_and_say_where_they_hung():
    """After the time is over every rank is ended, even a stopped one, and the error shows the stacks of the others."""
    with start_ranks(3, hangs) as run:
        assert all(run.heard(rank, "hanging") for rank in range(3))
        run.kill(2, signal.SIGSTOP)
        with pytest.raises(RankFailed, match="in barrier"):
            run.results(timeout=0.5)
        assert not any(run.alive(rank) for rank in range(3))


def test_nothing_is_left_of_ranks_that_nobody_waited_for():
    """Leaving the handle kills what still runs, and removes its folder."""
    with start_ranks(2, waits) as run:
        assert run.heard(1, "waiting")
    assert not os.path.exists(run.folder)
    for pid in run.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_job_may_join_by_itself_in_an_environment_of_its_own():
    """With store=None there is no group, and each rank has the variables that the test gave it."""
    flavours = run_ranks(2, no_group, store=None, env=lambda rank: {"FLAVOUR": f"of {rank}"})
    assert flavours == [(False, "of 0"), (False, "of 1")]


def test_a_job_that_cannot_be_imported_says_so():
    """An order for a module that is not there is an error of the call, and the zygote goes on."""
    with pytest.raises(RuntimeError, match="no_such_module"):
        start_ranks(2, "tests.no_such_module:job")
    assert run_ranks(1, total, 1)[0][0] == 1
