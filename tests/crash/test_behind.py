"""Killed, failing, ending and forking while saves are on their way behind the training's back."""

from __future__ import annotations

import errno
import os

import pytest

import holdfast
from tests.crash.harness import FAILED, assert_acknowledged, assert_sound, leftovers, steps, survey
from tests.crash.test_kill import KILLED, assert_finishes_as_if_nothing_had_happened
from tests.crash.training import BEHIND, EPOCHS
from tests.support.properties import FACTOR, chance

REST = 4  # one being written, and dropped ones whose blocks wait to be used or removed
CALLS = {"pwrite": 18, "write": 18, "fsync": 40, "rename": 20, "link": 3, "unlink": 4}
TRACED = {"pwrite64": 2, "write": 3, "fsync": 3, "rename": 2, "link": 1, "unlink": 1, "openat": 3, "futex": 9}
SLOW = {"call": "fsync", "do": "wait", "seconds": 0.06}


def assert_survived(folder, outcome, before):
    """What must hold after a crash, and that what was acknowledged is there."""
    assert_sound(folder, outcome, before, rest=REST)
    assert_acknowledged(folder, outcome)


def assert_goes_on(trainer, folder, words, whole):
    assert_finishes_as_if_nothing_had_happened(trainer, folder, words, whole, more=2)


@pytest.mark.parametrize("words", sorted(BEHIND))
def test_the_weights_are_those_without_checkpoints(trainer, tmp_path, words):
    """A save after every step, behind the training's back, changes no bit of the weights; all is committed."""
    done = trainer.run(tmp_path / "run", words)
    assert (done.code, done.digest) == (0, trainer.digests[words])
    assert leftovers(tmp_path / "run") == []
    assert max(steps(tmp_path / "run").values()) == done.acks[-1]["step"]


@pytest.mark.parametrize("words", sorted(BEHIND))
def test_killed_at_random_moments(trainer, tmp_path, whole, words):
    """SIGKILL at random moments, again and again: all is sound, what was told is there, the end is the same."""
    dice = chance(f"moments behind {words}")
    killed = 0
    for lap in range(2 * FACTOR):
        folder = tmp_path / str(lap)
        for _ in range(5):
            before = survey(folder)
            outcome = trainer.run(folder, words, kill_after=dice.uniform(0.005, 0.12))
            assert outcome.code in (0, KILLED)
            killed += outcome.code == KILLED
            assert_survived(folder, outcome, before)
        assert_goes_on(trainer, folder, words, whole)
    assert killed


def kill_at_calls(trainer, tmp_path, whole, words, count):
    dice = chance(f"calls behind {words}")
    killed = 0
    for lap in range(count):
        folder, before = tmp_path / str(lap), {}
        for _ in range(2):
            call = dice.choice(sorted(CALLS))
            fault = {"call": call, "do": "kill", "at": dice.randint(1, CALLS[call])}
            outcome = trainer.run(folder, words, fault=fault)
            assert outcome.code in (0, KILLED), outcome.acks
            killed += outcome.code == KILLED
            assert_survived(folder, outcome, before)
            before = survey(folder)
        assert_goes_on(trainer, folder, words, whole)
    assert killed >= count // 2


@pytest.mark.parametrize("words", sorted(BEHIND))
def test_killed_at_calls_of_any_thread(trainer, tmp_path, whole, words):
    """Killed right before the n-th write, fsync, rename, link or unlink of all threads, twice: all is sound."""
    kill_at_calls(trainer, tmp_path, whole, words, 4 * FACTOR)


@pytest.mark.long
@pytest.mark.parametrize("words", sorted(BEHIND))
def test_killed_at_very_many_calls_of_any_thread(trainer, tmp_path, whole, words):
    """The same at some hundred calls."""
    kill_at_calls(trainer, tmp_path, whole, words, 120)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("words", sorted(BEHIND))
def test_killed_at_system_calls_of_any_thread(trainer, tmp_path, whole, words):
    """Killed by the tracer at a system call of whichever thread comes to it first, from some step on: all is sound."""
    dice = chance(f"traced behind {words}")
    killed = 0
    for lap in range(4 * FACTOR):
        call = dice.choice(sorted(TRACED))
        inject = f"{call}:signal=KILL:when={dice.randint(1, TRACED[call])}"
        outcome = trainer.run(tmp_path / str(lap), words, inject=inject, hold=dice.randint(1, 15))
        assert outcome.code in (0, KILLED), outcome.acks
        killed += outcome.code == KILLED
        assert_survived(tmp_path / str(lap), outcome, {})
        assert_goes_on(trainer, tmp_path / str(lap), words, whole)
    assert killed


@pytest.mark.parametrize("words", sorted(BEHIND))
def test_killed_right_after_waiting(trainer, tmp_path, words):
    """A checkpoint for which ``wait`` has returned is there, whole, though the process is killed right then."""
    for count in (1, 2, 4):
        folder = tmp_path / str(count)
        given = {"words": words, "steps": count}
        outcome = trainer.run(folder, words, act="die after waiting", given=given)
        assert outcome.code == KILLED
        assert set(steps(folder).values()) == set(range(1, count + 1))
        path = folder / f"epoch=0-step={count}.ckpt"
        assert holdfast.verify(path).facts.step == holdfast.load(path)["global_step"] == count


ENDINGS = [("return", 0), ("exit", 5), ("raise", 1)]


@pytest.mark.parametrize(
    ("words", "how", "code"),
    [*(("overlap", *ending) for ending in ENDINGS), *((words, "return", 0) for words in sorted(BEHIND))],
)
def test_a_process_that_ends_commits_what_is_on_its_way(trainer, tmp_path, words, how, code):
    """Nobody closes or waits, and no optimizer step follows: the last save is committed before the process is gone."""
    given = {"words": words, "steps": 2, "how": how}
    outcome = trainer.run(tmp_path / "run", words, act="leave", given=given, fault=SLOW)
    assert outcome.code == code
    assert outcome.acks == [{"left": 2, "there": False}]
    assert steps(tmp_path / "run")["last.ckpt"] == 2
    assert holdfast.load(tmp_path / "run" / "epoch=0-step=2.ckpt")["global_step"] == 2
    assert leftovers(tmp_path / "run") == []


def fork(trainer, folder, words, how):
    outcome = trainer.run(folder, words, act="fork", given={"words": words, "how": how}, fault=SLOW)
    assert outcome.code == 0
    children = [ack for ack in outcome.acks if "forked" in ack]
    assert not all(ack["there"] for ack in children), "no child was forked amid a save"
    assert set(steps(folder).values()) == set(range(1, len(children) + 1))
    assert leftovers(folder) == []
    for item in range(1, len(children) + 1):
        holdfast.verify(folder / f"epoch=0-step={item}.ckpt")
    return [ack["forked"] for ack in children]


@pytest.mark.parametrize(
    ("words", "how"),
    [*((words, "looking") for words in sorted(BEHIND)), ("behind", "at once"), ("overlap", "properly")],
)
def test_a_fork_amid_a_save(trainer, tmp_path, words, how):
    """Children forked while a save is on its way end at once, commit nothing, and the parent's saves are whole."""
    assert fork(trainer, tmp_path / "run", words, how) == [0] * 2


@pytest.mark.parametrize("how", ["close", "with"])
def test_a_child_that_ends_as_its_parent_would(trainer, tmp_path, how):
    """A forked child that leaves the block, or closes, neither hangs nor commits: the saves are its parent's."""
    assert fork(trainer, tmp_path / "run", "behind", how) == [0] * 2


LONG = [pytest.param(*case, marks=pytest.mark.long) for case in (("zero-copy", "spawn"), ("everything", "fork"))]


@pytest.mark.parametrize(("words", "method"), [("behind", "fork"), ("zero-copy", "fork"), *LONG])
def test_loader_workers_amid_saves(trainer, tmp_path, words, method):
    """Worker processes start, load and end while saves are on their way: the weights and the files are right."""
    plain = trainer.run(tmp_path / "without", words, act="load without", given={"words": words})
    outcome = trainer.run(tmp_path / "run", words, act="load", given={"words": words, "method": method})
    assert outcome.code == 0
    assert outcome.digest == plain.digest
    assert outcome.acks[-1]["process"] == 0
    assert outcome.acks[-1]["saves"] == 24
    assert_sound(tmp_path / "run", outcome, {})
    assert leftovers(tmp_path / "run") == []


FAULTS = [
    ("pwrite", "ENOSPC"),
    ("pwrite", "EIO"),
    ("write", "ENOSPC"),
    ("fsync", "EIO"),
    ("rename", "EACCES"),
    ("link", "EIO"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("words", sorted(BEHIND))
def test_a_call_that_fails_stops_the_training(trainer, tmp_path, whole, words, fault):
    """A call that fails on a save's thread is a SaveError on the training's, with the path and the number."""
    (call, error), folder = fault, tmp_path / "run"
    at = chance(f"{words} {fault}").randint(2, 3 if call == "link" else 9)
    outcome = trainer.run(folder, words, fault={"call": call, "do": error, "at": at})
    assert outcome.code == FAILED, outcome.acks
    assert outcome.error["errno"] == getattr(errno, error)
    assert os.path.dirname(outcome.error["path"]) == str(folder)
    assert outcome.error["path"] in outcome.error["error"]
    assert outcome.acks[-2]["step"] < EPOCHS * 4, "the error came only at the very end"
    assert_survived(folder, outcome, {})
    assert leftovers(folder) == []
    assert_goes_on(trainer, folder, words, whole)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("words", sorted(BEHIND))
@pytest.mark.filterwarnings("ignore")
def test_a_call_that_fails_may_be_warned_of(trainer, tmp_path, words, fault):
    """With ``on_error="warn"`` training goes on to the same weights, and later saves are committed."""
    (call, error), folder = fault, tmp_path / "run"
    given = {"on_error": "warn", "save_top_k": -1}
    at = chance(f"{words} {fault}").randint(2, 9)
    outcome = trainer.run(folder, words, fault={"call": call, "do": error, "at": at}, given=given)
    assert (outcome.code, outcome.digest) == (0, trainer.digests[words])
    assert_survived(folder, outcome, {})
    assert leftovers(folder) == []
    there = set(steps(folder).values())
    missing = set(range(1, EPOCHS * 4 + 1)) - there
    assert len(missing) == 1 if call in ("pwrite", "write") else len(missing) <= 1  # or the second name failed
    assert EPOCHS * 4 in there


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.filterwarnings("ignore")
def test_a_disk_that_never_works(trainer, tmp_path, call):
    """With ``on_error="warn"`` training ends with its weights though no save ever succeeds, and leaves nothing."""
    given = {"on_error": "warn", "max_failures": 1000}
    fault = {"call": call, "do": "EIO"}
    outcome = trainer.run(tmp_path / "run", "everything", fault=fault, given=given)
    assert (outcome.code, outcome.digest) == (0, trainer.digests["everything"])
    folder = tmp_path / "run"
    assert steps(folder) == {}
    assert not folder.exists() or leftovers(folder) == []


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("inject", ["pwrite64:error=ENOSPC", "fsync:error=EIO", "rename:error=EIO"])
def test_a_system_call_that_fails_in_a_thread(trainer, tmp_path, whole, inject):
    """A system call that really fails, in whichever thread, from some step on, is the SaveError of a later call."""
    folder = tmp_path / "run"
    outcome = trainer.run(folder, "behind", inject=f"{inject}:when=1", hold=6)
    assert outcome.code == FAILED, outcome.acks
    assert errno.errorcode[outcome.error["errno"]] == inject.partition("=")[2]
    assert str(folder) in outcome.error["error"]
    assert 6 <= outcome.acks[-2].get("step", 6) < EPOCHS * 4
    assert_survived(folder, outcome, {})
    assert steps(folder)
    assert_goes_on(trainer, folder, "behind", whole)
