"""How a bundle becomes durable on this machine, what steps aside for it, and what a sweep makes of what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from holdfast.storage import SEAL, Blob, bundles, local, open_store
from holdfast.testing.store_suite.bundles import put_bundle, read_bundle, seen

WRITER = """
import sys
from holdfast.storage import open_store
draft = open_store(sys.argv[1]).draft("x.ckpt")
print(draft.folder, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "run")


@pytest.fixture
def no_exchange(monkeypatch):
    """A filesystem that cannot exchange two names."""
    monkeypatch.setattr(bundles, "_exchange", lambda one, other: False)


@pytest.fixture
def calls(monkeypatch):
    """The syncs and renames, in their order, by what they are done to."""
    listed = []

    def shown(path):
        name = os.path.basename(os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path)
        return ("old" if ".was-" in name else "draft") if name.startswith(".holdfast-") else name

    def watched(name, real):
        def call(*arguments, **options):
            listed.append((name, *map(shown, arguments[:2])))
            return real(*arguments, **options)

        return call

    for name in ("fsync", "rename", "rmdir"):
        monkeypatch.setattr(local.os, name, watched(name, getattr(os, name)))
    monkeypatch.setattr(bundles, "_exchange", watched("exchange", bundles._exchange))
    return listed


def ready(store, name="x.ckpt"):
    """A draft that has only to be settled."""
    draft = store.draft(name)
    store.put(f"{draft.folder}/{SEAL}", [b"seal"])
    return draft


def test_the_order_of_a_commit(store, calls):
    """The draft's own names are synced before it is renamed, and the parent after it."""
    draft = ready(store)
    calls.clear()
    draft.settle()
    assert calls == [("fsync", "draft"), ("rename", "draft", "x.ckpt"), ("fsync", "run")]


def test_the_order_of_a_replacement(store, calls):
    """Names are exchanged in one step, and the old bundle is removed only when that is durable."""
    put_bundle(store, "x.ckpt")
    draft = ready(store)
    calls.clear()
    draft.settle()
    exchanged = [("rename", "draft", "x.ckpt"), ("exchange", "draft", "x.ckpt"), ("fsync", "run"), ("rmdir", "draft")]
    assert calls == [("fsync", "draft"), *exchanged]


@pytest.mark.usefixtures("no_exchange")
def test_the_order_without_exchange(store, calls, monkeypatch):
    """Where names cannot be exchanged, the old bundle gets a hidden name, and goes once the new one's is durable."""
    put_bundle(store, "x.ckpt")
    draft = ready(store)
    monkeypatch.setattr(bundles, "_exchange", lambda one, other: False)
    calls.clear()
    draft.settle()
    assert calls == [
        ("fsync", "draft"),
        ("rename", "draft", "x.ckpt"),
        ("rename", "x.ckpt", "old"),
        ("rename", "draft", "x.ckpt"),
        ("fsync", "run"),
        ("rmdir", "old"),
    ]
    assert store.blobs() == [Blob("x.ckpt", 4, bundle=True)]
    assert store.leftovers() == []


def test_the_order_of_a_removal(store, calls):
    """A bundle's name is gone for good before the first of its files goes."""
    put_bundle(store, "x.ckpt")
    calls.clear()
    store.remove("x.ckpt")
    assert calls == [("rename", "x.ckpt", "draft"), ("fsync", "run"), ("rmdir", "draft")]


@pytest.mark.usefixtures("no_exchange")
@pytest.mark.parametrize("old", ["bundle", "file"])
@pytest.mark.parametrize("arrived", [False, True])
def test_what_stepped_aside_comes_back(store, old, arrived):
    """A crash between the two renames loses neither: a sweep gives the old one its name back, unless the new has it."""
    put_bundle(store, "last.ckpt") if old == "bundle" else store.put("last.ckpt", [b"file"])
    before = store.blobs()
    aside = ".holdfast-0123456789abcdef.was-last.ckpt.tmp"
    os.rename(store.path("last.ckpt"), store.path(aside))
    if arrived:
        put_bundle(store, "last.ckpt", b"newer")
    assert store.leftovers() == [aside]
    assert store.sweep() == ([aside] if arrived else [])
    after = store.blobs()
    assert (after != before and after[0].bundle) if arrived else after == before
    assert store.leftovers() == []


def test_a_sweep_removes_nothing_before_its_replacement_is_durable(store, calls):
    """What was replaced a moment ago, by a writer that has not synced that yet, may come back: a sweep syncs first."""
    put_bundle(store, "x.ckpt")
    draft = store.draft("x.ckpt")
    hidden = store.path(draft.folder)
    draft.drop()
    os.rename(store.path("x.ckpt"), hidden)
    calls.clear()
    assert bundles.sweep_away(hidden)
    assert calls == [("fsync", "run"), ("rmdir", "draft")]
    assert not os.path.exists(hidden)


def test_logs_beside_a_plain_checkpoint_are_not_lost(store):
    """A folder that plain DCP saved into is replaced if it has nothing else in it, and otherwise left as it is."""
    for name in (".metadata", "__0_0.distcp", "events.log"):
        store.put(f"x.ckpt/{name}", [b"theirs"])
    draft = store.draft("x.ckpt")
    store.put(f"{draft.folder}/{SEAL}", [b"new"])
    with pytest.raises(IsADirectoryError, match="is not replaced"):
        draft.settle()
    assert sorted(os.listdir(store.path("x.ckpt"))) == [".metadata", "__0_0.distcp", "events.log"]
    os.unlink(store.path("x.ckpt/events.log"))
    draft.settle()
    assert os.listdir(store.path("x.ckpt")) == [SEAL]


@pytest.mark.usefixtures("no_exchange")
def test_an_error_between_two_renames(store, monkeypatch):
    """If the second rename fails, the old bundle has its name back at once, and the draft is still one."""
    made = put_bundle(store, "last.ckpt")
    draft = ready(store, "last.ckpt")
    real = os.rename

    def rename(origin, goal):
        if goal.endswith("/last.ckpt") and ".was-" not in origin:
            raise OSError(5, "broken") if os.path.lexists(goal) is False else OSError(39, "not empty")
        real(origin, goal)

    with monkeypatch.context() as patch:
        patch.setattr(bundles.os, "rename", rename)
        with pytest.raises(OSError, match="broken"):
            draft.settle()
    assert read_bundle(store, "last.ckpt", made) == made
    draft.settle()
    assert store.blobs() == [Blob("last.ckpt", 4, bundle=True)]


def test_a_draft_is_swept_when_its_writer_is_dead(tmp_path):
    """A living writer's draft stays, also an empty one; a killed one's goes with all that is in it, and only that."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    store = open_store(tmp_path)
    try:
        folder = writer.stdout.readline().strip()
        assert store.sweep() == []
        store.put(f"{folder}/__1_0.distcp", [b"one"])
        assert store.sweep() == []
        assert store.leftovers() == [folder]
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    os.symlink(outside, tmp_path / folder / "link")
    os.makedirs(tmp_path / folder / "deep" / "er")
    assert store.sweep() == [folder]
    assert os.listdir(tmp_path) == ["outside"]
    assert (outside / "precious").read_text() == "precious"


def test_links_are_not_followed_by_removals(store, tmp_path):
    """Of a link to a bundle, and of links in one, only the links are removed."""
    elsewhere = open_store(tmp_path / "elsewhere")
    made = put_bundle(elsewhere, "precious.ckpt")
    os.makedirs(store.root)
    os.symlink(elsewhere.path("precious.ckpt"), store.path("x.ckpt"))
    assert [blob.name for blob in store.blobs()] == ["x.ckpt"]
    assert store.blobs()[0].bundle
    store.remove("x.ckpt")
    put_bundle(store, "y.ckpt")
    os.symlink(elsewhere.root, store.path("y.ckpt/link"))
    store.remove("y.ckpt")
    os.symlink(elsewhere.path("precious.ckpt"), store.path("last.ckpt"))
    newer = put_bundle(store, "last.ckpt")
    assert store.blobs() == [seen("last.ckpt", newer)]
    assert read_bundle(elsewhere, "precious.ckpt", made) == made


@pytest.mark.usefixtures("no_exchange")
def test_a_link_gives_way_where_names_cannot_be_exchanged(store, tmp_path):
    """A bundle takes the name of a link, whose bundle stays, also by two renames; nothing hidden is left."""
    elsewhere = open_store(tmp_path / "elsewhere")
    made = put_bundle(elsewhere, "precious.ckpt")
    os.makedirs(store.root)
    os.symlink(elsewhere.path("precious.ckpt"), store.path("last.ckpt"))
    newer = put_bundle(store, "last.ckpt")
    assert store.blobs() == [seen("last.ckpt", newer)]
    assert read_bundle(elsewhere, "precious.ckpt", made) == made
    assert store.leftovers() == []


def test_a_second_name_where_there_are_no_hard_links(store, monkeypatch):
    """Where files cannot have two names, a second bundle is a copy, just as whole."""

    def refuse(*arguments, **options):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(bundles.os, "link", refuse)
    made = put_bundle(store, "a.ckpt")
    assert store.link("a.ckpt", "last.ckpt") in ("copy", "reflink")
    store.remove("a.ckpt")
    assert read_bundle(store, "last.ckpt", made) == made
    assert store.leftovers() == []


def test_a_link_that_fails_leaves_nothing(store, monkeypatch):
    """If a second name cannot be made, the old target stays and no draft is left."""
    made = put_bundle(store, "a.ckpt")
    store.put("last.ckpt", [b"old"])

    def fail(descriptor):
        raise OSError(28, "full")

    with monkeypatch.context() as patch:
        patch.setattr(bundles.os, "fsync", fail)
        with pytest.raises(OSError, match="full"):
            store.link("a.ckpt", "last.ckpt")
    assert store.blobs() == [seen("a.ckpt", made), Blob("last.ckpt", 3)]
    assert store.leftovers() == []
