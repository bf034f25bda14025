"""Uploads that were cut off: what the server has is not sent again, and what nobody goes on with is given up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from holdfast import sync
from holdfast.mirroring import GONE, Carrier, Mirror
from holdfast.mirroring.sending import way_to
from holdfast.storage import open_store
from holdfast.storage.options import remember
from holdfast.storage.remote.connect import wrapping
from holdfast.storage.remote.pace import Pace
from holdfast.testing import CountingObjects
from tests.front.loops import Loop
from tests.mirroring.makings import PART, CutError, all_whole, content, save, unfinished
from tests.support.running import PYTHONPATH

pytestmark = pytest.mark.usefixtures("small_parts")

FLOATS = 5 * PART // 4 + 1000  # so that there are six parts
TICKETS = ".holdfast-mirror"


def _cut_at(objects, number):
    """Have the part of a number, and what comes after it, fail."""

    def before(kind, part):
        if kind == "part" and part >= number:
            raise CutError

    objects.before = before


def _carry(local, remote, name="x.ckpt", **words):
    """Carry it as a process does that is new to both."""
    carrier = Carrier(local, way_to(remote, local, workers=1, **words))
    try:
        carrier.tidy()
        return carrier.carry(name)
    finally:
        carrier.close()


def _cut_off(local, remote, objects, number=4):
    """Begin an upload that ends before the part of a number."""
    _cut_at(objects, number)
    with pytest.raises(CutError):
        _carry(local, remote)
    objects.before = lambda kind, part: None
    assert len(objects.underway) == 1
    objects.calls[:] = [("before", 0)] * len(objects.calls)  # as many: uploads are named by their place


def test_only_the_missing_parts_are_sent(local, remote, objects):
    """After a cut the next process sends the parts that the server lacks, no other, and leaves nothing behind."""
    save(local, size=FLOATS)
    _cut_off(local, remote, objects)
    assert content(remote) == {}
    _carry(local, remote)
    assert len(objects.named("part")) == 3
    assert content(remote) == content(local)
    assert unfinished(local) == []


def test_another_content_begins_anew(local, remote, objects):
    """The parts of an older file of the name are not used for a newer one: they are given up."""
    save(local, size=FLOATS)
    _cut_off(local, remote, objects)
    save(local, size=FLOATS, seed=1)
    _carry(local, remote)
    assert (len(objects.named("part")), objects.underway) == (6, {})
    assert content(remote) == content(local)


def test_parts_that_are_not_the_files_are_not_used(local, remote, objects):
    """A part that the server has, with the tag that was noted, and that is not what the file holds, is sent again."""
    save(local, size=FLOATS)
    _cut_off(local, remote, objects)
    (name,) = os.listdir(local.path(TICKETS))
    path = local.path(f"{TICKETS}/{name}")
    with open(path) as file:
        text = file.read()
    crcs = text[text.index('"crcs"') :]
    first = crcs.split(":")[2].split(",")[0]
    with open(path, "w") as file:
        file.write(text.replace(f":{first},", f":{int(first) ^ 1},"))
    _carry(local, remote)
    assert content(remote) == content(local)
    assert objects.underway == {}


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"holdfast_mirror": 1, "etags": {"x": 1}}', b"\xff" * 99], ids=range(5)
)
def test_a_damaged_note_costs_an_upload(local, remote, objects, damage):
    """A note that cannot be read is as none: the upload begins anew, and what arrives is right."""
    save(local, size=FLOATS)
    _cut_off(local, remote, objects)
    (name,) = os.listdir(local.path(TICKETS))
    local.put(f"{TICKETS}/{name}", [damage])
    _carry(local, remote)
    assert len(objects.named("part")) == 6
    assert content(remote) == content(local)


def test_an_upload_that_the_server_forgot(local, remote, objects):
    """Where the server has the upload no more it begins anew."""
    save(local, size=FLOATS)
    _cut_off(local, remote, objects)
    objects.underway.clear()
    _carry(local, remote)
    assert content(remote) == content(local)


def test_the_file_goes_while_it_is_sent(local, remote, objects):
    """A checkpoint that is removed in the middle of its upload is no error; its upload is aborted."""
    save(local, size=FLOATS)

    def before(kind, part):
        if part == 3:
            local.remove("x.ckpt")

    objects.before = before
    assert _carry(local, remote).how == GONE
    assert (objects.underway, objects.kept, unfinished(local)) == ({}, {}, [])


def test_the_file_goes_before_the_next_start(local, remote, objects):
    """The upload of a checkpoint that is gone by the next start is aborted then."""
    save(local, size=FLOATS)
    _cut_off(local, remote, objects)
    local.remove("x.ckpt")
    save(local, "y.ckpt")
    _carry(local, remote, "y.ckpt")
    assert (objects.underway, list(content(remote))) == ({}, ["y.ckpt"])


def test_damage_that_comes_while_it_is_cut_off(local, remote, objects):
    """A file that goes bad between two tries is not committed, and its upload is aborted."""
    save(local, size=FLOATS)
    _cut_off(local, remote, objects)
    with open(local.path("x.ckpt"), "r+b") as file:
        file.seek(5 * PART)
        file.write(b"\0\1\2\3")
    with pytest.raises(Exception, match="damaged"):
        _carry(local, remote)
    assert (objects.underway, objects.kept) == ({}, {})


def test_two_processes_at_once(local, remote, objects):
    """Who comes while another process has the notes does without them, and touches nothing of the other's upload."""
    save(local, size=FLOATS)
    _cut_off(local, remote, objects)
    other = way_to(remote, local).tickets
    assert other.own()
    _carry(local, remote)
    assert len(objects.named("part")) == 6
    assert len(objects.underway) == 1
    other.give_up()
    _carry(local, remote)
    assert objects.underway == {}


def test_a_bandwidth_is_kept(local, remote, objects, monkeypatch):
    """With a bandwidth the pace is asked for every byte that is sent, at most by the slice."""
    save(local, size=FLOATS)
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    made = lambda rate: Pace(rate, now=lambda: now[0], sleep=sleep)  # noqa: E731 - a clock that is told
    monkeypatch.setattr("holdfast.storage.remote.pace.Pace", made)
    _carry(local, remote, bandwidth=1e6)
    assert now[0] == pytest.approx(local.size("x.ckpt") / 1e6)


_SYNC = """
import sys
from holdfast import sync
from holdfast.storage.remote import parts, uploading
parts.PART = uploading.PART = 1 << 20
sync(sys.argv[1], sys.argv[2], bandwidth=2e7, workers=1)
"""
_LEAST = 5 << 20  # bytes of a part on a real server
_CLAIM = 10_000  # bytes that say whose the target is, at most


def _noted(local):
    """The numbers of the parts that are noted."""
    try:
        names = os.listdir(local.path(TICKETS))
        notes = [local.read(f"{TICKETS}/{name}", 0, 1 << 16) for name in names if name.endswith(".json")]
    except OSError:
        return []
    return [number for note in notes for number in json.loads(note)["etags"]]


def test_killed_in_mid_upload(local, bucket, s3):
    """``kill -9`` in the middle of a file: the next sync sends to the real server what that lacks, and all is whole."""
    save(local, size=4 * _LEAST // 4 + 1000)
    command = [sys.executable, "-c", _SYNC, local.root, bucket]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **s3.environment()}
    with subprocess.Popen(command, env=environment) as process:
        while not _noted(local) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    noted = _noted(local)
    assert (process.returncode < 0, bool(noted)) == (True, True)
    assert open_store(bucket).blobs() == []
    counted = []

    def count(inner):
        counted.append(CountingObjects(inner))
        return counted[-1]

    with wrapping(count):
        sync(local.root, bucket)
    sent = sum(one.sent for one in counted)
    assert 0 < sent <= local.size("x.ckpt") - len(noted) * _LEAST + _CLAIM
    assert all_whole(bucket) == ["x.ckpt"]
    assert content(open_store(bucket)) == content(local)


@pytest.mark.long
def test_the_server_is_killed_in_mid_upload(local, own_s3):
    """A server that is killed under an upload and comes back gets the rest: told once, and again when it works."""
    url = f"{own_s3.url('run')}"
    remember(url, {"patience": 1})
    save(local, size=4 * _LEAST // 4 + 1000)
    mirror = Mirror(local, open_store(url), bandwidth=1e7, workers=1)
    mirror.offer("x.ckpt")
    while not _noted(local):
        time.sleep(0.01)
    own_s3.kill()
    while not mirror.status.failures:
        time.sleep(0.05)
    own_s3.start()
    assert mirror.close(wait=True).settled
    told = mirror.poll()
    assert ["does not take" in told[0], "works again" in told[1]] == [True, True]
    assert len(told) == 2
    assert all_whole(url) == ["x.ckpt"]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*mirror.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*not yet on.*:UserWarning")
def test_the_server_is_killed_under_a_training(tmp_path, own_s3, monkeypatch):
    """While the server is dead a run trains and saves as ever; once it is back it gets all, and all of it is whole."""
    monkeypatch.setattr("holdfast.mirroring.mirror.PAUSES", (0.05,))
    url, words = own_s3.url("run"), {"save_top_k": -1, "save_last": True}
    plain = Loop()
    plain.run(plain.checkpointer(tmp_path / "plain", **words), 4)
    expected = plain.state()
    loop = Loop()
    ckpt = loop.checkpointer(tmp_path / "run", mirror=url, **words)
    for epoch in range(4):
        for batch in loop.batches(epoch):
            loop.learn(batch)
            ckpt.step()
        ckpt.end_epoch()
        if epoch == 1:
            assert ckpt.mirror.wait(timeout=60)
            own_s3.kill()
        if epoch == 2:
            ckpt.wait()
            while not ckpt.mirror.status.failures:
                time.sleep(0.01)
    assert len(ckpt.mirror.status.queued) + bool(ckpt.mirror.status.under_way) > 0
    own_s3.start()
    ckpt.close()
    assert loop.state() == expected
    assert content(open_store(url)) == content(open_store(tmp_path / "run"))
    assert all_whole(url) == [*(f"epoch={epoch}-step={4 * epoch + 4}.ckpt" for epoch in range(4)), "last.ckpt"]
