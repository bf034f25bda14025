"""Runs that save to a URL: one to a prefix, what it resumed from stays, what died of it goes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import holdfast
from holdfast import Checkpointer, DirectoryInUseError
from holdfast.front.doctor import doctor
from holdfast.storage import open_store, own_place
from holdfast.storage.remote import claims, connect
from tests.front.loops import Loop
from tests.front.test_directory_in_use import HOLDER
from tests.front.test_remote import url  # noqa: F401 - a fixture
from tests.support.running import PYTHONPATH

_CONFIGURED = "import json, sys, fsspec.config; fsspec.config.conf['s3'] = json.loads(sys.argv[2])\n"


def on_s3(test):
    return pytest.mark.parametrize("url", ["s3"], indirect=True)(test)


def in_memory(test):
    return pytest.mark.parametrize("url", ["memory"], indirect=True)(test)


def names(store, depth=3):
    return [blob.name for blob in store.blobs(depth)]


@on_s3
def test_a_second_run_and_a_killed_one(url):  # noqa: F811 - the fixture
    """Refused before anything is touched while the first lives; had at once when that is killed; its upload goes."""
    import json

    import fsspec.config

    arguments = [url, json.dumps(fsspec.config.conf["s3"])]
    holder = subprocess.Popen(
        [sys.executable, "-c", _CONFIGURED + HOLDER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    try:
        store = open_store(url)
        key = f"{store.base}/epoch=0-step=2.ckpt"
        upload = store.objects.begin(key)
        store.objects.part(key, upload, 1, b"x" * (5 << 20))
        assert holder.stdout.readline() == "saved\n"
        before = names(store)
        with pytest.raises(DirectoryInUseError, match=f"process {holder.pid} on host"):
            Checkpointer(url, model=torch.nn.Linear(1, 1))
        with pytest.raises(DirectoryInUseError):
            own_place(store, run="", since="")
        assert names(store) == before
        assert any(finding.kind == "run-alive" for finding in doctor(url))
    finally:
        holder.kill()
        holder.communicate()
    assert any(finding.kind == "run-dead" for finding in doctor(url))
    with Checkpointer(url, model=torch.nn.Linear(1, 1), every_n_train_steps=1) as ckpt:
        assert ckpt.resume().step == 1
        assert store.leftovers(3) == []
        ckpt.step()
    assert store.hidden(".holdfast-claims") == []


@in_memory
def test_a_run_that_was_overtaken(url, monkeypatch):  # noqa: F811 - the fixture
    """A run whose prefix another has taken saves nothing more, and says why; what is there stays as it is."""
    with Checkpointer(url, model=torch.nn.Linear(1, 1), every_n_train_steps=1, async_save=False) as ckpt:
        ckpt.step()
        before = names(open_store(url))
        (held,) = claims._held.values()
        claims._lose(held, claims.Claimant(run="another", host="far", pid="7"))
        with pytest.warns(UserWarning, match="was not saved: the directory .* run another, which is alive"):
            ckpt.step()
        assert names(open_store(url)) == before
        held.taker = None
        ckpt.step()
        assert len(names(open_store(url))) == 1
    assert names(open_store(url)) == ["epoch=0-step=3.ckpt"]


def test_what_a_run_resumed_from_stays(url):  # noqa: F811 - the fixture
    """However many better and newer ones come, the checkpoint that a run went on from is there at its end."""
    words = {"monitor": "val_loss", "save_top_k": 1}
    first = Loop()
    first.run(first.checkpointer(url, **words), 2, scores=[5.0, 4.0])
    second = Loop()
    ckpt = second.checkpointer(url, **words)
    start = ckpt.resume()
    second.run(ckpt, 6, start=start, scores=[5.0, 4.0, 3.0, 2.0, 1.0, 0.5])
    left = {f"{url}/{name}" for name in names(open_store(url))}
    assert left == {start.path, ckpt.best_model_path}
    assert start.path != ckpt.best_model_path
    holdfast.verify(start.path)


@in_memory
def test_the_doctor(url):  # noqa: F811 - the fixture
    """What the server of a URL cannot do is told, and what was tried leaves nothing."""
    with Checkpointer(url, model=torch.nn.Linear(1, 1), every_n_train_steps=1) as ckpt:
        ckpt.step()
    before = names(open_store(url), 9)
    found = {finding.kind: finding for finding in doctor(url)}
    assert "keeps no conditions" in found["conditions"].what
    assert names(open_store(url), 9) == before
    assert open_store(url).leftovers(9) == []


class Failing:
    """Objects whose writes fail for a while; with ``after`` only once they have been carried out."""

    def __init__(self, objects, error, *, after):
        self._objects, self._error, self._after = objects, error, after
        self.failing = False

    def __getattr__(self, name):
        real = getattr(self._objects, name)
        if name not in ("put", "stream", "complete", "copy"):
            return real

        def call(*arguments, **words):
            if not self.failing:
                return real(*arguments, **words)
            if self._after:
                real(*arguments, **words)
            raise self._error

        return call


ERRORS = [
    (PermissionError(13, "put_object x: the server answered 403 AccessDenied"), "403 AccessDenied", "is untouched"),
    (ConnectionError("reset by peer"), "reset by peer", "may have taken it"),
]


@in_memory
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("error", "said", "left"), ERRORS)
def test_a_save_that_fails(url, error, said, left, after):  # noqa: F811 - the fixture
    """It says what the server said, and what is there; the next save works; all that is there is whole."""
    made = []

    def wrapper(objects):
        made.append(Failing(objects, error, after=after))
        return made[-1]

    with connect.wrapping(wrapper):
        ckpt = Checkpointer(url, model=torch.nn.Linear(1, 1), every_n_train_steps=1, save_top_k=-1, async_save=False)
        with ckpt:
            ckpt.step()
            for objects in made:
                objects.failing = True
            with pytest.warns(UserWarning, match=rf"step=2.ckpt was not saved: .*{said}.*{left}.*Training goes on"):
                ckpt.step()
            for objects in made:
                objects.failing = False
            ckpt.step()
    found = names(open_store(url))
    assert found == [f"epoch=0-step={step}.ckpt" for step in (1, 2, 3) if after or step != 2]
    for name in found:
        holdfast.verify(f"{url}/{name}")


@in_memory
def test_a_mirror_that_is_anothers(url, tmp_path, monkeypatch, recwarn):  # noqa: F811 - the fixture
    """A run does not mirror over another that lives: it says so, trains on, and has it once the other has ended."""
    monkeypatch.setattr("holdfast.mirroring.mirror.PAUSES", (0.05,))
    refused, real = [True], claims.Taking.take

    def take(self):
        if refused[0]:
            raise DirectoryInUseError(url, run="another", host="far", pid="7")
        return real(self)

    monkeypatch.setattr(claims.Taking, "take", take)
    words = {"every_n_train_steps": 1, "async_save": False, "mirror": url}
    with Checkpointer(tmp_path, model=torch.nn.Linear(1, 1), **words) as ckpt:
        while ckpt.mirror.status.failures < 2:
            ckpt.step()
        ckpt.wait()
        ckpt.step()
        assert any("does not take" in str(said.message) and "run another" in str(said.message) for said in recwarn)
        assert names(open_store(url)) == []
        refused[0] = False
    assert names(open_store(url)) == names(open_store(tmp_path))
    assert open_store(url).hidden(".holdfast-claims") == []
