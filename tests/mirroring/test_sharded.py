"""Sharded checkpoints on their way to a mirror: file by file, going on where they were cut off, committed as one."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from holdfast import verify
from holdfast.mirroring import COPIED, GONE, SKIPPED, Carrier, Mirror
from holdfast.mirroring.sending import way_to
from holdfast.storage import open_store
from holdfast.storage.remote import bundles
from tests.mirroring.makings import PART, CutError, content, unfinished
from tests.support.shards import damage, save_sharded, shard_of

pytestmark = pytest.mark.usefixtures("small_parts")

ROWS = 5 * PART // 12  # of three floats: so that each of two ranks has a file of three parts
NAME = "x.ckpt"


def _save(local, name=NAME, seed=0, ranks=2):
    random = torch.Generator().manual_seed(seed)
    tensors = {"state_dict.weight": torch.rand(ROWS, 3, generator=random), "global_step": seed}
    return save_sharded(local.path(name), tensors, ranks, own_names=True, step=seed)


def _carry(local, remote, name=NAME):
    """Carry it as a process does that is new to both."""
    for mark in list(bundles._living):
        bundles.end(mark)
    carrier = Carrier(local, way_to(remote, local, workers=1))
    try:
        carrier.tidy()
        return carrier.carry(name)
    finally:
        carrier.close()


def _cut_off(local, remote, objects, number):
    """Begin to send it; what comes after so many parts fails."""
    sent = []

    def before(kind, part):
        if kind == "part":
            sent.append(part)
        if len(sent) > number:
            raise CutError

    objects.before = before
    with pytest.raises(CutError):
        _carry(local, remote)
    objects.before = lambda kind, part: None
    assert remote.blobs() == []
    objects.calls[:] = [("before", 0)] * len(objects.calls)  # as many: uploads are named by their place


def test_only_what_is_missing_is_sent(local, remote, objects):
    """Cut off in its second file, the next process sends neither the first file nor the parts that are there."""
    _save(local)
    _cut_off(local, remote, objects, 4)
    assert (len(objects.kept), len(objects.underway)) == (1, 1)
    assert _carry(local, remote).how == COPIED
    assert len(objects.named("part")) == 2
    assert (objects.underway, unfinished(local)) == ({}, [])
    (there,) = remote.blobs()
    assert (there.name, there.bundle, _files(remote)) == (NAME, True, _files(local))
    assert _carry(local, remote).how == SKIPPED


def _files(store):
    """The bytes of each file of the checkpoint."""
    found = store.files(NAME)
    return {blob.name: store.read(f"{NAME}/{blob.name}", 0, blob.size) for blob in found}


def test_a_file_that_became_another_is_sent_again(local, remote, objects):
    """A file that is not any more as it was when it had arrived is sent again: what is committed is right."""
    _save(local)
    _cut_off(local, remote, objects, 4)
    (key,) = objects.kept
    objects.kept[key] = b"?" * len(objects.kept[key])
    _carry(local, remote)
    assert _files(remote) == _files(local)


def test_gone_before_the_next_start(local, remote, objects):
    """Of a checkpoint that is gone by the next start nothing stays on the server: no file, no upload, no note."""
    _save(local)
    _cut_off(local, remote, objects, 4)
    shutil.rmtree(local.path(NAME))
    assert _carry(local, remote).how == GONE
    assert (objects.kept, objects.underway, unfinished(local)) == ({}, {}, [])


def test_gone_in_the_middle(local, remote, objects):
    """Of a checkpoint that retention removes while it is sent nothing stays on the server, and that is no error."""
    _save(local)

    def before(kind, part):
        if kind == "complete":
            local.remove(NAME)

    objects.before = before
    assert _carry(local, remote).how == GONE
    assert (objects.kept, objects.underway, unfinished(local)) == ({}, {}, [])


def test_another_content_begins_anew(local, remote, objects):
    """What was sent of an older save of the name is given up for the newer one, and its files go."""
    _save(local)
    _cut_off(local, remote, objects, 4)
    local.remove(NAME)
    _save(local, seed=1)
    assert _carry(local, remote).how == COPIED
    assert (len(objects.named("part")), objects.underway) == (6, {})
    assert _files(remote) == _files(local)
    assert unfinished(local) == []


def test_damage_is_never_mirrored(local, remote, objects):
    """A shard that has gone bad before it was sent is not committed there, and nothing of it stays."""
    path = _save(local)
    damage(path, os.path.basename(shard_of(path, 1)), offset=PART + 7)
    with pytest.raises(Exception, match="damaged"):
        _carry(local, remote)
    assert (objects.kept, objects.underway, unfinished(local)) == ({}, {}, [])


def test_what_failed_in_a_run_goes_on_in_it(local, remote, objects, monkeypatch):
    """A mirror that fails in the middle of a checkpoint is tried again, and goes on with what is there."""
    monkeypatch.setattr("holdfast.mirroring.mirror.PAUSES", (0.01,))
    _save(local)
    failing = [4]

    def before(kind, part):
        if kind == "part":
            failing[0] -= 1
            if failing[0] == -1:
                raise CutError

    objects.before = before
    mirror = Mirror(local, remote, workers=1)
    mirror.offer(NAME)
    assert mirror.close().settled
    assert len(objects.named("part")) == 7  # and one that failed
    assert _files(remote) == _files(local)


def test_to_every_kind_of_place_and_back(local, anywhere, tmp_path):
    """A sharded checkpoint is there as a whole, to the bit, and comes back so, to a folder as to a server."""
    _save(local)
    local.link(NAME, "last.ckpt")
    there, back = open_store(anywhere), open_store(tmp_path / "back")
    for one, other in ((local, there), (there, back)):
        carrier = Carrier(one, way_to(other, one))
        assert [carrier.carry(name).how for name in (NAME, "last.ckpt")] == [COPIED, "linked"]
        carrier.close()
        assert [blob.name for blob in other.blobs()] == ["last.ckpt", NAME]
        for name in ("last.ckpt", NAME):
            assert verify(other.path(name)).facts == verify(local.path(NAME)).facts
    assert _files(back) == _files(local)
    assert content(back) == content(local)
