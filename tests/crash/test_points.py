"""Killed, and failing, at every single system call of scenarios that do one thing each."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from holdfast.testing.kills import Forks, Point, can_trace
from tests.crash import promises
from tests.crash.counts import count
from tests.crash.promises import TRAIN, assert_finished, assert_goes_on, assert_kept
from tests.crash.scenarios import SCENARIOS
from tests.support.properties import FACTOR, chance

KILLED = -9
TRIES = 6
PARTS = 4
WRITES = ("write", "pwrite64", "writev", "pwritev")
SPACE = ("ENOSPC", "EDQUOT")
FULL = ("ENOSPC", "EDQUOT", "EIO")
ERRORS = {
    **dict.fromkeys(WRITES, (*FULL, "EINTR", "short")),
    "copy_file_range": FULL,
    "sendfile": FULL,
    "open": ("EIO", "EINTR", "ENOSPC"),
    "openat": ("EIO", "EINTR", "ENOSPC"),
    "mkdir": FULL,
    "read": ("EIO", "EINTR"),
    "pread64": ("EIO", "EINTR"),
    "getdents64": ("EIO",),
    "fsync": (*FULL, "EINTR"),
    "fdatasync": (*FULL, "EINTR"),
    "ftruncate": ("EIO", "ENOSPC"),
    "fallocate": ("EIO", "ENOSPC", "EINTR"),
    "rename": FULL,
    "link": FULL,
    "unlink": ("EIO",),
    "rmdir": ("EIO",),
    "flock": ("EINTR", "EIO"),
    "close": ("EIO",),
}


@pytest.fixture(scope="module")
def forks():
    if not can_trace():
        pytest.skip("this machine lets no process trace its children")
    with Forks("tests.crash.scenarios", warm="tests.crash.scenarios:warm") as made:
        yield made


@pytest.fixture(scope="module")
def expected(forks, tmp_path_factory):
    known = {}

    def of(name):
        if name not in known:
            known[name] = promises.learn_what_to_expect(forks, name, str(tmp_path_factory.mktemp("expected")))
        return known[name]

    return of


def strike(forks, place, name, expected, *, at, do):
    """Strike fresh runs at a call until one comes to it: how many calls there are may differ with threads."""
    for lap in range(TRIES):
        folder = os.path.join(place, f"run-{lap}")
        promises.copy_folder(expected.start, folder)
        ended = forks.run(TRAIN, folder, name, watch=folder, at=at, do=do)
        if ended.reached:
            return folder, ended
        assert_finished(folder, name, ended, expected)
        shutil.rmtree(folder)
    return None, None


def kill(forks, place, name, expected, *, at, do="kill"):
    """Kill a run at a call; judge what is left; let it go on. Return whether the call was reached."""
    folder, ended = strike(forks, place, name, expected, at=at, do=do)
    if folder is None:
        count("kill points not reached")
        return False
    assert ended.code == KILLED
    assert_kept(folder, name, ended, expected)
    assert_goes_on(forks, folder, name, expected)
    shutil.rmtree(folder)
    count("kill points" if do == "kill" else "torn writes")
    return True


def fail(forks, place, name, expected, *, at, error):
    """Let a call fail: the run goes on to the same end, or an error of ours comes out, and the next run goes on."""
    folder, ended = strike(forks, place, name, expected, at=at, do=error)
    if folder is None:
        count("failing calls not reached")
        return False
    if ended.code == 0:
        assert_finished(folder, name, ended, expected, lost=1, left=1)
    else:
        assert ended.code == 1, f"ended with {ended.code}"
        assert error not in ("EINTR", "short"), f"{error} is no failure, but {ended.raised} came out"
        assert_told(ended, folder, error)
        assert_never_synced_again(ended, at, error)
        assert_kept(folder, name, ended, expected)
        assert_goes_on(forks, folder, name, expected, lost=SCENARIOS[name].words.get("images", 1))
    shutil.rmtree(folder)
    count("failing calls")
    return True


def assert_told(ended, folder, error):
    """What came out says what failed, and where."""
    told = ended.raised
    assert told["raised"] in ("SaveError", "LoadError", "OSError"), told
    assert told["raised"] != "OSError" or not any("acknowledged" in item for item in ended.said), told
    assert told["errno"] in (None, getattr(errno, error)), told
    assert folder in told["message"], told


def assert_never_synced_again(ended, point, error):
    """A file whose fsync has failed is not synced again: the kernel would say that it is safe, and it is not."""
    if point.call not in ("fsync", "fdatasync") or error == "EINTR":
        return
    syncs = [item for item in ended.points if item.call == point.call]
    failed = syncs[point.number - 1].path
    if os.path.basename(failed).startswith(".holdfast-"):
        assert failed not in [item.path for item in syncs[point.number :]]


def failures(points):
    """Every call with each error that it can have."""
    found = [(point, error) for point in points for error in ERRORS.get(point.call, ())]
    return [(point, error) for point, error in found if _can_be(point, error)]


def _can_be(point, error):
    """Opening what is there already needs no space."""
    opens = point.call in ("open", "openat")
    return error != "ENOSPC" or not opens or os.path.basename(point.path).startswith(".holdfast-")


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_killed_at_some_calls(forks, tmp_path, expected, name):
    """Killed right before a few calls of each scenario, and amid a write: all is kept, and the run goes on."""
    dice, known = chance(f"points of {name}"), expected(name)
    for point in dice.sample(known.points, 2 * FACTOR):
        kill(forks, tmp_path, name, known, at=point)
    writes = [point for point in known.points if point.call in WRITES]
    kill(forks, tmp_path, name, known, at=dice.choice(writes), do="torn")


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_some_calls_fail(forks, tmp_path, expected, name):
    """A few calls of each scenario fail: what comes out is an error of ours or the right end, never a loss."""
    dice, known = chance(f"errors of {name}"), expected(name)
    for point, error in dice.sample(failures(known.points), 2 * FACTOR):
        fail(forks, tmp_path, name, known, at=point, error=error)


@pytest.mark.parametrize("number", [2, 7])
def test_a_wrong_saver_is_found_out(forks, tmp_path, expected, number):
    """These tests can fail: a saver that writes under the final name is caught by a kill amid a write."""
    name, folder = "last replacing", str(tmp_path / "run")
    ended = forks.run(f"{TRAIN}_in_place", folder, name, watch=folder, at=Point("write", number), do="torn")
    assert (ended.reached, ended.code) == (True, KILLED)
    with pytest.raises(AssertionError, match="is listed and damaged"):
        assert_kept(folder, name, ended, expected(name))


CASES = [(name, part) for name in sorted(SCENARIOS) for part in range(PARTS)]


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_killed_at_every_call(forks, tmp_path, expected, case):
    """Killed right before each single call of a scenario: all is kept, and the run goes on to the same end."""
    name, part = case
    known = expected(name)
    chosen = known.points[part::PARTS]
    reached = [kill(forks, tmp_path, name, known, at=point) for point in chosen]
    assert sum(reached) >= 0.95 * len(chosen), "too many calls were not reached"


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_killed_amid_every_write(forks, tmp_path, expected, name):
    """Killed when half of a write's bytes have been written, at every write: the same."""
    known = expected(name)
    for point in known.points:
        if point.call in WRITES:
            kill(forks, tmp_path, name, known, at=point, do="torn")


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_call_fails(forks, tmp_path, expected, case):
    """Each call of a scenario fails once with each error that it can have: an error of ours or the right end."""
    name, part = case
    known = expected(name)
    for point, error in failures(known.points)[part::PARTS]:
        fail(forks, tmp_path, name, known, at=point, error=error)
