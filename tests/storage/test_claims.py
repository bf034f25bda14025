"""One run, one prefix: two are told apart, a dead one is taken over, one that was taken over commits nothing more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from holdfast import DirectoryInUseError
from holdfast.storage.remote import abilities, claims, rivals
from holdfast.storage.remote.claimant import Claimant
from tests.support.folder_objects import FolderObjects, seen
from tests.support.running import PYTHONPATH

BASE, ROOT = "bucket/run", "s3://bucket/run"
FOLDER = rivals.folder_of(BASE)


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """No abilities known, nothing held, and a lease that a test can wait for."""
    abilities.forget_abilities()
    monkeypatch.setattr(claims, "LEASE", 0.25)
    monkeypatch.setattr(claims, "INTERVAL", 60.0)
    yield
    claims.give_up_all_claims()
    abilities.forget_abilities()


@pytest.fixture(params=[True, False], ids=["conditions", "none"])
def objects(request, tmp_path):
    return FolderObjects(tmp_path / "store", conditions=request.param)


def take(objects, run="mine"):
    return claims.claim(objects, BASE, ROOT, run=run, since="2026-01-01T00:00:01+00:00")


def left_by(objects, *, age=0.0, **words):
    """A claim of another machine's process, so old by the server's clock."""
    claimant = replace(Claimant.this("theirs", "2026-01-01", 0.25), place="elsewhere", host="far", **words)
    key = f"{FOLDER}run.has" if objects.conditions else f"{FOLDER}{claimant.token}.has"
    objects.put(key, claimant.encode())
    objects.age(key, age)
    return key, claimant


@pytest.fixture
def start(objects):
    """Start processes that claim the prefix."""
    started = []

    def run(lease=0.4, interval=0.05):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.storage.jobs_claims",
                objects.folder,
                str(int(objects.conditions)),
                str(lease),
                str(interval),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{PYTHONPATH}{os.pathsep}{os.getcwd()}"},
            cwd=ROOT_FOLDER,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


ROOT_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def ask(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_taken_and_given_up(objects):
    """A prefix that nobody has is had at once, by one object that says who; giving it up leaves nothing."""
    claim = take(objects)
    (key,) = objects.there()
    assert {name: seen(objects, key)[name] for name in ("run", "pid")} == {"run": "mine", "pid": str(os.getpid())}
    assert claims.claimed_here(BASE)
    claim.check()
    claim.give_up()
    claim.give_up()
    assert not claims.claimed_here(BASE)
    assert objects.there() == []


def test_requests(objects):
    """Taking a prefix costs four requests beside the first probe of the server; a check of a fresh claim none."""
    abilities.abilities_of(objects, BASE)
    objects.calls.clear()
    claim = take(objects)
    assert objects.calls == ["put", "list", "put", "remove"]
    claim.check()
    claims.check_commit(f"{BASE}/x.ckpt")
    assert len(objects.calls) == 4
    claim.give_up()
    assert objects.calls[4:] == ["remove"]


def test_shared_in_one_process(objects):
    """Several savers of one process have a prefix together, until the last gives it up."""
    first, second = take(objects), take(objects)
    assert len(objects.there()) == 1
    first.give_up()
    second.check()
    assert len(objects.there()) == 1
    second.give_up()
    assert objects.there() == []


def test_a_living_process_of_this_machine(objects, start):
    """A second run is refused at once, and told who has it; the first is not disturbed."""
    holder = start(lease=60, interval=60)
    assert holder.stdout.readline() == "has it\n"
    with pytest.raises(DirectoryInUseError, match=f"run one, which is alive: process {holder.pid} on host"):
        take(objects)
    assert ask(holder) == "holds"
    assert len(objects.there()) == 1
    holder.communicate()
    take(objects).give_up()


def test_killed_on_this_machine(objects, start):
    """The prefix of a process that was killed here is had at once, however long its lease is."""
    holder = start(lease=600, interval=60)
    assert holder.stdout.readline() == "has it\n"
    holder.kill()  # and not waited for: a zombie is dead, too
    while not Claimant.decode(objects.get(objects.there()[0], 0, 9999)).is_dead:
        time.sleep(0.01)
    take(objects).check()
    assert len(objects.there()) == 1


def test_stopped_for_longer_than_its_lease(objects, start):
    """A process that was stopped is taken over once its lease is over; going on, it finds out before it commits."""
    holder = start()
    assert holder.stdout.readline() == "has it\n"
    holder.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while True:
        try:
            claim = take(objects)
            break
        except DirectoryInUseError:  # it was renewed just before
            assert time.monotonic() < deadline
            time.sleep(0.1)
    holder.send_signal(signal.SIGCONT)
    while (said := ask(holder)) == "holds" and time.monotonic() < deadline:
        time.sleep(0.1)  # its heart may not have beaten yet: then its claim is what it was
    assert said == "lost to mine"
    claim.check()
    holder.communicate()
    claim.check()
    assert len(objects.there()) == 1


def test_elsewhere_and_dead(objects, caplog):
    """A claim of another machine that is not renewed is waited for, for one lease, with a word in the log."""
    left_by(objects)
    take(objects).check()
    assert "waiting until it does so again, and at most 0 s" in caplog.text
    assert len(objects.there()) == 1


def test_elsewhere_and_long_dead(objects, caplog):
    """One that was not renewed for its lease by the server's clock is taken over without waiting."""
    left_by(objects, age=5.0, lease=4.0)
    take(objects)
    assert "waiting" not in caplog.text
    assert len(objects.there()) == 1


def test_elsewhere_and_alive(objects):
    """One that is renewed meanwhile lives: refused as soon as that is seen, and left as it is."""
    key, claimant = left_by(objects, lease=1.2)
    beat = threading.Timer(0.05, lambda: objects.put(key, claimant.later().encode()))
    beat.start()
    with pytest.raises(DirectoryInUseError, match="on host far"):
        take(objects)
    beat.join()
    assert objects.there() == [key]


def test_taken_over_while_it_slept(objects, monkeypatch, caplog):
    """A run that slept finds another in its place at its next commit: an error that names it."""
    claim = take(objects)
    slept(monkeypatch)
    key, _ = left_by(objects)
    if not objects.conditions:
        objects.remove([other for other in objects.there() if other != key])
    for _ in range(2):
        with pytest.raises(DirectoryInUseError, match="run theirs"):
            claim.check()
        with pytest.raises(DirectoryInUseError, match="run theirs"):
            claims.check_commit(f"{BASE}/x.ckpt")
    assert caplog.text.count("was taken over by run theirs") == 1
    claim.give_up()
    assert objects.there() == [key]


def test_taken_over_and_over_again(objects, monkeypatch):
    """Also if the one that took it has ended and left nothing."""
    claim = take(objects)
    slept(monkeypatch)
    objects.remove(objects.there())
    with pytest.raises(DirectoryInUseError):
        claim.check()
    assert objects.there() == []


def slept(monkeypatch):
    before = claims.seconds
    monkeypatch.setattr(claims, "seconds", lambda: before() + 3600)


def test_slept_and_nobody_came(objects, monkeypatch):
    """A run that slept, and whose claim nobody has taken, renews it and goes on."""
    claim = take(objects)
    slept(monkeypatch)
    claim.check()
    assert seen(objects, objects.there()[0])["beat"] == 1


def test_removed_by_hand(objects):
    """A fresh claim whose object somebody has removed is made again by the next beat."""
    take(objects)
    (held,) = claims._held.values()
    objects.remove(objects.there())
    claims._renew(held)
    assert held.taker is None
    assert len(objects.there()) == 1


@pytest.mark.parametrize("lost", ["claim", "beat"])
def test_a_lost_answer(tmp_path, lost):
    """A conditional put that did succeed and whose answer was lost is known to be ours."""
    objects = FolderObjects(tmp_path / "store")
    abilities.abilities_of(objects, BASE)
    real, wanted = objects.put, ["run.has"]

    def put(key, data, **words):
        if wanted and key.endswith(wanted[0]):
            wanted.clear()
            real(key, data, **words)  # and once more, as a retry does
        return real(key, data, **words)

    if lost == "claim":
        objects.put = put
    claim = take(objects)
    objects.put = put
    (held,) = claims._held.values()
    claims._renew(held)
    claim.check()
    assert held.taker is None
    assert not wanted
    assert seen(objects, f"{FOLDER}run.has")["beat"] == 1


def test_racing_processes(objects, start):
    """Of several processes that start at the same time one has the prefix, and the others are refused."""
    racers = [start(lease=20, interval=5) for _ in range(3)]
    said = sorted(racer.stdout.readline().strip() for racer in racers)
    assert said.count("has it") <= 1
    assert said.count("refused") == 3 - said.count("has it")
    assert said.count("has it") == 1


def test_racing_for_a_dead_one(objects):
    """Of two that wait for the same dead claim one gets it, also where there are no conditions."""
    left_by(objects, lease=0.3)
    got = []

    def attempt(token):
        claimant = replace(Claimant.this("racer", "", 1.0), token=token, place=f"machine {token}")
        taken = None
        try:
            got.append(taken := claims.Taking(objects, BASE, ROOT, claimant).take())
        except DirectoryInUseError:
            got.append(None)
        while taken and len(got) < 2:  # a heart that beats
            objects.put(taken.key, (claimant := claimant.later()).encode())
            time.sleep(0.02)

    threads = [threading.Thread(target=attempt, args=(token,)) for token in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken is not None for taken in got) == 1
    assert len(objects.there()) == 1


def test_a_stale_listing_is_found_out(tmp_path):
    """Where a listing hid each from the other, the first beat tells, and one commits nothing more."""
    objects = FolderObjects(tmp_path / "store", conditions=False)
    key, _ = left_by(objects, lease=30.0)
    objects.hidden.add(key)
    claim = take(objects)
    objects.hidden.clear()
    (held,) = claims._held.values()
    claims._try_to_renew(held)
    with pytest.raises(DirectoryInUseError, match="run theirs"):
        claim.check()


def test_a_forked_child_holds_nothing(objects):
    """A child neither renews nor gives up what its parent has."""
    claim = take(objects)
    child = os.fork()
    if not child:
        claim.give_up()
        claims.give_up_all_claims()
        os._exit(int(claims.claimed_here(BASE)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    claim.check()
    assert len(objects.there()) == 1


def test_the_heart_beats(objects, monkeypatch):
    """A claim is renewed by itself, at each interval, by one request; an error of the server does not stop that."""
    monkeypatch.setattr(claims, "INTERVAL", 0.05)
    real, broken = objects.put, []

    def put(key, data, **words):
        if not broken:
            broken.append(key)
            raise ConnectionError("reset")
        return real(key, data, **words)

    claim = take(objects)
    objects.put = put
    (key,) = objects.there()
    while seen(objects, key)["beat"] < 3:
        time.sleep(0.02)
    claim.give_up()
    assert objects.there() == []


def test_a_server_that_is_away_at_the_end(objects, monkeypatch):
    """Giving up does not wait for a server that does not answer."""
    claim = take(objects)
    release = threading.Event()
    objects.remove = lambda keys: release.wait(30)
    monkeypatch.setattr(claims, "_GIVE_UP", 0.05)
    claim.give_up()
    release.set()


def test_damaged_claims_lapse(objects):
    """What cannot be read counts as somebody's, for the usual lease, and no longer."""
    key = f"{FOLDER}run.has" if objects.conditions else f"{FOLDER}x.has"
    objects.put(key, b"\xff{")
    objects.age(key, 61)
    take(objects).check()


def test_the_network_is_lost(objects, monkeypatch):
    """A run that cannot renew its claim in time commits nothing until it can; then it goes on, if nobody came."""
    claim = take(objects)
    slept(monkeypatch)
    real = objects.put, objects.list

    def lost(*_, **__):
        raise ConnectionError("no route to host")

    objects.put = objects.list = lost
    for _ in range(2):
        with pytest.raises(ConnectionError):
            claims.check_commit(f"{BASE}/x.ckpt")
    objects.put, objects.list = real
    claims.check_commit(f"{BASE}/x.ckpt")
    claim.check()
