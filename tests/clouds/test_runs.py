"""Runs on Google's and Azure's stores: killed, raced, without a machine, without rights."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import time

import pytest
import torch

import holdfast
from holdfast import Checkpointer, HoldfastError
from holdfast.front.doctor import doctor
from holdfast.storage import open_store
from holdfast.storage.remote.connect import connect
from holdfast.storage.remote.uploading import MemorySource, upload
from holdfast.testing import CountingObjects
from tests.clouds.training import digest, parts, train
from tests.support.clouds import ACCOUNT, ACCOUNT_KEY
from tests.support.running import PYTHONPATH

pytestmark = pytest.mark.long

LAPS, STEPS = 5, 24
RACERS = 4
RACE = """
import sys, time, torch
from holdfast import Checkpointer, DirectoryInUseError
model = torch.nn.Linear(1, 1)
print("ready", flush=True)
sys.stdin.readline()
try:
    ckpt = Checkpointer(sys.argv[1], model=model)
except DirectoryInUseError:
    print("refused", flush=True)
else:
    print("won", flush=True)
sys.stdin.readline()
"""


def started(cloud, *arguments):
    """A process of Python's that knows the emulator."""
    path = os.pathsep.join([PYTHONPATH, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **cloud.environment(), "PYTHONPATH": path, "HOLDFAST_PATIENCE": "30"},
    )


def new(cloud):
    return cloud.url(f"run-{secrets.token_hex(4)}")


def acknowledged(path):
    """The digests of the steps that a run was told are committed; half a line is none."""
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        lines = [line.split() for line in file if line.endswith("\n")]
    return {int(step): weights for step, weights in lines}


def told_of(error):
    """All that an error shows of itself and of its causes."""
    texts = []
    while error is not None:
        texts.append(f"{error} {error!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return " ".join(texts)


def weights_of(path):
    model, _ = parts()
    model.load_state_dict(holdfast.load(path)["state_dict"])
    return digest(model)


def test_killed_at_any_instant(cloud, tmp_path):
    """What was acknowledged is there, whole and right after each kill; nothing else is listed; the end is the same."""
    dice = random.Random(11)  # noqa: S311 - instants, no secrets
    url, acks, told = new(cloud), str(tmp_path / "acks"), {}
    for lap in range(LAPS):
        process = started(cloud, "-m", "tests.clouds.training", url, acks, str(STEPS))
        deadline = time.monotonic() + 90
        while len(acknowledged(acks)) <= len(told) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(dice.random() * 0.7)
        process.kill()
        process.communicate()
        before, told = told, acknowledged(acks)
        assert len(told) > len(before), f"lap {lap}: nothing was saved"
        there = {one.step for one in holdfast.catalog(url)}
        assert max(told) in there or max(told) + 1 in there
        assert max(there) <= max(told) + 1
        for one in holdfast.verify_all(url):
            assert one.whole
        newest = holdfast.newest(url)
        step = holdfast.open(newest).step
        assert step >= max(told)
        if step in told:
            assert weights_of(newest) == told[step]
    process = started(cloud, "-m", "tests.clouds.training", url, acks, str(STEPS))
    said, _ = process.communicate(timeout=300)
    assert said.strip() == train(str(tmp_path / "here"), str(tmp_path / "acks here"), STEPS)
    store = open_store(url)
    assert store.leftovers(3) == []
    assert store.hidden(".holdfast-claims") == []


def test_one_of_many_has_a_prefix(cloud):
    """Of several that begin at one instant one trains there, and the others are told so."""
    url = new(cloud)
    racers = [started(cloud, "-c", RACE, url) for _ in range(RACERS)]
    try:
        assert [one.stdout.readline() for one in racers] == ["ready\n"] * RACERS
        for one in racers:
            one.stdin.write("\n")
            one.stdin.flush()
        assert sorted(one.stdout.readline() for one in racers) == ["refused\n"] * (RACERS - 1) + ["won\n"]
    finally:
        for one in racers:
            one.kill()
            one.communicate()


def test_a_machine_that_vanished(cloud, tmp_path):
    """Its run goes on elsewhere, from the mirror alone, and ends with the same weights."""
    mirror = new(cloud)
    train(str(tmp_path / "one"), str(tmp_path / "acks"), 4, mirror)
    there = train(str(tmp_path / "two"), str(tmp_path / "acks"), 7, mirror)
    assert there == train(str(tmp_path / "here"), str(tmp_path / "acks here"), 7)
    assert [one.step for one in holdfast.catalog(mirror)][:1] == [7]


def test_verbs(cloud, tmp_path):
    """Copies, names, pins and removals do there what they do here; the doctor finds nothing."""
    url = new(cloud)
    train(url, str(tmp_path / "acks"), 3)
    copied = f"{url}-copy/x.ckpt"
    holdfast.copy(holdfast.newest(url), copied)
    holdfast.copy(copied, tmp_path / "x.ckpt")
    assert weights_of(tmp_path / "x.ckpt") == weights_of(holdfast.newest(url))
    assert doctor(url) == []
    here = str(tmp_path / "here")
    train(here, str(tmp_path / "acks here"), 3)
    assert [one.step for one in holdfast.catalog(url)] == [one.step for one in holdfast.catalog(here)]
    for place in (url, here):
        holdfast.prune(place, "Latest(1)", dry_run=False)
    assert [one.step for one in holdfast.catalog(url)] == [one.step for one in holdfast.catalog(here)]


def test_no_such_bucket(cloud):
    """A bucket that is not there is an error of ours, at once, that names the URL."""
    url = f"{cloud.schemes[0]}://nowhere/run"
    with pytest.raises((HoldfastError, OSError), match="nowhere"):
        Checkpointer(url, model=torch.nn.Linear(1, 1))


def test_what_arrives_changed_is_refused(cloud, monkeypatch):
    """Bytes that change on their way, of a small object and of a block, make an error and no object."""
    import hashlib

    objects, base = connect(new(cloud))
    if cloud.schemes[0] == "az":
        wrong = hashlib.md5(b"other", usedforsecurity=False)
        monkeypatch.setattr("holdfast.storage.remote.azure.hashlib.md5", lambda *_, **__: wrong)
    else:
        monkeypatch.setattr("holdfast.storage.remote.gcs._checksum", lambda *_: 7)
    for size in (5, 20 << 20):
        with pytest.raises(OSError, match=r"x\.ckpt"):
            objects.inner.put(f"{base}/x.ckpt", iter([b"x" * size]))
    if objects.parts is not None:
        with pytest.raises(OSError, match=r"x\.ckpt"):
            objects.inner.part(f"{base}/x.ckpt", objects.begin(f"{base}/x.ckpt"), 1, b"x" * 100)
    assert [*objects.list(f"{base}/")] == []


def test_a_wrong_key(clouds):
    """Azure's refusal is told at once, and shows neither the key nor the connection string."""
    server = clouds("az")
    right = server.options["connection_string"]
    wrong = right.replace(ACCOUNT_KEY, "c2VjcmV0LXNlY3JldC1zZWNyZXQ=")
    url = f"{new(server)}/deep/run"
    with pytest.raises((HoldfastError, OSError)) as caught:
        Checkpointer(url, model=torch.nn.Linear(1, 1), storage_options={"connection_string": wrong})
    said = told_of(caught.value)
    assert "c2VjcmV0LXNlY3JldC1zZWNyZXQ=" not in said
    assert "403" in said
    with pytest.raises(HoldfastError) as caught:
        holdfast.catalog(
            f"{new(server)}/deep/run", storage_options={"connection_string": "AccountKey=c2VjcmV0LXNlY3JldC1zZWNyZXQ"}
        )
    said = told_of(caught.value)
    assert "c2VjcmV0LXNlY3JldC1zZWNyZXQ" not in said


def test_a_signature_in_the_options(clouds, tmp_path):
    """A SAS trains, copies and lists; one that has expired is a refusal that does not show it."""
    from datetime import datetime, timedelta, timezone

    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    server, now = clouds("az"), datetime.now(timezone.utc)
    rights = AccountSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True)

    def options(until):
        kinds = ResourceTypes(service=True, container=True, object=True)
        sas = generate_account_sas(ACCOUNT, ACCOUNT_KEY, kinds, rights, expiry=until)
        return sas, {"connection_string": f"BlobEndpoint={server.endpoint};SharedAccessSignature={sas}"}

    url = f"{new(server)}/deep/run"
    sas, said = options(now + timedelta(hours=1))
    model = torch.nn.Linear(3, 1)
    with Checkpointer(url, model=model, save_last=True, every_n_train_steps=1, storage_options=said) as ckpt:
        ckpt.step()
    assert sorted(one.name for one in holdfast.catalog(url)) == ["epoch=0-step=1.ckpt", "last.ckpt"]
    sas, said = options(now - timedelta(minutes=9))
    with pytest.raises((HoldfastError, OSError), match="403") as caught:
        Checkpointer(f"{new(server)}/deep/run", model=model, storage_options=said)
    assert sas.rpartition("sig=")[2] not in told_of(caught.value)


def test_an_upload_that_goes_on(clouds):
    """With a ticket the blocks that Azure has are not sent again, and the object has the bytes."""
    objects, base = connect(new(clouds("az")))
    data = random.Random(3).randbytes(50 << 20)  # noqa: S311 - any bytes
    tickets, key = [], f"{base}/x.ckpt"

    def die():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        upload(objects, key, MemorySource(data), keep=tickets.append, gate=die)
    with pytest.raises(FileNotFoundError):
        objects.head(key)
    counted = CountingObjects(objects)
    head = upload(counted, key, MemorySource(data), ticket=tickets[-1])
    assert (head.size, objects.get(key, 0, 1 << 30) == data) == (len(data), True)
    assert "part" not in counted.counts
