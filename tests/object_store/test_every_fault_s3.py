"""The table of faults once more, with a proxy that does them before a real server."""

from __future__ import annotations

import os
import random
import secrets

import pytest

from holdfast.storage.remote.objects import PartRules
from holdfast.storage.remote.s3 import S3Objects
from tests.object_store.acts import ACTS
from tests.object_store.fits import FITS
from tests.object_store.tables import SHORT, Case, Table
from tests.support import proxy_faults as faults

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*val_dataloader.*|.*train_dataloader.*|.*ckpt_path.*:UserWarning"),
]
SENT = ("put", "part")
EVERY = int(os.environ.get("FAULTS_EVERY", "1"))  # of the requests that meet a fault

CASES = [
    Case("503 once", faults.refuse(), harmless=True),
    Case("500 once", faults.refuse(500, "InternalError"), harmless=True),
    Case("a reset", faults.reset_request(), harmless=True),
    Case("a reset in what is sent", faults.reset_request(700), SENT, harmless=True),
    Case("a lost answer", faults.swallow(), harmless=True),
    Case("an answer that is cut", faults.reset_answer(100), ("get", "list"), harmless=True),
    Case("a short answer that claims to be all", faults.truncate(50), ("get", "list"), harmless=True),
    Case("wrong bytes", faults.flip(9), ("get",)),
    Case("wrong bytes sent", faults.spoil_request(9), SENT, harmless=True),
    Case("a storm", faults.refuse(), times=None, patience=SHORT),
    Case("expired once", faults.expired()),
    Case("expired for good", faults.expired(), times=None),
    Case("412", faults.refuse(412, "PreconditionFailed"), ("put", "complete")),
    Case("409", faults.refuse(409, "ConditionalRequestConflict"), ("put", "complete")),
    Case("an old listing", faults.stale(4), ("list",)),
    Case("listings that lag", faults.stale(4), ("list",), times=None),
]
SILENT = [
    Case("no answer", faults.hang(), harmless=True),
    Case("done, and no answer", faults.hang(done=True), harmless=True),
    Case("done, and no answer, one try", faults.hang(done=True), patience="0"),
]
SILENCE = 0.5  # seconds after which a server that says nothing is given up: what storage_options can say


@pytest.fixture
def table(proxied, tmp_path, monkeypatch):
    """A table before the real server, which takes small parts."""
    monkeypatch.setattr(S3Objects, "parts", property(lambda _: PartRules(least=1)))
    return Table(tmp_path, monkeypatch, proxied, f"s3://bucket/{secrets.token_hex(4)}")


@pytest.fixture
def impatient(table, monkeypatch):
    """The same, for a client that waits for a silent server but shortly."""
    from fsspec.config import conf

    monkeypatch.setitem(conf["s3"], "config_kwargs", {"read_timeout": SILENCE})
    return table


def points(table, act, asked, every=1, cases=CASES):
    """Yield all cases of an act, each with the numbers of the requests that it is about."""
    for number, case in enumerate(cases):
        for skip in range(number % every, table.points(act, case, asked), every):
            yield case, skip


@pytest.mark.parametrize("act", [act for act in ACTS if act.name == "copy there"], ids=lambda act: act.name)
def test_some_faults(act, table):
    """A few faults on the way to a real server, the same in each run."""
    whole, asked = table.whole(act)
    dice = random.Random(act.name)  # noqa: S311 - the same in each run
    for case, skip in dice.sample([*points(table, act, asked)], 2):
        table.one(act, case, skip, whole)
    assert table.met


@pytest.mark.long
@pytest.mark.parametrize("act", [*ACTS, *FITS], ids=lambda act: act.name)
def test_every_fault(act, table, capsys):
    """Each fault at each request: nothing that was committed is lost or wrong, what may pass does, all is told."""
    whole, asked = table.whole(act)
    for case, skip in points(table, act, asked, EVERY):
        table.one(act, case, skip, whole)
    with capsys.disabled():
        counts = f"{len(asked)} requests, {table.runs} runs, {table.met} faults met, {table.failed} told"
        print(f"\n{act.name}: {counts}")  # noqa: T201 - what a long run is for


@pytest.mark.long
@pytest.mark.parametrize("act", [*ACTS, *FITS], ids=lambda act: act.name)
def test_every_silence(act, impatient, capsys):
    """A server that takes a request and says nothing, at each request: as any other fault that passes."""
    whole, asked = impatient.whole(act)
    for case, skip in points(impatient, act, asked, EVERY, SILENT):
        impatient.one(act, case, skip, whole)
    with capsys.disabled():
        print(f"\n{act.name}: {len(asked)} requests, {impatient.runs} silent, {impatient.failed} told")  # noqa: T201
