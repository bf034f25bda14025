"""A plain loop with a second tier: what it carries there, and where it goes on from."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time

import fsspec
import pytest

import holdfast
from holdfast.storage import open_store
from tests.front.loops import Loop
from tests.mirroring.makings import unfinished

SCORES = [5.0, 2.0, 4.0, 3.0]
WORDS = {"monitor": "val_loss", "save_top_k": 2, "save_last": True}


@pytest.fixture
def url():
    yield f"memory://{secrets.token_hex(4)}"
    fsspec.filesystem("memory").store.clear()


def _trained(folder, url, *, epochs=4, **words):
    """A run that has ended, its checkpointer, and what it has come to."""
    loop = Loop()
    ckpt = loop.checkpointer(folder, mirror=url, **WORDS, **words)
    loop.run(ckpt, epochs, scores=SCORES)
    return ckpt, loop.state()


def _names(place):
    return [blob.name for blob in open_store(place).blobs()]


def _whole_run(folder):
    loop = Loop()
    loop.run(loop.checkpointer(folder, **WORDS), 4, scores=SCORES)
    return loop.state()


def test_both_tiers_have_the_same(tmp_path, url):
    """After the end the mirror has what the rules keep here, each of it whole."""
    ckpt, _ = _trained(tmp_path / "run", url)
    assert ckpt.mirror is None
    assert _names(url) == _names(tmp_path / "run") == ["epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt", "last.ckpt"]
    assert all(item.problem == "" for item in holdfast.verify_all(url))


def test_each_tier_keeps_by_its_own_rules(tmp_path, url):
    """With ``mirror_keep`` the mirror keeps by other rules than the directory, and the floor of both stands."""
    _trained(tmp_path / "run", url, mirror_keep="Latest(1)")
    assert _names(url) == ["epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt", "last.ckpt"]
    other = url + "-all"
    _trained(tmp_path / "more", other, mirror_keep="All()", mirror_wait=True)
    assert set(_names(other)) >= {"epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt", "last.ckpt"}


def test_a_machine_that_vanished(tmp_path, url):
    """With an empty directory a run goes on from the mirror, to the bit, with its ranking as it was."""
    expected = _whole_run(tmp_path / "whole")
    ckpt, _ = _trained(tmp_path / "one", url, epochs=2)
    shutil.rmtree(tmp_path / "one")
    second = Loop(seed=9)
    ckpt = second.checkpointer(tmp_path / "two", mirror=url, **WORDS)
    start = ckpt.resume()
    assert (start.step, start.tier) == (8, "mirror")
    assert start.path == str(tmp_path / "two" / os.path.basename(start.path))
    assert float(ckpt.best_model_score) == 2.0
    assert sorted(float(score) for score in ckpt.best_k_models.values()) == [2.0, 5.0]
    assert f"{url}/epoch=0-step=4.ckpt" in ckpt.best_k_models
    assert holdfast.load(f"{url}/epoch=0-step=4.ckpt")["global_step"] == 4
    second.run(ckpt, 4, start=start, scores=SCORES)
    assert second.state() == expected
    assert sorted(float(score) for score in ckpt.best_k_models.values()) == [2.0, 3.0]
    assert _names(url) == ["epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt", "last.ckpt"]


def test_damage_here_is_made_good_from_there(tmp_path, url):
    """Where the newest here is damaged, the same save is fetched; the damage is told, and set aside."""
    folder = tmp_path / "run"
    _trained(folder, url)
    for name in ("last.ckpt", "epoch=3-step=16.ckpt"):
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 3] ^= 1
        (folder / name).unlink()
        (folder / name).write_bytes(data)
    ckpt = Loop(seed=9).checkpointer(folder, mirror=url, **WORDS)
    with pytest.warns(UserWarning, match="is damaged"):
        start = ckpt.resume()
    assert (start.step, start.tier) == (16, "mirror")
    assert {os.path.basename(item.aside) for item in start.skipped} == {
        "last.ckpt.damaged",
        "epoch=3-step=16.ckpt.damaged",
    }
    assert holdfast.verify(start.path).facts.step == 16


def test_the_near_copy_is_taken_where_both_have_it(tmp_path, url):
    """The same save in both tiers is resumed from the directory, and nothing is fetched."""
    folder = tmp_path / "run"
    _trained(folder, url)
    before = {name: os.stat(folder / name).st_mtime_ns for name in _names(folder)}
    start = Loop().checkpointer(folder, mirror=url, **WORDS).resume()
    assert (start.step, start.tier) == (16, "local")
    assert {name: os.stat(folder / name).st_mtime_ns for name in _names(folder)} == before


def _unreachable(monkeypatch, reason="no route to host"):
    from holdfast.storage.remote.store import RemoteStore

    def fail(*_, **__):
        raise ConnectionError(reason)

    for name in ("blobs", "put", "put_from", "exists", "size", "read", "hidden", "link"):
        monkeypatch.setattr(RemoteStore, name, fail)


def test_a_mirror_that_cannot_be_asked(tmp_path, url, monkeypatch):
    """Then the directory alone is gone by, which is told; with nothing there the run does not begin at step 0."""
    folder = tmp_path / "run"
    _trained(folder, url)
    _unreachable(monkeypatch)
    with pytest.warns(UserWarning, match="could not be asked for its checkpoints: no route"):
        start = Loop().checkpointer(folder, mirror=url, mirror_wait=False, **WORDS).resume()
    assert start.step == 16
    assert "could not be asked" in start.reason
    empty = Loop().checkpointer(tmp_path / "empty", mirror=url, mirror_wait=False, **WORDS)
    with pytest.warns(UserWarning, match="could not be asked"), pytest.raises(holdfast.LoadError, match="or without"):
        empty.resume()


def test_a_fresh_start(tmp_path, url):
    """Where the mirror answers that it has nothing, training starts afresh."""
    start = Loop().checkpointer(tmp_path / "run", mirror=url, **WORDS).resume()
    assert (start.path, start.tier, start.step) == (None, None, 0)


@pytest.mark.filterwarnings("ignore:.*mirror.*:UserWarning")
def test_a_dead_mirror_costs_the_training_nothing(tmp_path, url, monkeypatch, caplog):
    """A run whose mirror never answers ends like one without, and says how to carry on with what is left."""
    expected = _whole_run(tmp_path / "whole")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "holdfast"):
        _unreachable(patch)
        _, state = _trained(tmp_path / "run", url, mirror_wait=0.3)
    assert state == expected
    assert _names(tmp_path / "run") == _names(tmp_path / "whole")
    assert f"holdfast sync {tmp_path}/run {url}" in caplog.text
    assert "the mirror" in caplog.text
    loop = Loop()
    ckpt = loop.checkpointer(tmp_path / "run", mirror=url, **WORDS)
    assert ckpt.resume().step == 16
    ckpt.close()
    assert _names(url) == _names(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"mirror_keep": "Latest(2)"}, "there is none"),
        ({"mirror": 3}, "`mirror` is a path"),
        ({"mirror": "memory://a", "mirror_bandwidth": "fast"}, "`mirror_bandwidth`"),
        ({"mirror": "memory://a", "mirror_bandwidth": -1}, "`mirror_bandwidth`"),
        ({"mirror": "memory://a", "mirror_wait": "long"}, "`mirror_wait`"),
        ({"mirror": "memory://a", "mirror_keep": 5}, "5"),
        ({"mirror": "memory://a", "recycle_blocks": True}, "`recycle_blocks`"),
        ({"mirror": "nowhere://a"}, "nowhere"),
    ],
)
def test_words(tmp_path, words, said):
    """A word that cannot be meant is an error that names it."""
    with pytest.raises(holdfast.ConfigurationError, match=said):
        Loop().checkpointer(tmp_path, **words)


def test_places(tmp_path):
    """The mirror is another place than the directory, which is of this machine."""
    with pytest.raises(holdfast.ConfigurationError, match="the directory of the run itself"):
        Loop().checkpointer(tmp_path, mirror=str(tmp_path))
    with pytest.raises(holdfast.ConfigurationError, match="give a local"):
        Loop().checkpointer("memory://a", mirror="memory://b")


def test_a_slow_upload_is_not_cut_short_by_retention(tmp_path, url, monkeypatch):
    """What is on its way stays here, and the newest that waits; what lies between goes; at the end both tiers agree."""
    from holdfast.storage.remote.generic import FsspecObjects

    begun, going = threading.Event(), threading.Event()

    put = FsspecObjects.put

    def slow(*given, **words):
        begun.set()
        assert going.wait(30)
        return put(*given, **words)

    monkeypatch.setattr(FsspecObjects, "put", slow)
    loop = Loop()
    ckpt = loop.checkpointer(tmp_path / "run", mirror=url, async_save=False)
    here = []
    for epoch in range(4):
        for batch in loop.batches(epoch):
            loop.learn(batch)
            ckpt.step()
        ckpt.end_epoch()
        assert begun.wait(30)
        here.append([name.partition("-")[0] for name in _names(tmp_path / "run")])
    assert here == [["epoch=0"], ["epoch=0", "epoch=1"], ["epoch=0", "epoch=2"], ["epoch=0", "epoch=3"]]
    going.set()
    ckpt.close()
    assert _names(tmp_path / "run") == _names(url) == ["epoch=3-step=16.ckpt"]


def test_what_another_run_has_there_stays(tmp_path, url):
    """Neither the uploads nor the retention of a run touch another run's checkpoints on the same mirror."""
    _trained(tmp_path / "one", url, mirror_keep="All()")
    before = {name: open_store(url).read(name, 0, 1 << 20) for name in _names(url)}
    with pytest.warns(UserWarning, match="is not mirrored"):
        _trained(tmp_path / "other", url, mirror_keep="Latest(1)")
    assert {name: open_store(url).read(name, 0, 1 << 20) for name in before} == before


def test_the_source_of_a_resume_stays_in_both_tiers(tmp_path, url):
    """The checkpoint that a run resumed from is removed in neither tier, by whatever rules."""
    _trained(tmp_path / "one", url, epochs=2)
    shutil.rmtree(tmp_path / "one")
    loop = Loop(seed=9)
    ckpt = loop.checkpointer(tmp_path / "two", mirror=url, save_top_k=1, monitor="val_loss", mirror_keep="Latest(1)")
    start = ckpt.resume(f"{url}/epoch=1-step=8.ckpt")
    assert start.path == str(tmp_path / "two" / "epoch=1-step=8.ckpt")
    loop.run(ckpt, 4, start=start, scores=[9.0, 9.0, 1.0, 0.5])
    for place in (tmp_path / "two", url):
        assert {"epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt"} <= set(_names(place))
        assert "epoch=2-step=12.ckpt" not in _names(place)


_TRAINEE = """
import sys, torch
from tests.front.loops import Loop
from tests.mirroring.makings import unfinished
folder, url, port, epochs, rate = sys.argv[1:]
endpoint = {"endpoint_url": f"http://127.0.0.1:{port}"}
options = {"key": "testaccesskey", "secret": "testsecretkey", "client_kwargs": endpoint}
loop = Loop()
loop.model.register_buffer("ballast", torch.rand(4_000_000))
ckpt = loop.checkpointer(folder, mirror=url, storage_options=options, mirror_bandwidth=float(rate) or None)
start = ckpt.resume()
print("start", start.step, start.tier, flush=True)
loop.run(ckpt, int(epochs), start=start)
print("end", ckpt.global_step, flush=True)
"""


@pytest.mark.long
def test_a_trainer_that_is_killed_in_mid_upload(tmp_path, s3):
    """Killed while its newest is on the way, a run goes on from the directory, and the mirror has all in the end."""
    import subprocess
    import sys

    from tests.support.running import PYTHONPATH

    url, folder = f"s3://bucket/{secrets.token_hex(4)}", tmp_path / "run"
    port = fsspec.config.conf["s3"]["client_kwargs"]["endpoint_url"].rpartition(":")[2]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}

    def train(epochs, rate):
        command = [sys.executable, "-c", _TRAINEE, str(folder), url, port, str(epochs), str(rate)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    first = train(2, 4e6)  # 16 MB at 4 MB/s: the end of the training waits for seconds
    assert first.stdout.readline() == "start 0 None\n"
    while first.poll() is None and not (folder / "epoch=1-step=8.ckpt").exists():
        time.sleep(0.05)
    assert first.poll() is None
    first.kill()
    first.wait()
    assert not [blob.name for blob in open_store(url).blobs() if "epoch=1" in blob.name]
    second = train(3, 0)
    assert second.communicate(timeout=120)[0] == "start 8 local\nend 12\n"
    assert _names(url) == _names(folder) == ["epoch=1-step=8.ckpt", "epoch=2-step=12.ckpt"]
    assert all(item.problem == "" for item in holdfast.verify_all(url))
    assert unfinished(open_store(folder)) == []
    shutil.rmtree(folder)
    third = train(3, 0)
    assert third.communicate(timeout=120)[0] == "start 12 mirror\nend 12\n"
