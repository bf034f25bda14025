"""The power of a real ext4 and a real xfs is cut before each call that changes them: what was promised is kept."""

from __future__ import annotations

import itertools
import os
import threading

import pytest

from holdfast.testing import power
from holdfast.testing.tracing import processes
from tests.crash import power_mutants as mutants
from tests.crash.counts import count
from tests.crash.disks import Disk, cut, why_not
from tests.crash.power_promises import Promises, assert_kept
from tests.crash.power_scenarios import SCENARIOS, scenario

CALLS = ("fsync", "rename", "link", "unlink", "mkdir", "rmdir", "pwrite", "write", "ftruncate")
CUT, THROUGH = 7, 0
MOST = 1000  # more calls than any scenario makes


@pytest.fixture(params=["ext4", "xfs"])
def disk(request, tmp_path_factory):
    reason = why_not(request.param, str(tmp_path_factory.mktemp("probe")))
    if reason:
        pytest.skip(reason)
    made = Disk(request.param, str(tmp_path_factory.mktemp("disk")))
    yield made
    made.unmount()


def run_until_cut(folder, marks, name, at, fault=None):
    """In a child: run a scenario, and cut the power before the ``at``-th call on its folder, or at its end."""
    os.environ[power._MARKS] = marks
    calls, lock = itertools.count(1), threading.Lock()

    def watched(real):
        def call(*arguments, **words):
            if _touches(folder, arguments[0]):
                with lock:  # and the other threads wait until all is over
                    if next(calls) == at:
                        cut(folder)
                        os._exit(CUT)
            return real(*arguments, **words)

        return call

    for call in CALLS:
        setattr(os, call, watched(getattr(os, call)))
    scenario(folder, name, fault)
    cut(folder)
    os._exit(THROUGH)


def _touches(folder, what):
    path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else os.fspath(what)
    return path.startswith(folder)


def survive(disk, tmp_path, name, at, fault=None):
    """Cut at one point, restart, and look; tell whether the scenario had come to its end."""
    folder, marks = disk.new_folder("disk"), tmp_path / f"marks-{at}"
    marks.touch()
    child = processes().Process(target=run_until_cut, args=(folder, str(marks), name, at, fault))
    child.start()
    child.join()
    disk.restart()
    assert child.exitcode in (CUT, THROUGH)
    promises = Promises.of(marks.read_text().splitlines())
    try:
        assert_kept(folder, promises, SCENARIOS[name][-1])
    except Exception as error:
        message = f"{error}\npower cut before call {at}; marks: {marks.read_text()}"
        raise AssertionError(message) from error
    return child.exitcode == THROUGH


def survive_all(disk, tmp_path, name, step=1):
    """Cut at every ``step``-th point, and at the end; return the number of cuts."""
    for number, at in enumerate(range(1, MOST, step), 1):
        if survive(disk, tmp_path, name, at):
            return number
    raise AssertionError("the scenario never came to its end")


def test_some_cuts(disk, tmp_path):
    """A first save in which the power goes at some of its calls, and right after it: kept, or never seen."""
    count("real power cuts", survive_all(disk, tmp_path, "first save", 4))


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_cut(disk, tmp_path, name):
    """The power goes before each single call of each scenario, and at its end."""
    count("real power cuts", survive_all(disk, tmp_path, name))


def test_without_syncs_a_cut_is_found_out(disk, tmp_path):
    """A saver whose fsync does nothing loses what it has acknowledged: the disks are real, and so is the cut."""
    with pytest.raises(AssertionError, match="power cut before"):
        survive(disk, tmp_path, "first save", MOST, mutants.no_sync_at_all)
    count("wrong savers found out by real power cuts")
