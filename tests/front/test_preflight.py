"""What is too large for the disk is said before it is tried: with numbers, and nothing is removed to make room."""

from __future__ import annotations

import errno
import warnings
from dataclasses import dataclass

import pytest
import torch

from holdfast import Checkpointer, EverySteps, Latest, Within
from holdfast.front.planning import Run
from holdfast.front.preflight import Preflight
from holdfast.policy.ledger import Entry, Ledger
from holdfast.policy.settings import make_settings
from holdfast.storage import Free, open_store
from holdfast.storage.local import LocalStore
from tests.front.loops import names

GB = 10**9


@dataclass(frozen=True)
class Disk(LocalStore):
    """A directory on a disk of which so much is left."""

    left: Free | None = None

    def free(self):
        return self.left


def make(folder, free, **words):
    return Run(make_settings(**words), Disk(str(folder), free), "run")


def entries(count):
    return Ledger(tuple(Entry(f"{place}.ckpt", None, place, 0, place, size=GB) for place in range(count)))


@pytest.mark.parametrize(
    ("words", "there", "free", "said"),
    [
        ({"keep": Latest(3)}, 0, 4 * GB, ()),
        ({"keep": Latest(3)}, 0, 4 * GB - 1, ("1.0 GB", "the 3 that the rules may keep", "4.0 GB", "left")),
        ({"keep": Latest(3)}, 2, 2 * GB, ()),
        ({"keep": Latest(3)}, 2, 2 * GB - 1, ("2.0 GB are there",)),
        ({"monitor": "v", "save_top_k": 5}, 0, 6 * GB, ("7.0 GB",)),
        ({"keep": Within("3GB")}, 0, 4 * GB, ()),
        ({"keep": Within("3GB")}, 0, 3 * GB, ("4.0 GB",)),
        ({"save_top_k": -1}, 0, 2 * GB, ()),
        ({"save_top_k": -1}, 0, GB, ("2.0 GB",)),
        ({"keep": Latest(3)}, 0, None, ()),
    ],
)
def test_the_start_of_a_run_compares_what_it_will_keep_with_what_is_free(tmp_path, words, there, free, said):
    """The estimate is the size of the state times what the rules keep, and one more while it is written; said once."""
    run = make(tmp_path, None if free is None else Free(free), **words)
    preflight = Preflight()
    message = preflight.begin(run, entries(there), GB)
    assert all(part in message for part in said), message
    assert bool(message) == bool(said)
    assert preflight.begin(run, entries(there), GB) == ""


@pytest.mark.parametrize(
    ("free", "under_way", "fits"),
    [
        (Free(GB), 0, True),
        (Free(GB - 1), 0, False),
        (Free(2 * GB - 1), 1, False),
        (Free(2 * GB), 1, True),
        (Free(9 * GB, 0), 0, False),
        (Free(9 * GB, 1), 0, True),
        (None, 5, True),
    ],
)
def test_a_save_that_cannot_fit_is_announced(tmp_path, free, under_way, fits):
    """Bytes and files that are left are compared with the save and with those before it that are being written."""
    message = Preflight(size=GB).before(make(tmp_path, free), "m.ckpt", under_way)
    assert bool(message) != fits
    assert fits or (str(tmp_path / "m.ckpt") in message and "1.0 GB" in message)


def test_the_save_is_tried_all_the_same_and_nothing_goes_for_it(tmp_path, monkeypatch):
    """The warning comes first, then the failure as ``on_error`` says; what was committed is there, budget or not."""
    full = []

    def free(store):
        return Free(0 if full else GB)

    put = LocalStore.put

    def put_if_it_fits(self, *given, **words):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(self, *given, **words)

    monkeypatch.setattr(LocalStore, "free", free)
    monkeypatch.setattr(LocalStore, "put", put_if_it_fits)
    words = {"save_when": EverySteps(1), "keep": Latest(2) | Within(1), "async_save": False}
    with Checkpointer(tmp_path, model=torch.nn.Linear(2, 1), **words) as ckpt:
        ckpt.step()
        ckpt.step()
        before = names(tmp_path)
        full.append(True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ckpt.step()
        said = [str(item.message) for item in caught]
        assert "is likely to fail" in said[0]
        assert "was not saved" in said[1]
        assert names(tmp_path) == before
        full.clear()
        ckpt.step()
    assert names(tmp_path) == ["epoch=0-step=4.ckpt"]


def test_a_real_filesystem_says_what_is_left(tmp_path):
    """A directory that is not there yet is asked of where it will be; the numbers are those of the system."""
    free = open_store(tmp_path / "not" / "there").free()
    assert free is not None
    assert free.bytes > 0
    assert free.files is None or free.files > 0
