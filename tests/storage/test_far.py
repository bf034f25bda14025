"""A checkpoint behind a URL is read straight into its tensors, checked there, and fetched again where it came wrong."""

from __future__ import annotations

import logging
import os
import tempfile

import pytest
import torch

import holdfast
from holdfast.engine import Into, load_into
from holdfast.engine.peeking import peek
from holdfast.errors import CheckpointNotFoundError, DamagedCheckpointError, UnsafeCheckpointError
from holdfast.format import reading
from holdfast.front.saving import save_path
from holdfast.records import Facts
from holdfast.source import BlobSource
from holdfast.storage import open_store
from holdfast.storage.remote.connect import wrapping

LARGE = 3 << 20  # elements: more than one piece


class Spoiling:
    """Flips one byte of what is read over some place of an object, so many times."""

    def __init__(self, objects, at, times):
        self._objects = objects
        self._at = at
        self.times = times

    def __getattr__(self, name):
        return getattr(self._objects, name)

    def get_into(self, key, start, view):
        count = self._objects.get_into(key, start, view)
        if start <= self._at < start + count and self.times:
            self.times -= 1
            view[self._at - start] ^= 1
        return count


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(LARGE, generator=generator)
    return {"model": {"w": weights, "b": torch.arange(9.0), "empty": torch.zeros(0)}, "step": 7, "shared": weights[:5]}


@pytest.fixture(params=["memory", "s3"])
def url(request, tmp_path, state):
    if request.param == "s3":
        request.getfixturevalue("s3")
    base = f"memory://{tmp_path.name}" if request.param == "memory" else f"s3://bucket/{tmp_path.name}"
    save_path(f"{base}/x.ckpt", state, Facts(step=7))
    return f"{base}/x.ckpt"


def _place_in_weights(url):
    """Where in the file some byte of the large tensor lies."""
    root, _, name = url.rpartition("/")
    store = open_store(root)
    account = reading.read_account(BlobSource(store, name, store.size(name)))
    large = max(account.placed, key=lambda item: item.record.size)
    return large.data_offset + large.record.size - 99


def test_a_load_touches_no_disk(url, state, monkeypatch):
    """What is loaded from a URL is what was saved, and passes through no file."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: pytest.fail("a file was made"))
    loaded = holdfast.load(url)
    assert loaded.keys() == state.keys()
    assert loaded["step"] == 7
    assert all(torch.equal(loaded["model"][name], value) for name, value in state["model"].items())
    assert loaded["shared"].data_ptr() == loaded["model"]["w"].data_ptr()
    assert holdfast.verify(url) is not None


def test_a_load_goes_over_living_tensors(url, state):
    """A resume from a URL fills the tensors that the run has, and needs no second memory for them."""
    living = {"model": {"w": torch.zeros(LARGE), "b": torch.zeros(9)}}
    into = Into({"model.w": living["model"]["w"]}, careful=False)
    loaded = load_into(url, into)
    assert into.touched
    assert torch.equal(living["model"]["w"], state["model"]["w"])
    assert loaded["model"]["w"].data_ptr() == living["model"]["w"].data_ptr()


def _ways(url):
    def look():
        with peek(url) as found:
            return found.values(found.state["model"]["w"]).clone()

    def over():
        living = torch.zeros(LARGE)
        load_into(url, Into({"model.w": living}, careful=False))
        return living

    yield lambda: holdfast.load(url)["model"]["w"]
    yield over
    yield look
    yield lambda: holdfast.verify(url) and None


@pytest.mark.parametrize("way", range(4))
def test_a_byte_that_flips_on_its_way_is_fetched_again(url, state, way, caplog):
    """Wrong bytes of one answer are no damage: they are fetched once more, right, and that is told."""
    at = _place_in_weights(url)
    spoiling = []
    with (
        wrapping(lambda objects: spoiling.append(Spoiling(objects, at, 1)) or spoiling[-1]),
        caplog.at_level(logging.WARNING, "holdfast"),
    ):
        found = list(_ways(url))[way]()
    assert [one.times for one in spoiling].count(0) >= 1
    assert found is None or torch.equal(found, state["model"]["w"])
    assert way == 2 or "fetched again it is whole" in caplog.text


@pytest.mark.parametrize("way", range(4))
def test_what_is_wrong_twice_is_damage(url, way):
    """Bytes that are wrong at rest are refused, and the error names the tensor and that they were fetched twice."""
    at = _place_in_weights(url)
    with (
        wrapping(lambda objects: Spoiling(objects, at, 1 << 20)),
        pytest.raises(DamagedCheckpointError, match=r"model\.w.*CRC-32" + ("" if way == 2 else ".*twice")),
    ):
        list(_ways(url))[way]()


def test_what_is_cut_at_rest_is_damage(url):
    """A blob that has lost its end is refused, by a load and by a look."""
    root, _, name = url.rpartition("/")
    store = open_store(root)
    whole = store.read(name, 0, store.size(name))
    store.put(name, [whole[: len(whole) // 2]])
    for call in (holdfast.load, holdfast.verify):
        with pytest.raises(DamagedCheckpointError):
            call(url)


def test_other_files_and_errors_are_as_ever(url, tmp_path, state):
    """A file of torch loads from a URL as well; what is not there, and what is not allowed, are the usual errors."""
    torch.save({"w": state["model"]["w"]}, tmp_path / "plain.pt")
    torch.save({"odd": os.path.join}, tmp_path / "odd.pt")
    root = url.rpartition("/")[0]
    store = open_store(root)
    for name in ("plain.pt", "odd.pt"):
        store.put(name, [(tmp_path / name).read_bytes()])
    assert torch.equal(holdfast.load(f"{root}/plain.pt")["w"], state["model"]["w"])
    assert holdfast.verify(f"{root}/plain.pt") is None
    with pytest.raises(UnsafeCheckpointError, match="join"):
        holdfast.load(f"{root}/odd.pt")
    with pytest.raises(CheckpointNotFoundError):
        holdfast.load(f"{root}/nothing.ckpt")
    save_path(f"{root}/ours.ckpt", {"odd": os.path.join}, Facts(step=8))
    with pytest.raises(UnsafeCheckpointError, match="join"):
        holdfast.load(f"{root}/ours.ckpt")
