"""Uploads in parts that died: found by the run that comes next, and by those who look; a living one is left alone."""

from __future__ import annotations

import pytest

from holdfast.storage.remote import RemoteStore, abilities, claims, dead_uploads
from tests.support.folder_objects import FolderObjects

BASE = "bucket/run"


@pytest.fixture
def store(tmp_path):
    abilities.forget_abilities()
    yield RemoteStore("s3://bucket/run", BASE, FolderObjects(tmp_path / "store"))
    claims.give_up_all_claims()
    abilities.forget_abilities()


def begun(store, name="x.ckpt", *, age=0.0):
    """An upload of two parts that was begun so long ago."""
    key = f"{BASE}/{name}"
    upload = store.objects.begin(key)
    for number in (1, 2):
        store.objects.part(key, upload, number, b"x" * 10)
    store.objects.age(key, age)
    return f"{name}?uploadId={upload}"


def test_what_a_dead_run_left(store, caplog):
    """What was begun before this run had the prefix is aborted by its sweep, and what it held is told."""
    caplog.set_level("INFO", logger="holdfast")
    dead = [begun(store, "a/b.ckpt", age=60), begun(store, age=60)]
    store.claim("mine", "now")
    living = begun(store, "y.ckpt")
    assert store.leftovers(3) == sorted([*dead, living])
    assert store.sweep(3) == dead
    assert store.leftovers(3) == [living]
    assert store.sweep(3) == []
    assert "an upload of bucket/run/x.ckpt that was never ended; it held 20 bytes" in caplog.text


def test_deeper_than_asked(store):
    """A sweep goes as many folders down as it was told."""
    name = begun(store, "a/b.ckpt", age=60)
    store.claim("mine", "now")
    assert store.sweep() == store.leftovers() == []
    assert store.sweep(1) == [name]


def test_the_shards_of_a_dead_run_and_those_of_one_below(store):
    """A shard lies one folder deeper than its checkpoint, and is swept with it; not what another run has below."""
    shard = "__0_0.holdfast-0123456789ab.distcp"
    dead, other = begun(store, f"x.ckpt/{shard}", age=60), begun(store, f"b/y.ckpt/{shard}", age=60)
    for name in ("z.ckpt", "b/w.ckpt"):
        store.objects.put(f"{BASE}/{name}/{shard}", b"a draft's")
        store.objects.age(f"{BASE}/{name}/{shard}", 60)
    store.claim("mine", "now")
    assert sorted(store.sweep()) == [dead, "z.ckpt"]
    assert store.leftovers(1) == ["b/w.ckpt", other]


def test_what_a_run_below_has_begun(store):
    """A run whose names have folders leaves what is under way, or left, below a folder that another run has claimed."""
    shard = "__0_0.holdfast-0123456789ab.distcp"
    RemoteStore("s3://bucket/run/b", f"{BASE}/b", store.objects).claim("theirs", "now")
    dead, living = begun(store, "a/x.ckpt", age=60), begun(store, "b/x.ckpt", age=60)
    for folder in ("a", "b"):
        for name in (f"{folder}/.holdfast-0.tmp", f"{folder}/y.ckpt/{shard}"):
            store.objects.put(f"{BASE}/{name}", b"x")
            store.objects.age(f"{BASE}/{name}", 60)
    store.claim("mine", "now")
    assert sorted(store.sweep(1)) == sorted([dead, "a/.holdfast-0.tmp", "a/y.ckpt"])
    assert store.leftovers(1) == sorted([living, "b/.holdfast-0.tmp", "b/y.ckpt"])


def test_without_a_claim(store):
    """Without a claim only what is a day old is aborted: its writer may live."""
    old, _ = begun(store, age=90_000), begun(store, "y.ckpt", age=3600)
    assert store.sweep(3) == [old]


def test_what_somebody_goes_on_with(store):
    """An upload for which this process has a ticket is kept, however old it is."""
    name = begun(store, age=90_000)
    dead_uploads.keep_uploads([name.partition("=")[2]])
    store.claim("mine", "now")
    assert store.sweep(3) == []


def test_temporaries(store):
    """Unfinished writes of stores that take no parts go the same way."""
    key = f"{BASE}/.holdfast-0.tmp"
    store.objects.put(key, b"x")
    assert store.sweep() == []
    store.objects.age(key, 60)
    store.claim("mine", "now")
    assert store.sweep() == [".holdfast-0.tmp"]


@pytest.mark.parametrize("error", [PermissionError("no"), FileNotFoundError("404"), NotImplementedError("501")])
def test_a_server_that_does_not_tell(store, error):
    """Where uploads cannot be listed, a run is not stopped by that; a server that is away is another matter."""

    def refuse(prefix):
        raise error

    store.objects.uploads = refuse
    assert store.sweep(3) == store.leftovers(3) == []
    error = ConnectionError("reset")
    with pytest.raises(ConnectionError):
        store.sweep(3)


def test_nothing_to_do(store):
    """A sweep that finds nothing asks twice: for the objects, and for the uploads."""
    store.claim("mine", "now")
    store.objects.calls.clear()
    store.sweep(3)
    assert store.objects.calls == ["list", "uploads"]


def test_a_claim_that_was_lost_sweeps_nothing(store, monkeypatch):
    """A run whose prefix another has taken over has no right to its uploads any more."""
    name = begun(store, age=60)
    store.claim("mine", "now")
    (held,) = claims._held.values()
    claims._lose(held, held.claimant)
    assert store.sweep(3) == []
    assert store.leftovers(3) == [name]


def test_no_commit_after_a_loss(store):
    """A put or a link of a run whose prefix another has taken over is refused, and changes nothing."""
    store.claim("mine", "now")
    store.put("x.ckpt", [b"old"])
    (held,) = claims._held.values()
    claims._lose(held, held.claimant)
    for attempt in (lambda: store.put("x.ckpt", [b"new"]), lambda: store.link("x.ckpt", "y.ckpt")):
        with pytest.raises(claims.DirectoryInUseError):
            attempt()
    assert [(blob.name, store.read(blob.name, 0, 9)) for blob in store.blobs()] == [("x.ckpt", b"old")]


def test_stamps(store):
    """A stamp is another when the bytes are; none where nobody can tell, which is no error after a commit."""
    store.put("x.ckpt", [b"one"])
    before = store.stamp("x.ckpt")
    store.put("x.ckpt", [b"two"])
    assert before is not None
    assert store.stamp("x.ckpt") != before

    def reset(key):
        raise ConnectionError(key)

    store.objects.head = reset
    assert store.stamp("x.ckpt") is None
