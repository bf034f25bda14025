"""What a run's own retention does on its mirror besides the rules: names that are outlived, uploads that died."""

from __future__ import annotations

import os
import shutil
import time

from holdfast.front.mirror_keeping import MirrorRules
from holdfast.storage import open_store
from tests.front.loops import Loop
from tests.mirroring.makings import pin, save


def _names(place):
    return [blob.name for blob in open_store(place).blobs()]


def _epoch(loop, ckpt, epoch):
    for batch in loop.batches(epoch):
        loop.learn(batch)
        ckpt.step()
    ckpt.end_epoch()


def _now_at(bucket):
    """What the server says of an object that was just put."""
    probe = open_store(f"{bucket}-clock")
    probe.put("now", [b"x"])
    return probe.objects.head(probe.key("now")).modified


def test_what_a_signal_had_saved_goes_there_too(tmp_path, memory):
    """On the mirror, as here, what was saved at a signal goes with the next commit, if nobody resumed from it."""
    loop = Loop()
    with loop.checkpointer(tmp_path / "run", mirror=memory, save_top_k=-1) as ckpt:
        loop.learn(loop.batches(0)[0])
        ckpt.step()
        ckpt._save_for_signal()  # as at a signal that the process outlives
        assert ckpt.mirror.wait(timeout=60)
        assert [name for name in _names(memory) if "preempted" in name] == _names(tmp_path / "run")
        _epoch(loop, ckpt, 0)
    assert _names(memory) == _names(tmp_path / "run") == ["epoch=0-step=5.ckpt"]


def test_what_the_run_resumed_from_stays_there(tmp_path, memory):
    """A run that goes on from what a signal had saved keeps that, here and there, whatever comes after it."""
    loop = Loop()
    with loop.checkpointer(tmp_path / "run", mirror=memory) as ckpt:
        loop.learn(loop.batches(0)[0])
        ckpt.step()
        ckpt._save_for_signal()
    shutil.rmtree(tmp_path / "run")
    with loop.checkpointer(tmp_path / "run", mirror=memory) as ckpt:
        start = ckpt.resume()
        assert (start.tier, "preempted" in start.path) == ("mirror", True)
        for epoch in (0, 1):
            _epoch(loop, ckpt, epoch)
    kept = _names(tmp_path / "run")
    assert (os.path.basename(start.path) in kept, len(kept)) == (True, 2)
    assert _names(memory) == kept


def test_an_older_last_goes_there_too(local, memory):
    """Of a run whose ``last`` has had several names the newest stays, and what is pinned; another run's are left."""
    remote = open_store(memory)
    pinned = save(remote, "0-last.ckpt", role="last", sequence=1)
    pin(remote, pinned)
    for number in (1, 2, 3):
        save(remote, f"{number}-last.ckpt", role="last", sequence=1 + number)
    save(remote, "other-last.ckpt", role="last", sequence=1, run="theirs")
    save(remote, "other-newer.ckpt", role="last", sequence=2, run="theirs")
    gone = MirrorRules(local, remote, run=lambda: "run").apply()
    assert sorted(item.name for item in gone) == ["1-last.ckpt", "2-last.ckpt"]
    assert _names(memory) == ["0-last.ckpt", "3-last.ckpt", "other-last.ckpt", "other-newer.ckpt"]


def test_uploads_that_died_with_their_machine(tmp_path, bucket):
    """What a machine that is gone had begun to send is found and aborted by the next run that has the mirror."""
    remote = open_store(bucket)
    key = f"{remote.base}/epoch=9.ckpt"
    upload = remote.objects.begin(key)
    remote.objects.part(key, upload, 1, b"x" * (5 << 20))
    assert len(remote.leftovers()) == 1
    (begun,) = (one.begun for one in remote.objects.uploads(f"{remote.base}/"))
    while _now_at(bucket) <= begun:  # the server's clock is one of whole seconds
        time.sleep(0.05)
    loop = Loop()
    with loop.checkpointer(tmp_path / "run", mirror=bucket) as ckpt:
        _epoch(loop, ckpt, 0)
    assert remote.leftovers() == []
    assert _names(bucket) == _names(tmp_path / "run") == ["epoch=0-step=4.ckpt"]
