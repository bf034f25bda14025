"""Whose name it is on a mirror: what must stay there is not written over by what a run brings under the same name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.engine import commit
from holdfast.mirroring import Mirror
from holdfast.scanning import look
from holdfast.storage import open_store
from tests.mirroring.makings import content, pin, save


def _brought(local, remote, name="x.ckpt"):
    """What the mirror tells after a checkpoint was offered to it."""
    mirror = Mirror(local, remote)
    mirror.offer(name)
    assert mirror.close().settled
    return "".join(mirror.poll())


@pytest.mark.parametrize("run", ["run", "theirs"])
def test_what_a_later_holdfast_wrote(local, memory, monkeypatch, run):
    """A checkpoint of a format that is not known here is no damaged one: it stays, and that is told."""
    remote = open_store(memory)
    with monkeypatch.context() as later:
        encode = commit.encode
        later.setattr(commit, "encode", lambda manifest: encode(replace(manifest, format=99)))
        save(remote, seed=7, run=run)
    assert look(remote, "x.ckpt").problem
    before = content(remote)
    save(local)
    assert "a later holdfast" in _brought(local, remote)
    assert content(remote) == before


def test_what_is_pinned_there(local, memory):
    """A pin on the mirror alone keeps the checkpoint there from a newer one of its name; ``last`` moves on."""
    remote = open_store(memory)
    for name, role in (("x.ckpt", "ranked"), ("last.ckpt", "last")):
        known = save(local, name, seed=1, role=role)
        assert not _brought(local, remote, name)
        pin(remote, known)
        save(local, name, seed=2, role=role)
    before = content(remote)
    assert "pinned there" in _brought(local, remote)
    assert content(remote) == before
    assert not _brought(local, remote, "last.ckpt")
    assert content(remote)["last.ckpt"] == content(local)["last.ckpt"] != before["last.ckpt"]


def test_what_comes_wrong_once(local, memory, monkeypatch):
    """Another run's checkpoint that is read wrongly once is not taken for a damaged one and written over."""
    remote = open_store(memory)
    save(remote, seed=7, run="theirs")
    before = content(remote)
    save(local)
    kind, wrong = type(remote.objects), [b"\0"]
    get = kind.get

    def get_wrong(self, key, start, end):
        data = get(self, key, start, end)
        return data.replace(b"theirs", b"thears") if wrong and b"theirs" in data and not wrong.clear() else data

    monkeypatch.setattr(kind, "get", get_wrong)
    assert "another run's" in _brought(local, remote)
    assert not wrong
    assert content(remote) == before
