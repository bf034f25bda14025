"""Every fault at every request of everything that is done to an object store: the table of ``docs/design/0030``."""

from __future__ import annotations

import random

import pytest

from tests.object_store.acts import ACTS
from tests.object_store.fits import FITS
from tests.object_store.tables import CASES, in_memory
from tests.support.bucket import Bucket

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*val_dataloader.*|.*train_dataloader.*|.*ckpt_path.*:UserWarning"),
]
QUICK = ("train in parts", "resume", "fetch", "shards", "mirror")
SOME = 2  # cases of each of them, each at one request


@pytest.fixture(params=[True, False], ids=["conditions", "no conditions"])
def bucket(request):
    """A server that keeps conditions, and one that ignores them."""
    return Bucket(conditions=request.param)


def points(table, act, asked, every=1):
    """Yield all cases of an act, each with the numbers of the requests that it is about."""
    for case in CASES:
        for skip in range(0, table.points(act, case, asked), every):
            yield case, skip


def name(act):
    return act.name


@pytest.mark.parametrize("act", [act for act in ACTS if act.name in QUICK], ids=name)
def test_some_faults(act, tmp_path, monkeypatch):
    """A few faults at a few requests, the same in each run: nothing is lost or wrong, and what may pass does."""
    dice = random.Random(act.name)  # noqa: S311 - the same in each run
    with in_memory(tmp_path, monkeypatch, Bucket(conditions=dice.random() < 0.5)) as table:
        whole, asked = table.whole(act)
        for case, skip in dice.sample([*points(table, act, asked)], SOME):
            table.one(act, case, skip, whole)
        assert table.met >= 1


@pytest.mark.long
@pytest.mark.parametrize("act", [*ACTS, *FITS], ids=name)
def test_every_fault(act, bucket, tmp_path, monkeypatch, capsys):
    """Each fault at each request: nothing that was committed is lost or wrong, what may pass does, all is told."""
    with in_memory(tmp_path, monkeypatch, bucket) as table:
        whole, asked = table.whole(act)
        for case, skip in points(table, act, asked):
            table.one(act, case, skip, whole)
    with capsys.disabled():
        counts = f"{len(asked)} requests, {table.runs} runs, {table.met} faults met, {table.failed} told"
        print(f"\n{act.name}: {counts}")  # noqa: T201 - what a long run is for
