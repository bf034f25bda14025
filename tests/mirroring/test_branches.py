"""A run that went back, and two machines with one mirror: what is resumed from, what is told, what stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch

import holdfast
from holdfast.storage import open_store
from tests.front.loops import Loop
from tests.mirroring.makings import all_whole, content
from tests.support.running import PYTHONPATH

ALL = {"save_top_k": -1}


def _names(place):
    return [blob.name for blob in open_store(place).blobs()]


def _trained(folder, epochs, *, path=None, resume=True, **words):
    """Go on, by the newest or by a path, to an epoch; return where it began."""
    loop = Loop()
    ckpt = loop.checkpointer(folder, **ALL, **words)
    start = ckpt.resume(path) if resume else None
    loop.run(ckpt, epochs, start=start)
    return start


def test_a_run_that_went_back(tmp_path, memory):
    """After a resume from an older one, what came after it counts as newest in both tiers, also on another machine."""
    _trained(tmp_path / "run", 4, mirror=memory)
    _trained(tmp_path / "run", 2, path=tmp_path / "run" / "epoch=0-step=4.ckpt", mirror=memory)
    newest = holdfast.catalog(tmp_path / "run").last()
    assert (newest.step, newest.name) == (8, "epoch=1-step=8-v1.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _trained(tmp_path / "run", 2, mirror=memory).step == 8
        shutil.rmtree(tmp_path / "run")
        start = _trained(tmp_path / "run", 3, mirror=memory)
    assert (start.step, start.tier, os.path.basename(start.path)) == (8, "mirror", newest.name)
    assert holdfast.catalog(memory).last().step == 12


def test_two_branches_that_did_not_know_of_each_other(tmp_path, memory):
    """Of a branch here and one there the further is taken, and the other is named, with what goes on from it."""
    folder = tmp_path / "run"
    _trained(folder, 4, mirror=memory)
    for name in _names(folder)[1:]:
        os.unlink(folder / name)  # an older copy of the directory, on a machine that does not reach the mirror
    _trained(folder, 3)
    branch = str(folder / "epoch=2-step=12.ckpt")
    with pytest.warns(UserWarning, match="a branch that had gone back saved later") as told:
        start = Loop().checkpointer(folder, mirror=memory, **ALL).resume()
    assert (start.step, start.tier, os.path.basename(start.path)) == (16, "mirror", "epoch=3-step=16.ckpt")
    assert any(f"resume({branch!r})" in str(one.message) for one in told)
    assert _trained(folder, 4, path=branch, mirror=memory).step == 12
    newest = holdfast.catalog(folder).last()
    assert (newest.step, newest.facts.resumed_from.step) == (16, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert os.path.samefile(Loop().checkpointer(folder, mirror=memory, **ALL).resume().path, newest.path)
    assert all_whole(folder) == _names(folder)


@pytest.mark.filterwarnings("ignore:.*(branch|not mirrored).*:UserWarning")
def test_a_branch_takes_no_names_of_the_other(tmp_path, memory):
    """What both branches have saved under one name stays on the mirror as it was there: neither is newer."""
    folder = tmp_path / "run"
    _trained(folder, 4, mirror=memory)
    before = content(open_store(memory))
    for name in _names(folder)[1:]:
        os.unlink(folder / name)
    loop = Loop()
    ckpt = loop.checkpointer(folder, **ALL)
    start = ckpt.resume()
    torch.nn.init.ones_(loop.model[0].weight)  # it goes another way
    loop.run(ckpt, 3, start=start)
    after = _trained(folder, 5, mirror=memory)
    assert (after.step, after.tier) == (16, "mirror")
    there = content(open_store(memory))
    assert {name: there[name] for name in before} == before
    assert "epoch=4-step=20.ckpt" in there


_HOLDER = """
import sys
from holdfast.storage import open_store
from tests.front.loops import Loop
loop = Loop()
ckpt = loop.checkpointer(sys.argv[1], mirror=sys.argv[2], save_top_k=-1)
for batch in loop.batches(0):
    loop.learn(batch)
    ckpt.step()
ckpt.end_epoch()
ckpt.wait()
assert ckpt.mirror.wait(timeout=60)
print("mirrored", flush=True)
sys.stdin.readline()
ckpt.close()
"""


@pytest.mark.long
def test_two_machines_with_one_mirror(tmp_path, bucket, s3):
    """While one run mirrors there another one is told whose it is and uploads nothing; trained it is all the same."""
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **s3.environment()}
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "one"), bucket]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as holder:
        assert holder.stdout.readline() == "mirrored\n"
        before = content(open_store(bucket))
        with pytest.warns(UserWarning, match="does not take") as told:
            _trained(tmp_path / "two", 2, resume=False, mirror=bucket, mirror_wait=1)
        text = " ".join(str(one.message) for one in told)
        assert f"process {holder.pid} on host" in text
        assert f"holdfast sync {tmp_path / 'two'} {bucket}" in text
        assert content(open_store(bucket)) == before
        assert _names(tmp_path / "two") == ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"]
        holder.communicate("\n")
    assert content(open_store(bucket)) == before
