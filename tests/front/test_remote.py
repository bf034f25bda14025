"""A plain loop that saves to a URL: the same files, ranking and resume."""

from __future__ import annotations

import secrets

import fsspec
import pytest

import holdfast
from holdfast.storage import open_store
from tests.front.loops import Loop

SCORES = [5.0, 2.0, 4.0, 1.0]


@pytest.fixture(params=["memory", "s3"])
def url(request):
    name = secrets.token_hex(4)
    if request.param == "s3":
        request.getfixturevalue("s3")
        yield f"s3://bucket/{name}"
    else:
        yield f"memory://{name}"
        fsspec.filesystem("memory").store.clear()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_remote_run(url):
    """Saved, ranked, pruned, interrupted and resumed at a URL, it ends like a local run, with its paths as URLs."""
    words = {"monitor": "val_loss", "save_top_k": 1, "save_last": True}
    whole = Loop()
    whole.run(whole.checkpointer(url + "-whole", **words), 4, scores=SCORES)
    expected = whole.state()
    first = Loop()
    first.run(first.checkpointer(url, **words), 4, stop_at=11, scores=SCORES)
    second = Loop()
    ckpt = second.checkpointer(url, **words)
    start = ckpt.resume()
    assert start.step == 8
    assert start.path.startswith(url + "/")
    second.run(ckpt, 4, start=start, scores=SCORES)
    assert second.state() == expected
    assert ckpt.best_model_path == f"{url}/epoch=3-step=16.ckpt"
    assert ckpt.last_model_path == f"{url}/last.ckpt"
    assert holdfast.load(ckpt.last_model_path)["global_step"] == 16
    assert holdfast.verify(ckpt.best_model_path).facts.metrics == {"val_loss": 1.0}
    left = {blob.name for blob in open_store(url).blobs()}
    assert left - {"epoch=1-step=8.ckpt"} == {"epoch=3-step=16.ckpt", "last.ckpt"}
    with pytest.raises(holdfast.CheckpointNotFoundError):
        holdfast.load(url + "/none.ckpt")
    assert holdfast.newest(url) in (ckpt.last_model_path, ckpt.best_model_path)
