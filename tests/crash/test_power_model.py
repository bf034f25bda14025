"""What ``holdfast.testing.power`` makes of a few calls: the states that may follow, and no others."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading

import pytest

from holdfast.testing import power

pytestmark = pytest.mark.usefixtures("strace")
OLD, NEW = b"o" * 2048, b"n" * 2048


def write(path, data, flags=os.O_CREAT | os.O_WRONLY):
    descriptor = os.open(path, flags, 0o600)
    os.write(descriptor, data)
    return descriptor


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def seen(scenario, tmp_path, **how):
    """All that may be in the folder after the scenario's last mark, as sets of names and bytes."""
    states = list(power.record(scenario, tmp_path / "recorded").states(**how))
    end = states[-1].marks
    assert end, "the scenario says when it is over"
    return [
        {path: state.tree.contents[inode] for path, inode in state.tree.files} for state in states if state.marks == end
    ]


def not_synced(folder):
    os.close(write(f"{folder}/a", NEW))
    power.mark("over")


def test_data_that_are_not_synced(tmp_path):
    """They are there, not there, zeros, or half there in sectors; and so is the name of their file, or it is not."""
    found = seen(not_synced, tmp_path)
    half, zeros = NEW[:1024], bytes(1024)
    assert {} in found
    assert {state["a"] for state in found if state} == {NEW, b"", bytes(2048), half, zeros + half}


def synced_without_folder(folder):
    descriptor = write(f"{folder}/a", NEW)
    os.fsync(descriptor)
    power.mark("over")


def test_a_sync_of_a_file_says_nothing_of_its_name(tmp_path):
    """All of the bytes are there, or the file is not."""
    assert seen(synced_without_folder, tmp_path) == [{"a": NEW}, {}]


def all_synced(folder):
    synced_without_folder(folder)
    sync(folder)
    power.mark("over")


def test_what_is_synced_with_its_name_is_there(tmp_path):
    """There is one state: the whole."""
    assert seen(all_synced, tmp_path) == [{"a": NEW}]


def written_over(folder):
    all_synced(folder)
    descriptor = write(f"{folder}/a", OLD + OLD, os.O_WRONLY)
    os.ftruncate(descriptor, 512)
    power.mark("over at last")


def test_what_is_written_over(tmp_path):
    """Of bytes over synced ones, and of a length, each may be there alone."""
    found = {state["a"] for state in seen(written_over, tmp_path)}
    assert {NEW, OLD + OLD, NEW[:512], OLD[:512], NEW + bytes(2048)} <= found


def two_folders(folder):
    for name in ("one", "two"):
        os.mkdir(f"{folder}/{name}")
    sync(folder)
    os.close(write(f"{folder}/one/a", b"", os.O_CREAT | os.O_WRONLY))
    os.close(write(f"{folder}/one/b", b"", os.O_CREAT | os.O_WRONLY))
    os.close(write(f"{folder}/two/c", b"", os.O_CREAT | os.O_WRONLY))
    power.mark("over")


def test_names_in_order_and_in_any(tmp_path):
    """Names come in their order within a folder, in none among folders; and in none at all where that is asked for."""
    in_order = {frozenset(state) for state in seen(two_folders, tmp_path / "in order")}
    first = [set(), {"one/a"}, {"one/a", "one/b"}]
    assert in_order == {frozenset(names | more) for names in first for more in (set(), {"two/c"})}
    assert len({frozenset(state) for state in seen(two_folders, tmp_path / "any", any_order=True)}) == 8


def moved_between_folders(folder):
    for name in ("one", "two"):
        os.mkdir(f"{folder}/{name}")
    sync(folder)
    os.fsync(write(f"{folder}/one/a", NEW))
    sync(f"{folder}/one")
    os.rename(f"{folder}/one/a", f"{folder}/two/b")
    power.mark("over")


def test_a_rename_between_folders_is_one_step(tmp_path):
    """The file has the old name or the new one, never both or none."""
    assert seen(moved_between_folders, tmp_path) == [{"two/b": NEW}, {"one/a": NEW}]


def by_others(folder):
    descriptor = write(f"{folder}/a", OLD)
    thread = threading.Thread(target=os.write, args=(descriptor, NEW))
    thread.start()
    thread.join()
    code = "import os, sys; os.write(int(sys.argv[1]), b'end')"
    other = os.dup(descriptor)
    subprocess.run([sys.executable, "-c", code, str(other)], pass_fds=[other], check=True)
    os.sync()
    power.mark("over")


def test_threads_and_processes_are_followed(tmp_path):
    """A thread and a child process write on where the file's shared position stands; ``sync`` covers them all."""
    assert seen(by_others, tmp_path) == [{"a": OLD + NEW + b"end"}]


def linked(folder):
    os.fsync(write(f"{folder}/a", NEW))
    os.link(f"{folder}/a", f"{folder}/b")
    sync(folder)
    power.mark("over")


def test_two_names_are_one_file(tmp_path):
    """A state is written with its hard links, its folders, and nothing of what was there before."""
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "old").touch()
    last = list(power.record(linked, tmp_path / "recorded").states())[-1]
    last.write(tmp_path / "place")
    assert sorted(os.listdir(tmp_path / "place")) == ["a", "b"]
    assert os.path.samefile(tmp_path / "place" / "a", tmp_path / "place" / "b")


def mapped(folder):
    descriptor = write(f"{folder}/a", OLD, os.O_CREAT | os.O_RDWR)
    mmap.mmap(descriptor, 100)[:3] = b"new"


def linked_by_symbol(folder):
    os.symlink("a", f"{folder}/b")


@pytest.mark.parametrize("scenario", [mapped, linked_by_symbol])
def test_what_is_not_followed_is_refused(tmp_path, scenario):
    """Rather than miss a write, the recording is refused, with the call that is not known."""
    with pytest.raises(power.UnmodelledError, match="is not modelled"):
        power.record(scenario, tmp_path / "recorded")


def failing(folder):
    sys.exit(3)


def test_a_scenario_that_fails(tmp_path):
    """Its end is an error of the recording, not a recording of half of it."""
    with pytest.raises(RuntimeError, match="exit code 3"):
        power.record(failing, tmp_path / "recorded")
