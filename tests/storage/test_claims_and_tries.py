"""The claim of a prefix is looked at before each try of what commits, however long that is tried."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

import pytest

from holdfast import DirectoryInUseError
from holdfast.storage import hurry
from holdfast.storage.remote import abilities, claims, rivals
from holdfast.storage.remote.claimant import Claimant
from holdfast.storage.remote.gcs import GcsObjects
from holdfast.storage.remote.retrying import Patience, Retrying
from holdfast.testing import FaultyObjects
from holdfast.testing import objects as faults
from tests.support.folder_objects import FolderObjects

BASE, ROOT = "bucket/run", "s3://bucket/run"
FOLDER = rivals.folder_of(BASE)
LEASE = 0.25


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """No abilities known, nothing held, and a lease that a test can wait for; nobody renews it meanwhile."""
    abilities.forget_abilities()
    monkeypatch.setattr(claims, "LEASE", LEASE)
    monkeypatch.setattr(claims, "INTERVAL", 60.0)
    yield
    claims.give_up_all_claims()
    abilities.forget_abilities()


@pytest.fixture(params=[True, False], ids=["conditions", "none"])
def folder(request, tmp_path):
    return FolderObjects(tmp_path / "store", conditions=request.param)


def take(objects):
    return claims.claim(objects, BASE, ROOT, run="mine", since="2026-01-01T00:00:01+00:00")


def taken_over(objects):
    """Another machine's run takes the prefix, as it may once the lease is over."""
    claimant = replace(Claimant.this("theirs", "2026-01-01", 60.0), place="elsewhere", host="far")
    objects.put(f"{FOLDER}run.has" if objects.conditions else f"{FOLDER}{claimant.token}.has", claimant.encode())


@pytest.mark.parametrize("request_kind", ["put", "complete", "copy", "remove"])
def test_a_request_that_is_tried_again_after_the_claim_was_lost(folder, request_kind):
    """A server refuses what would commit or remove; meanwhile another run takes over: no further try is made."""
    faulty = FaultyObjects(folder)
    pauses = []

    def sleep(_):
        pauses.append(1)
        time.sleep(LEASE)
        taken_over(folder)

    patient = Retrying(faulty, Patience(60, sleep), claims.check_commit)
    take(folder)
    key = f"{BASE}/x.ckpt"
    folder.put(key, b"before")
    act = {
        "put": lambda: patient.put(key, b"after"),
        "complete": lambda: patient.complete(key, "upload", ["etag"]),
        "copy": lambda: patient.copy(key, f"{BASE}/y.ckpt"),
        "remove": lambda: patient.remove([key]),
    }[request_kind]
    rule = faulty.rule(faults.refused(), kinds={request_kind})
    with pytest.raises(DirectoryInUseError, match="theirs"):
        act()
    assert (rule.hits, len(pauses)) == (1, 1)
    assert folder.get(key, 0, 99) == b"before"


def test_a_storm_in_which_the_claim_is_kept(folder):
    """Where nobody takes over, what is tried for longer than the lease succeeds: the claim is renewed between."""
    faulty = FaultyObjects(folder)
    patient = Retrying(faulty, Patience(60, lambda _: time.sleep(LEASE)), claims.check_commit)
    take(patient)
    faulty.rule(faults.refused(), kinds={"put"}, key=r"x\.ckpt$", times=2)
    patient.put(f"{BASE}/x.ckpt", b"after")
    assert folder.get(f"{BASE}/x.ckpt", 0, 9) == b"after"


class Slow:
    """Objects some of whose puts take longer than a claim holds."""

    def __init__(self, inner, slow):
        self.inner, self.slow, self.puts = inner, slow, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def put(self, key, data, **words):
        self.puts += 1
        if self.puts <= self.slow:
            time.sleep(LEASE)
        return self.inner.put(key, data, **words)


@pytest.mark.parametrize("slow", [1, 99])
def test_a_renewal_that_takes_longer_than_the_lease(folder, slow):
    """It says nothing about now: it is renewed once more, and where that never gets better nothing is committed."""
    objects = Slow(folder, 0)
    claim = take(objects)
    time.sleep(LEASE)
    objects.puts, objects.slow = 0, slow
    if slow == 1:
        claim.check()
        assert objects.puts >= 2
    else:
        with pytest.raises(TimeoutError, match="renewed 3 times, each so slowly"):
            claim.check()


def test_one_who_has_lost_it_leaves_nothing_that_looks_like_a_claim(tmp_path):
    """Where each has a claim of its own, the one that was taken over removes its own: the taker finds itself alone."""
    folder = FolderObjects(tmp_path / "store", conditions=False)
    claim = take(folder)
    time.sleep(LEASE)
    taken_over(folder)
    with pytest.raises(DirectoryInUseError):
        claim.check()
    assert [Claimant.decode(folder.get(item.key, 0, 999)).run for item in folder.list(FOLDER)] == ["theirs"]


def test_nobody_waits_for_a_claim_that_is_being_renewed(folder):
    """A commit that waits for the thread which renews the claim ends when nobody waits for it any longer."""
    claim = take(folder)
    time.sleep(LEASE)
    (held,) = claims._held.values()
    event = threading.Event()
    threading.Timer(0.1, event.set).start()
    with held.lock, hurry.until(event), pytest.raises(InterruptedError, match="nobody waits"):
        claim.check()


def test_the_wait_for_a_run_that_seems_dead_can_be_ended(folder, monkeypatch):
    """Who wants a prefix waits for the lease of another run, and not when nobody waits for that any longer."""
    monkeypatch.setattr(claims, "LEASE", 500.0)
    taken_over(folder)
    event = threading.Event()
    threading.Timer(0.1, event.set).start()
    with hurry.until(event), pytest.raises(InterruptedError, match="not taken"):
        take(folder)


def test_the_same_process_takes_it_again(folder, monkeypatch):
    """A claim that was lost to a run which is over by now keeps nobody of its process from taking the prefix anew."""
    lost = take(folder)
    before = claims.seconds
    monkeypatch.setattr(claims, "seconds", lambda: before() + 3600)
    folder.remove(folder.there())
    with pytest.raises(DirectoryInUseError):
        lost.check()
    found = []
    taking = threading.Thread(target=lambda: found.append(take(folder)), daemon=True)
    taking.start()
    taking.join(30)
    assert found
    found[0].check()
    claims.check_commit(f"{BASE}/x.ckpt")
    lost.give_up()
    assert claims.claimed_here(BASE)
    found[0].give_up()
    assert folder.there() == []


def test_what_is_tried_again_has_one_patience_with_its_claim(folder):
    """Where a server is off, the claim that a later try has to renew gets what is left of the request's patience."""
    faulty, left = FaultyObjects(folder), []
    faulty.rule(faults.refused(), kinds={"put"})

    def guard(_):
        left.append(hurry.patience_left())
        if len(left) > 1:
            Retrying(faulty, Patience(3600, time.sleep)).put(f"{FOLDER}x.has", b"")

    with pytest.raises(ConnectionError):
        Retrying(faulty, Patience(0.5, time.sleep), guard).put(f"{BASE}/x.ckpt", b"after")
    assert left == sorted(left, reverse=True)
    assert left[0] <= 0.5
    assert hurry.patience_left() == math.inf


def test_a_commit_waits_no_longer_than_its_patience_for_the_thread_that_renews(folder):
    """While another thread waits for the server to renew the claim, a commit ends with its own patience."""
    claim = take(folder)
    time.sleep(LEASE)
    (held,) = claims._held.values()
    with held.lock, hurry.patient(0.1), pytest.raises(TimeoutError, match="does not answer"):
        claim.check()


def test_googles_last_block_is_not_sent_again_after_the_claim_was_lost(monkeypatch):
    """The guard is asked before each try of the block that makes the object, and before no other."""
    asked, sent = [], []

    def refuse(key):
        asked.append(key)
        if len(asked) > 1:
            raise DirectoryInUseError(ROOT)

    def run(_what, _work):
        sent.append(1)
        raise ConnectionError("busy")

    objects = GcsObjects(None, Patience(60, lambda _: None), refuse)
    monkeypatch.setattr(objects, "_run", run)

    with pytest.raises(DirectoryInUseError):
        objects._send("b/x", "place", b"data", {"Content-Range": "bytes 0-3/4"})
    assert (len(asked), len(sent)) == (2, 1)
    objects._patience = Patience(0)
    with pytest.raises(ConnectionError):
        objects._send("b/x", "place", b"data", {"Content-Range": "bytes 0-3/*"})
    assert len(asked) == 2
