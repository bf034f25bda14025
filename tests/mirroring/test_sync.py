"""``holdfast.sync`` and ``holdfast sync``: all checkpoints of a directory at another place, as often as one likes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading

import pytest

import holdfast
from holdfast import CheckpointNotFoundError, ConfigurationError, DirectoryInUseError, Latest, sync
from holdfast.cli import main
from holdfast.mirroring import reading_ahead
from holdfast.source import BlobSource
from holdfast.storage import open_store
from holdfast.storage.remote.connect import wrapping
from holdfast.storage.remote.failures import answered
from holdfast.testing import CountingObjects
from tests.mirroring.makings import all_whole, content, link, pin, save
from tests.support.running import PYTHONPATH


def a_run(local, count=3):
    """Some checkpoints, the newest with a second name."""
    for number in range(count):
        save(local, f"{number}.ckpt", seed=number)
    link(local, f"{count - 1}.ckpt", "last.ckpt")


def test_all_that_is_here_is_there(local, anywhere):
    """A sync brings every checkpoint, once; the same again does nothing; all of it is whole by every digest."""
    a_run(local)
    done = sync(local.root, anywhere)
    assert (len(done.copied), len(done.linked), done.problems) == (3, 1, ())
    assert content(open_store(anywhere)) == content(local)
    again = sync(local.root, anywhere)
    assert (again.copied, again.linked, again.size) == ((), (), 0)
    assert len(again.skipped) == len(all_whole(anywhere)) == 4


def test_from_one_url_to_another_and_back(local, memory, bucket, tmp_path):
    """Directories and URLs are all the same to it: through two servers and back, bit for bit."""
    a_run(local)
    sync(local.root, bucket)
    sync(bucket, memory)
    sync(memory, tmp_path / "back")
    assert content(open_store(tmp_path / "back")) == content(local)


def test_one_server_copies_by_itself(local, bucket):
    """From one prefix of a server to another no byte is sent: what was read and found right the server copies."""
    a_run(local)
    sync(local.root, bucket)
    counted = []

    def count(inner):
        counted.append(CountingObjects(inner))
        return counted[-1]

    with wrapping(count):
        assert len(sync(bucket, f"{bucket}-other").copied) == 3
        data = bytearray(local.read("0.ckpt", 0, 10**6))
        data[200] ^= 1
        open_store(bucket).put("0.ckpt", [bytes(data)])
        assert sync(bucket, f"{bucket}-more").problems[0][0] == "0.ckpt"
    assert sum(one.sent for one in counted) < local.size("0.ckpt") + 10_000  # claims, and what was spoilt
    assert content(open_store(f"{bucket}-other")) == content(local)
    assert all_whole(f"{bucket}-more") == ["1.ckpt", "2.ckpt", "last.ckpt"]


def test_ranges_from_a_url_are_under_way_side_by_side(local, memory, tmp_path, monkeypatch):
    """What comes from a URL is asked for in several ranges at a time, and arrives in its order."""
    save(local, size=200_000)
    sync(local.root, memory)
    monkeypatch.setattr(reading_ahead, "_RANGE", 1 << 16)
    read, met, seen = BlobSource.read, threading.Barrier(2), []

    def meeting(self, offset, length):
        if length == 1 << 16 and offset < 2 << 16 and offset not in seen:
            seen.append(offset)
            met.wait(60)
        return read(self, offset, length)

    monkeypatch.setattr(BlobSource, "read", meeting)
    assert sync(memory, tmp_path / "back").copied == ("x.ckpt",)
    assert sorted(seen) == [0, 1 << 16]
    assert content(open_store(tmp_path / "back")) == content(local)


def test_rules_decide_what_is_there(local, memory):
    """With rules only what they keep is brought there, what they no longer keep goes, and a pin stays."""
    known = [save(local, f"{number}.ckpt", seed=number) for number in range(4)]
    pin(local, known[0])
    first = sync(local.root, memory, keep=Latest(1))
    assert (set(first.copied), set(first.left_out), first.removed) == ({"0.ckpt", "3.ckpt"}, {"1.ckpt", "2.ckpt"}, ())
    save(local, "4.ckpt", seed=4)
    second = sync(local.root, memory, keep=Latest(1))
    assert (second.copied, second.removed) == (("4.ckpt",), ("3.ckpt",))
    assert sync(local.root, memory, keep=Latest(1)).size == 0
    assert sorted(all_whole(memory)) == ["0.ckpt", "4.ckpt"]


def test_a_dry_run_changes_nothing(local, memory):
    """A dry run says what would be sent and removed, and does neither."""
    a_run(local, 1)
    sync(local.root, memory)
    before = content(open_store(memory))
    save(local, "9.ckpt", seed=9)
    done = sync(local.root, memory, keep=Latest(1), dry_run=True)
    assert done.copied == ("9.ckpt",)
    assert content(open_store(memory)) == before


def test_one_damaged_does_not_keep_the_others(local, memory):
    """What is damaged is named and left out; the others are there."""
    a_run(local, 2)
    data = bytearray(local.read("0.ckpt", 0, 10**6))
    data[200] ^= 1
    local.put("0.ckpt", [bytes(data)])
    done = sync(local.root, memory)
    assert [name for name, _ in done.problems] == ["0.ckpt"]
    assert "0.ckpt" not in all_whole(memory)


class Forgetful:
    """A server that does not take one of several."""

    error = answered(404, "NoSuchUpload", "it does not exist", "upload_part")  # to the next part of one it gave up

    def __init__(self, objects):
        self._objects = objects

    def __getattr__(self, name):
        return getattr(self._objects, name)

    def put(self, key, data, **how):
        if key.endswith("/1.ckpt"):
            raise self.error
        return self._objects.put(key, data, **how)


def test_one_that_the_server_forgets_does_not_keep_the_others(local, memory):
    """An upload that is gone at the server is a problem of its checkpoint, with words; the next sync brings it."""
    a_run(local)
    with wrapping(Forgetful):
        done = sync(local.root, memory)
    assert ([name for name, _ in done.problems], len(done.copied)) == (["1.ckpt"], 2)
    assert "begins it anew" in done.problems[0][1]
    assert sync(local.root, memory).copied == ("1.ckpt",)


def test_one_of_a_kind_that_is_not_taken_does_not_keep_the_others(local, memory, monkeypatch):
    """What a store cannot hold, such as a sharded checkpoint, is a problem of that one; what a server says is none."""
    a_run(local)
    monkeypatch.setattr(Forgetful, "error", OSError(errno.ENOTSUP, "sharded checkpoints are not kept here"))
    with wrapping(Forgetful):
        assert [name for name, _ in sync(local.root, memory).problems] == ["1.ckpt"]
    monkeypatch.setattr(Forgetful, "error", PermissionError(errno.EACCES, "no"))
    with wrapping(Forgetful), pytest.raises(PermissionError):
        sync(local.root, memory)


def test_files_without_a_manifest_come_along(local, memory):
    """A checkpoint that another program wrote is brought there, and recognized by its bytes."""
    local.put("plain.ckpt", [b"what torch wrote before it wrote zips"])
    assert sync(local.root, memory).copied == ("plain.ckpt",)
    assert sync(local.root, memory).skipped == ("plain.ckpt",)
    local.put("plain.ckpt", [b"what torch wrote before it wrote zipS"])
    assert len(sync(local.root, memory).problems) == 1
    assert sync(local.root, memory, force=True).copied == ("plain.ckpt",)
    assert content(open_store(memory)) == content(local)


def test_progress_counts_all_bytes(local, memory):
    """Progress adds up to the bytes of the source, whether they were sent or there."""
    a_run(local)
    total = sum(item.size for item in holdfast.catalog(local.root))
    for _ in range(2):
        seen = []
        sync(local.root, memory, progress=seen.append)
        assert sum(seen) == total


@pytest.mark.parametrize("words", [{"bandwidth": 0}, {"workers": 0}, {"keep": 3}])
def test_wrong_words_are_refused(local, memory, words):
    """A wrong argument is an error that names it, and nothing is sent."""
    a_run(local, 1)
    with pytest.raises(ConfigurationError):
        sync(local.root, memory, **words)
    assert content(open_store(memory)) == {}


def test_places_that_are_not_apart(local):
    """A directory is not brought into itself, and one that is not there is an error."""
    a_run(local, 1)
    for target in (local.root, os.path.join(local.root, "x")):
        with pytest.raises(ConfigurationError, match="apart"):
            sync(local.root, target)
    with pytest.raises(CheckpointNotFoundError):
        sync(os.path.join(local.root, "nothing"), os.path.join(local.root, os.pardir, "y"))


def test_the_command(local, memory, capsys):
    """The command says what became of all, in words and as JSON, with the exit codes of the others."""
    a_run(local, 2)
    assert main(["sync", local.root, memory, "--dry-run"]) == 0
    assert "would be sent" in capsys.readouterr().out
    assert main(["sync", local.root, memory, "--bandwidth", "500MB/s"]) == 0
    assert capsys.readouterr().out.startswith("2 sent (")
    assert main(["sync", local.root, memory, "--json", "--keep", "Latest(1)"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["removed"], done["problems"], sorted(done["skipped"])) == (["0.ckpt"], [], ["1.ckpt", "last.ckpt"])
    assert main(["sync", local.root, memory, "--bandwidth", "fast"]) == 2
    assert main(["sync", local.root + "x", memory]) == 3
    local.put("1.ckpt", [b"PK\x03\x04" + b"x" * 100])
    assert main(["sync", local.root, memory]) == 1
    assert "NOT THERE" in capsys.readouterr().out


_HOLDER = """
import sys
from holdfast.storage import open_store, own_place
owner = own_place(open_store(sys.argv[1]), run="theirs", since="")
print("held", flush=True)
sys.stdin.readline()
owner.give_up()
"""


@pytest.mark.parametrize("place", ["bucket", "folder"])
def test_a_target_has_one_who_brings(local, place, s3, tmp_path, request):
    """While another process has the target, nothing is brought there, and that is told; then it is brought."""
    target = str(tmp_path / "there") if place == "folder" else request.getfixturevalue("bucket")
    a_run(local, 1)
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **s3.environment()}
    command = [sys.executable, "-c", _HOLDER, target]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DirectoryInUseError, match=f"process {holder.pid} on host"):
            sync(local.root, target)
        assert open_store(target).blobs() == []
        assert sync(local.root, target, dry_run=True).copied
        holder.communicate("\n")
    assert sync(local.root, target).problems == ()
    assert content(open_store(target)) == content(local)
    assert open_store(target).hidden(".holdfast-claims") == []
