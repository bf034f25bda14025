"""A mirror: what it is offered arrives there, and what becomes of the rest."""

from __future__ import annotations

import os
import threading

import pytest

from holdfast import DamagedCheckpointError, verify
from holdfast.mirroring import Mirror
from holdfast.storage import open_store
from tests.mirroring.makings import all_whole, content, link, pin, save, unfinished


def test_what_is_offered_arrives(local, anywhere):
    """A mirror gets every checkpoint that it is offered, bit for bit, whole by every digest."""
    mirror = Mirror(local, open_store(anywhere))
    for number in range(3):
        save(local, f"{number}.ckpt", seed=number)
        mirror.offer(f"{number}.ckpt")
    status = mirror.close(wait=True)
    assert (status.settled, status.left, status.error, mirror.poll()) == (True, 0, "", [])
    assert content(open_store(anywhere)) == content(local)
    assert all_whole(anywhere) == ["0.ckpt", "1.ckpt", "2.ckpt"]


def test_a_second_name_is_a_copy_there(local, memory):
    """Of two names of one save only one is sent: the other is copied on the mirror's side."""
    save(local, "a.ckpt", size=10_000)
    link(local, "a.ckpt", "last.ckpt")
    mirror = Mirror(local, open_store(memory))
    mirror.offer("a.ckpt")
    mirror.wait()
    mirror.offer("last.ckpt")
    status = mirror.close()
    assert status.bytes == local.size("a.ckpt")
    assert content(open_store(memory)) == content(local)


def test_what_is_there_is_not_sent_again(local, memory):
    """A checkpoint that the mirror has is not sent, whoever brought it there."""
    save(local)
    for expected in (local.size("x.ckpt"), 0):
        mirror = Mirror(local, open_store(memory))
        mirror.offer("x.ckpt")
        assert mirror.close().bytes == expected


def test_a_newer_one_takes_the_name(local, memory):
    """A ``last`` that was saved anew replaces the one on the mirror; the mirror never goes back to an older one."""
    remote = open_store(memory)
    save(local, "last.ckpt", seed=1, sequence=1)
    older = local.read("last.ckpt", 0, 10**6)
    for seed in (1, 2):
        save(local, "last.ckpt", seed=seed, sequence=seed)
        mirror = Mirror(local, remote)
        mirror.offer("last.ckpt")
        mirror.close()
        assert content(remote) == content(local)
    newer = content(remote)
    local.put("last.ckpt", [older])
    mirror = Mirror(local, remote)
    mirror.offer("last.ckpt")
    mirror.close()
    assert content(remote) == newer
    assert "newer" in "".join(mirror.poll())


def test_another_runs_checkpoint_stays(local, memory):
    """What another run has on the mirror is not written over, and that is told."""
    remote = open_store(memory)
    save(remote, "x.ckpt", seed=7, run="theirs")
    before = content(remote)
    save(local, "x.ckpt")
    mirror = Mirror(local, remote)
    mirror.offer("x.ckpt")
    mirror.close()
    assert content(remote) == before
    assert "another run's" in "".join(mirror.poll())


def test_what_is_gone_is_left_out(local, memory):
    """A checkpoint that retention has removed before its turn is no problem."""
    mirror = Mirror(local, open_store(memory))
    mirror.offer("gone.ckpt")
    status = mirror.close()
    assert (status.settled, status.error, mirror.poll()) == (True, "", [])
    assert content(open_store(memory)) == {}


def test_damage_is_told_and_not_mirrored(local, memory):
    """A checkpoint that has gone bad on the local disk never reaches the mirror; those after it do."""
    save(local, "bad.ckpt", size=10_000)
    with open(local.path("bad.ckpt"), "r+b") as file:
        file.seek(20_000)
        file.write(b"\xff\x00\xff")
    with pytest.raises(DamagedCheckpointError):
        verify(local.path("bad.ckpt"))
    save(local, "good.ckpt", seed=1)
    mirror = Mirror(local, open_store(memory))
    mirror.offer("bad.ckpt")
    mirror.offer("good.ckpt")
    mirror.close()
    assert list(content(open_store(memory))) == ["good.ckpt"]
    assert "damaged" in "".join(mirror.poll())


def test_pins_and_signatures_come_along(local, anywhere):
    """What is said of a checkpoint, and its signature, are on the mirror with it; a stale signature is not."""
    known = save(local)
    pin(local, known)
    local.put("x.ckpt.sig", [b"signed"])
    remote = open_store(anywhere)
    mirror = Mirror(local, remote)
    mirror.offer("x.ckpt")
    mirror.close()
    assert content(remote) == content(local)
    local.remove("x.ckpt.sig")
    mirror = Mirror(local, remote)
    mirror.offer("x.ckpt")
    mirror.close()
    assert content(remote) == content(local)


def test_no_error_ends_the_thread(local, memory, monkeypatch):
    """Whatever goes wrong on the mirror's thread is told and tried again: nobody waits for a thread that is gone."""
    monkeypatch.setattr("holdfast.mirroring.mirror.PAUSES", (0.01,))
    wrong = [ZeroDivisionError("wrong"), KeyError()]

    def wants(name):
        if wrong:
            raise wrong.pop()
        return True

    save(local)
    mirror = Mirror(local, open_store(memory), wants=wants, after=lambda name: 1 / 0)
    mirror.offer("x.ckpt")
    assert mirror.wait(timeout=60)
    mirror.close()
    told = "\n".join(mirror.poll())
    assert ("KeyError" in told, "works again" in told, "nothing was removed" in told) == (True, True, True)
    assert content(open_store(memory)) == content(local)


def test_the_end_does_not_wait_for_a_server_that_says_nothing(local, memory, monkeypatch):
    """Behind a request that nothing interrupts the end hands over; when that is over nothing more is committed."""
    monkeypatch.setattr("holdfast.mirroring.mirror._GIVE_UP", 0.05)
    save(local)
    going, begun = threading.Event(), threading.Event()

    def wants(name):
        begun.set()
        return going.wait(60)

    mirror = Mirror(local, open_store(memory), wants=wants)
    mirror.offer("x.ckpt")
    assert begun.wait(60)
    thread = mirror._thread
    assert mirror.close(wait=False).under_way == "x.ckpt"
    assert thread.is_alive()
    going.set()
    thread.join(60)
    assert mirror.status.queued == ("x.ckpt",)
    assert content(open_store(memory)) == {}
    assert unfinished(local) == []


def test_a_forked_child_waits_for_nothing(local, memory):
    """A child that is forked in the middle of an upload neither uploads nor waits, and the parent's goes on."""
    save(local)
    going, begun = threading.Event(), threading.Event()

    def wants(name):
        begun.set()
        return going.wait(60)

    mirror = Mirror(local, open_store(memory), wants=wants)
    mirror.offer("x.ckpt")
    assert begun.wait(60)
    child = os.fork()
    if child == 0:
        mirror.offer("y.ckpt")
        os._exit(0 if mirror.wait() and mirror.close() else 1)
    assert os.waitpid(child, 0)[1] == 0
    going.set()
    assert mirror.close().settled
    assert content(open_store(memory)) == content(local)
