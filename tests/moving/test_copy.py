"""Copies: whole or not there, read back, taken up again, and never over another file."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile

import fsspec
import pytest

import holdfast
from holdfast import notes
from holdfast.cli import main
from holdfast.errors import CheckpointNotFoundError, ConfigurationError, DamagedCheckpointError, SaveError
from holdfast.records import Change
from holdfast.source import BlobSource
from holdfast.storage import open_store, partial
from holdfast.storage.local import LocalStore
from holdfast.storage.locks import lock_for_life, unlock
from holdfast.testing.kills import Forks, can_trace
from tests.moving.acts import big_state, make_run, tree
from tests.support.files import content, listing, put, save


@pytest.fixture
def run(tmp_path):
    """A directory of runs, with a signature and a pin."""
    folder = tmp_path / "run"
    make_run(folder)
    put(folder / "a.ckpt.sig", b"a signature")
    store = open_store(folder)
    notes.write(store, "", notes.identity(holdfast.verify(folder / "a.ckpt").facts), Change(pin=True, tag=("paper",)))
    return folder


def damage(path):
    data = bytearray(content(path))
    data[len(data) // 2] ^= 1
    put(path, bytes(data))


def temporaries(folder):
    return [name for name in listing(folder) if name.endswith(".tmp")]


@pytest.fixture(params=["local", "file", "memory", "s3"])
def elsewhere(request, tmp_path):
    """A place to copy to, of each kind."""
    name = secrets.token_hex(4)
    if request.param == "s3":
        request.getfixturevalue("s3")
        yield f"s3://bucket/copy-{name}/run"
    elif request.param == "memory":
        yield f"memory://copy-{name}/run"
        fsspec.filesystem("memory").store.clear()
    else:
        yield ("file://" if request.param == "file" else "") + str(tmp_path / "elsewhere" / name)


def test_there_and_back(run, tmp_path, elsewhere):
    """A directory goes anywhere and comes back the same, notes and signatures too; a second time all is skipped."""
    there = holdfast.copy(run, elsewhere)
    assert len(there.copied) + len(there.linked) == len(tree(run))
    assert there.problems == ()
    back = holdfast.copy(elsewhere, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(run)
    assert back.size >= there.size
    again = holdfast.copy(run, elsewhere)
    assert (again.copied, again.linked, again.problems) == ((), (), ())
    assert len(again.skipped) == len(tree(run))


def test_names_of_one_file_stay_so(run, tmp_path):
    """A second name, hard or symbolic, is a second name at the target, and takes no space of its own."""
    os.symlink("a.ckpt", run / "link.ckpt")
    done = holdfast.copy(run, tmp_path / "copy")
    numbers = {os.stat(tmp_path / "copy" / name).st_ino for name in ("a.ckpt", "last.ckpt", "link.ckpt")}
    assert len(numbers) == 1
    assert sorted(map(os.path.basename, done.linked)) == ["last.ckpt", "link.ckpt"]


@pytest.mark.parametrize("target", ["copy/", "copy/b.ckpt", "memory://one-file/b.ckpt"])
def test_one_file_with_what_belongs_to_it(run, target):
    """One checkpoint is copied with its signature and what is noted of it, under its own name or another."""
    os.mkdir("copy")
    done = holdfast.copy(run / "a.ckpt", target)
    name = "a.ckpt" if target.endswith("/") else "b.ckpt"
    store = open_store(target.rstrip("/").removesuffix("/b.ckpt"))
    assert [blob.name for blob in store.blobs(5)] == [name, f"{name}.sig"]
    assert len(done.copied) == 3
    facts = holdfast.verify(store.path(name)).facts
    noted = notes.read(store).of(notes.identity(facts))
    assert (noted.pinned, noted.tags) == (True, ("paper",))


def test_what_is_damaged_is_not_copied(run, tmp_path):
    """A damaged checkpoint alone is an error; in a directory it is named, and keeps no other from being copied."""
    damage(run / "deep" / "b.ckpt")
    with pytest.raises(DamagedCheckpointError):
        holdfast.copy(run / "deep" / "b.ckpt", tmp_path / "b.ckpt")
    assert not (tmp_path / "b.ckpt").exists()
    put(run / "torn.ckpt", content(run / "a.ckpt")[:-50])
    done = holdfast.copy(run, tmp_path / "copy")
    assert [os.path.basename(path) for path, _ in done.problems] == ["b.ckpt", "torn.ckpt"]
    assert "data/0" in done.problems[0][1]
    expected = {name: data for name, data in tree(run).items() if name not in ("deep/b.ckpt", "torn.ckpt")}
    assert tree(tmp_path / "copy") == expected


def test_another_file_is_not_written_over(run, tmp_path):
    """A file that is there and is another stays, unless ``force``; the same gone bad is replaced."""
    target = tmp_path / "copy"
    other = content(save(tmp_path / "other.ckpt", step=9))
    os.mkdir(target)
    put(target / "a.ckpt", other)
    with pytest.raises(ConfigurationError, match=r"another file.*--force"):
        holdfast.copy(run / "a.ckpt", target)
    assert content(target / "a.ckpt") == other
    done = holdfast.copy(run, target)
    assert [os.path.basename(path) for path, _ in done.problems] == ["a.ckpt"]
    assert content(target / "a.ckpt") == other
    assert content(target / "last.ckpt") == content(run / "a.ckpt")
    assert holdfast.copy(run, target, force=True).problems == ()
    assert tree(target) == tree(run)
    damage(target / "deep" / "b.ckpt")
    assert [os.path.basename(path) for path in holdfast.copy(run, target).copied] == ["b.ckpt"]
    assert tree(target) == tree(run)


def test_what_is_no_file_is_named(run, tmp_path):
    """Links that lead nowhere or in a circle and pipes are named, and nothing waits for them."""
    os.symlink("nowhere", run / "dangling.ckpt")
    os.symlink("circle.ckpt", run / "circle.ckpt")
    os.mkfifo(run / "pipe.ckpt")
    os.symlink(run, run / "again")
    done = holdfast.copy(run, tmp_path / "copy")
    assert [os.path.basename(path) for path, _ in done.problems] == [
        "again",
        "circle.ckpt",
        "dangling.ckpt",
        "pipe.ckpt",
    ]
    with pytest.raises((CheckpointNotFoundError, OSError)):
        holdfast.copy(run / "pipe.ckpt", tmp_path / "pipe")


def test_not_into_itself(run):
    """A copy onto or into its own source is refused; so is one of nothing."""
    for target in (run, run / "deep" / "er"):
        with pytest.raises(ConfigurationError, match="into itself"):
            holdfast.copy(run, target)
    with pytest.raises(ConfigurationError, match="onto itself"):
        holdfast.copy(run / "a.ckpt", run / "a.ckpt")
    with pytest.raises(CheckpointNotFoundError):
        holdfast.copy(run / "nothing", run / "a")


@pytest.fixture
def parted(tmp_path, monkeypatch):
    """A checkpoint of several blocks in a remote store, and how many bytes of it are read from there."""
    monkeypatch.setattr(partial, "LARGE", 1 << 20)
    local = save(tmp_path / "source.ckpt", big_state())
    fs = fsspec.filesystem("memory")
    with fs.open("/parted/x.ckpt", "wb") as file:
        file.write(content(local))
    reads = []
    read = BlobSource.read

    def counted(self, offset, length):
        data = read(self, offset, length)
        reads.append(len(data))
        return data

    monkeypatch.setattr(BlobSource, "read", counted)
    yield "memory://parted/x.ckpt", content(local), reads
    fs.store.clear()


def stop_after(count):
    """What raises as Ctrl-C does once so many bytes have passed."""
    passed = 0

    def advance(done):
        nonlocal passed
        passed += done
        if passed >= count:
            raise KeyboardInterrupt

    return advance


def test_a_large_file_goes_on_where_it_stopped(parted, tmp_path):
    """What an interrupted copy has written of a checkpoint is not fetched again, and the result is the source."""
    source, data, reads = parted
    target = tmp_path / "there"
    os.mkdir(target)
    with pytest.raises(KeyboardInterrupt):
        holdfast.copy(source, target, progress=stop_after(9 << 20))
    assert len(temporaries(target)) == 1
    assert open_store(target).blobs() == []
    reads.clear()
    holdfast.copy(source, target)
    assert sum(reads) < len(data) - (4 << 20)
    assert content(target / "x.ckpt") == data
    assert listing(target) == ["x.ckpt"]


@pytest.mark.parametrize("change", ["flip", "zeros", "longer", "link"])
def test_nothing_of_an_earlier_try_is_trusted(parted, tmp_path, change):
    """A part that was damaged, or is not ours at all, never gets into the copy."""
    source, data, _ = parted
    target = tmp_path / "there"
    os.mkdir(target)
    with pytest.raises(KeyboardInterrupt):
        holdfast.copy(source, target, progress=stop_after(9 << 20))
    (name,) = temporaries(target)
    part = bytearray(content(target / name))
    if change == "flip":
        part[1 << 20] ^= 1
    elif change == "zeros":
        part = bytearray(len(part))
    elif change == "longer":
        part = bytearray(secrets.token_bytes(len(data) + 5000))
    else:
        put(tmp_path / "precious", b"precious")
        os.unlink(target / name)
        os.link(tmp_path / "precious", target / name)
        with pytest.raises(SaveError, match="something else stands"):
            holdfast.copy(source, target)
        assert content(tmp_path / "precious") == b"precious"
        return
    put(target / name, bytes(part))
    holdfast.copy(source, target)
    assert content(target / "x.ckpt") == data
    assert temporaries(target) == []


def test_two_copies_of_one_file(parted, tmp_path):
    """While one process writes a part, another is told so, and touches nothing."""
    source, data, _ = parted
    target = tmp_path / "there"
    os.mkdir(target)
    with pytest.raises(KeyboardInterrupt):
        holdfast.copy(source, target, progress=stop_after(5 << 20))
    (name,) = temporaries(target)
    descriptor = os.open(target / name, os.O_RDWR)
    assert lock_for_life(descriptor)
    before = content(target / name)
    with pytest.raises(SaveError, match="another process is writing it"):
        holdfast.copy(source, target)
    assert content(target / name) == before
    unlock(descriptor)
    os.close(descriptor)
    holdfast.copy(source, target)
    assert content(target / "x.ckpt") == data


def test_a_copy_is_read_back(run, tmp_path, monkeypatch):
    """If the disk gives back other bytes than were written, that is an error, and the copy does not stay."""
    honest = LocalStore.put

    def lying(self, name, chunks, **words):
        written = honest(self, name, chunks, **words)
        damage(self.path(name))
        return written

    monkeypatch.setattr(LocalStore, "put", lying)
    for name in ("a.ckpt", "config.yaml"):
        with pytest.raises(SaveError, match="did not read back"):
            holdfast.copy(run / name, tmp_path / "copy" / name)
    assert tree(tmp_path / "copy") == {}


@pytest.fixture(scope="module")
def forks():
    if not can_trace():
        pytest.skip("this machine lets no process trace its children")
    with Forks("tests.moving.acts", warm="tests.moving.acts:warm") as made:
        yield made


@pytest.mark.parametrize("tries", [8, pytest.param(10**6, marks=pytest.mark.long)], ids=["some", "all"])
def test_killed_anywhere(forks, tmp_path, tries):
    """Killed at any system call, the target has whole files only, and the same copy again completes it."""
    source, target = tmp_path / "source", tmp_path / "target"
    make_run(source)
    expected = tree(source)
    points = forks.points("tests.moving.acts:copy_run", str(source), str(tmp_path / "whole"), watch=tmp_path / "whole")
    assert tree(tmp_path / "whole") == expected
    writing = [point for point in points if point.call not in ("stat", "lstat", "newfstatat", "fstat", "getdents64")]
    assert len(writing) > 40
    for point in writing[:: max(1, len(writing) // tries)]:
        shutil.rmtree(target, ignore_errors=True)
        ended = forks.run("tests.moving.acts:copy_run", str(source), str(target), watch=target, at=point, do="kill")
        assert ended.reached
        assert tree(target).items() <= expected.items(), point
        assert forks.run("tests.moving.acts:copy_run", str(source), str(target)).code == 0
        assert tree(target) == expected, point
        assert os.path.samefile(target / "a.ckpt", target / "last.ckpt"), point


def test_the_command(run, tmp_path, capsys):
    """``cp`` says how much was copied, ends with 1 if something was not, and speaks JSON."""
    assert main(["cp", str(run), str(tmp_path / "copy")]) == 0
    assert "5 copied and read back" in capsys.readouterr().out
    put(tmp_path / "copy" / "config.yaml", b"other")
    assert main(["cp", str(run), str(tmp_path / "copy")]) == 1
    assert "NOT COPIED" in capsys.readouterr().out
    assert main(["cp", "--json", str(run), str(tmp_path / "copy")]) == 1
    assert '"problem": "another file of this name' in capsys.readouterr().out
    assert main(["cp", str(tmp_path / "nothing"), str(tmp_path / "copy")]) == 3


_AS_NOBODY = """
import contextlib, io, os, sys
from holdfast.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["cp", sys.argv[1], sys.argv[2]])  # all that is imported, while it may be read
os.setgid(65534)
os.setuid(65534)
sys.exit(main(["cp", sys.argv[1], sys.argv[3]]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_a_folder_that_may_not_be_read_keeps_nothing_else():
    """The command names a folder that this user may not read, and copies what lies beside it."""
    with tempfile.TemporaryDirectory() as place:  # not among pytest's own, which are closed to others
        os.chmod(place, 0o777)  # noqa: S103 - the other user is to read and to write here
        os.makedirs(f"{place}/runs/closed")
        save(f"{place}/runs/a.ckpt")
        os.chmod(f"{place}/runs/closed", 0)
        words = [sys.executable, "-c", _AS_NOBODY, *(f"{place}/{name}" for name in ("runs", "first", "second"))]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "")
        assert f"NOT COPIED  {place}/runs/closed: Permission denied" in done.stdout
        assert content(f"{place}/second/a.ckpt") == content(f"{place}/runs/a.ckpt")
