"""Whoever says something of a checkpoint may be killed, or fail, at any moment; and may not be the only one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

import holdfast
from holdfast import notes
from holdfast.front.noting import forget_all_gone
from holdfast.storage import open_store
from holdfast.testing.kills import READING, Forks, can_trace
from tests.notes.acts import NAME
from tests.support.files import save
from tests.support.properties import FACTOR, chance

ERRORS = ("ENOSPC", "EIO", "EACCES")
KILLED = -9


@pytest.fixture(scope="module")
def forks():
    if not can_trace():
        pytest.skip("this machine lets nobody trace")
    with Forks("tests.notes.acts") as made:
        yield made


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder with one checkpoint; and one in which it is tagged and pinned."""
    root = tmp_path_factory.mktemp("start")
    os.makedirs(root / "bare")
    save(root / "bare" / NAME)
    shutil.copytree(root / "bare", root / "pinned")
    holdfast.open(root / "pinned" / NAME).tag("paper").pin()
    return root


def assert_kept(folder, said):
    """What was acknowledged is there; what was not is there whole or not at all; nothing else is left after a sweep."""
    (checkpoint,) = holdfast.catalog(folder)
    assert checkpoint.damaged_notes == ()
    assert checkpoint.tags in (("paper",), ()) if "tagged" not in said else ("paper",)
    assert checkpoint.pinned >= ("pinned" in said)
    assert checkpoint.late_metrics in ({"acc": 0.5}, {}) if "scored" not in said else {"acc": 0.5}
    store = open_store(folder)
    store.sweep()
    assert store.leftovers() == []
    changes = len(checkpoint.tags) + checkpoint.pinned + len(checkpoint.late_metrics)
    assert len(store.hidden(notes.FOLDER)) == changes
    assert os.path.exists(os.path.join(folder, notes.FOLDER)) == bool(changes)
    again = holdfast.open(checkpoint).tag("paper", "after").pin()
    assert (set(again.tags), again.pinned) == ({"paper", "after"}, True)


FEW_OR_ALL = pytest.mark.parametrize("few", [10, pytest.param(0, marks=pytest.mark.long)], ids=["few", "all"])


def struck(forks, act, source, folder, few):
    """Calls of an act that touch its folder, other than those that only read: some by chance, or all of them."""
    shutil.copytree(source, folder)
    points = forks.points(f"tests.notes.acts:{act}", str(folder), watch=folder)
    writing = [point for point in points if point.call not in READING]
    assert len(writing) > 20
    return chance(act).sample(writing, few * FACTOR) if 0 < few * FACTOR < len(writing) else writing


@FEW_OR_ALL
def test_killed_at_its_calls(forks, start, tmp_path, few):
    """Killed right before system calls of a tag, a pin and a score, or amid it: a change is whole or not there."""
    points = struck(forks, "tag_and_pin", start / "bare", tmp_path / "whole", few)
    assert_kept(tmp_path / "whole", ("tagged", "pinned", "scored"))
    for at, point in enumerate(points):
        for do in ("kill", "torn") if "write" in point.call else ("kill",):
            folder = tmp_path / f"{at}-{do}"
            shutil.copytree(start / "bare", folder)
            ended = forks.run("tests.notes.acts:tag_and_pin", str(folder), watch=folder, at=point, do=do)
            assert (ended.reached, ended.code) == (True, KILLED)
            assert_kept(folder, ended.said)


@FEW_OR_ALL
def test_its_calls_fail(forks, start, tmp_path, few):
    """Calls fail, each with each error: what comes out is one of ours, and no change is half there."""
    points = struck(forks, "tag_and_pin", start / "bare", tmp_path / "whole", few)
    for at, point in enumerate(points):
        for error in ERRORS:
            folder = tmp_path / f"{at}-{error}"
            shutil.copytree(start / "bare", folder)
            ended = forks.run("tests.notes.acts:tag_and_pin", str(folder), watch=folder, at=point, do=error)
            assert ended.reached
            raised = ended.raised
            assert raised is None or raised["raised"] in ("SaveError", "CheckpointNotFoundError"), (
                point,
                error,
                raised,
            )
            assert_kept(folder, ended.said)


@FEW_OR_ALL
def test_killed_while_it_is_let_go(forks, start, tmp_path, few):
    """Killed between unpinning and forgetting: it is there with its notes, or gone, and then they go as well."""
    points = struck(forks, "unpin_and_let_go", start / "pinned", tmp_path / "whole", few)
    assert os.listdir(tmp_path / "whole") == []
    for at, point in enumerate(points):
        folder = tmp_path / str(at)
        shutil.copytree(start / "pinned", folder)
        ended = forks.run("tests.notes.acts:unpin_and_let_go", str(folder), watch=folder, at=point)
        assert (ended.reached, ended.code) == (True, KILLED)
        there = os.path.exists(folder / NAME)
        assert there or "unpinned" in ended.said
        if there:
            assert holdfast.open(folder / NAME).tags == ("paper",)
            continue
        store = open_store(folder)
        store.sweep()
        forget_all_gone(store)
        store.sweep()
        left = notes.known(store)
        # When only the pin was left to be forgotten, it looks as if people had taken the file away.
        assert all(notes.read_one(store, folders, key).pinned for key, folders in left.items())
        assert bool(left) == os.path.exists(folder / notes.FOLDER)


TAGGER = "import sys; from tests.notes.acts import tag_many; tag_many(sys.argv[1], sys.argv[2], int(sys.argv[3]))"


def test_several_at_once(tmp_path):
    """Processes that tag one checkpoint at the same time all succeed, and no tag of any of them is lost."""
    save(tmp_path / NAME)
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    path = os.pathsep.join([root, *filter(None, sys.path)])
    commands = [[sys.executable, "-c", TAGGER, str(tmp_path), who, "12"] for who in ("a", "b", "c")]
    others = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) for command in commands]
    assert [other.wait() for other in others] == [0, 0, 0]
    assert set(holdfast.open(tmp_path / NAME).tags) == {f"{who}-{at}" for who in "abc" for at in range(12)}


def test_several_begin_and_end_at_once(tmp_path):
    """Where one forgets what another is about to begin, nobody fails: the folder is made anew as often as it goes."""
    import threading

    store, errors = open_store(tmp_path), []

    def say(identity):
        try:
            for _ in range(60):
                notes.write(store, "", identity, notes.Change(pin=True))
                notes.forget(store, "", identity)
        except Exception as error:  # noqa: BLE001 - to be told by the test
            errors.append(error)

    threads = [threading.Thread(target=say, args=(f"{at:032x}",)) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(tmp_path) == []
