"""Fetching from a mirror: cut off, with a full disk, with damage on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from holdfast import LoadError, verify
from holdfast.mirroring import reading_ahead
from holdfast.source import BlobSource
from holdfast.storage import open_store, partial
from holdfast.storage.remote.connect import wrapping
from holdfast.testing import CountingObjects
from tests.front.loops import Loop
from tests.mirroring.makings import all_whole
from tests.support.running import PYTHONPATH, everything

_BLOCK = 1 << 22
_FETCHER = """
import sys, time
from holdfast.mirroring import reading_ahead
from holdfast.source import BlobSource
from holdfast.storage import partial
from tests.front.loops import Loop
partial.LARGE = 1 << 20
reading_ahead._RANGE, reading_ahead._AHEAD = 1 << 20, 1
read = BlobSource.read
def slowly(self, offset, length):
    time.sleep(0.05 if length > 1 << 18 else 0)
    return read(self, offset, length)
BlobSource.read = slowly
loop = Loop()
loop.model.register_buffer("ballast", __import__("torch").rand(4_000_000))
print("begun", flush=True)
loop.checkpointer(sys.argv[1], mirror=sys.argv[2]).resume()
print("resumed", flush=True)
"""


def _loop():
    loop = Loop()
    loop.model.register_buffer("ballast", torch.rand(4_000_000))  # 16 MB
    return loop


def _saved_there(folder, url):
    """Save one checkpoint, on another machine; return it as the mirror has it."""
    with _loop().checkpointer(folder, mirror=url, every_n_train_steps=1) as ckpt:
        ckpt.step()
    (whole,) = (blob for blob in open_store(url).blobs())
    return whole


def test_cut_off_in_mid_download(tmp_path, memory, monkeypatch):
    """Where the network fails in mid-download the run does not begin, and the next start fetches the rest alone."""
    whole, here = _saved_there(tmp_path / "lost", memory), tmp_path / "here"
    monkeypatch.setattr(partial, "LARGE", 1 << 20)
    monkeypatch.setattr(reading_ahead, "_RANGE", 1 << 20)
    read, cut, got = BlobSource.read, [True], []

    def failing(self, offset, length):
        if cut[0] and length > 1 << 18 and offset >= 2 * _BLOCK:
            raise ConnectionError("no route to host")
        data = read(self, offset, length)
        got.append(len(data) if not self.store.is_local else 0)
        return data

    monkeypatch.setattr(BlobSource, "read", failing)
    with _loop().checkpointer(here, mirror=memory) as ckpt, pytest.raises(LoadError, match="no route to host"):
        ckpt.resume()
    cut[0], come = False, _come(here)
    assert come >= 2 * _BLOCK
    got.clear()
    with _loop().checkpointer(here, mirror=memory) as ckpt:
        assert ckpt.resume().step == 1
    assert sum(got) <= whole.size - come + (1 << 18)
    assert all_whole(here) == [whole.name]


@pytest.mark.long
def test_killed_in_mid_download(tmp_path, bucket, s3, monkeypatch):
    """``kill -9`` in the middle of a download: the next start fetches the rest alone, and what it has is verified."""
    whole, here = _saved_there(tmp_path / "lost", bucket), tmp_path / "here"
    command = [sys.executable, "-c", _FETCHER, str(here), bucket]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **s3.environment()}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        while _come(here) < 2 * _BLOCK and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    come = _come(here)
    assert (process.returncode < 0, come >= 2 * _BLOCK, open_store(here).blobs()) == (True, True, [])
    monkeypatch.setattr(partial, "LARGE", 1 << 20)
    counted = []

    def count(inner):
        counted.append(CountingObjects(inner))
        return counted[-1]

    with wrapping(count), _loop().checkpointer(here, mirror=bucket) as ckpt:
        start = ckpt.resume()
        assert (start.step, start.tier, os.path.basename(start.path)) == (1, "mirror", whole.name)
    got = sum(one.received for one in counted)
    assert whole.size - come <= got <= whole.size - come + _BLOCK + (1 << 18)
    assert verify(start.path).facts.step == 1
    assert all_whole(here) == [whole.name]
    assert not [name for name in everything(here) if name.endswith(".tmp")]


def _come(folder):
    """How many bytes of the download have come."""
    try:
        return sum(item.stat().st_size for item in os.scandir(folder) if item.name.endswith(".tmp"))
    except OSError:
        return 0
