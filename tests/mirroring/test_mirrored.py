"""What ``ls`` and ``show`` say of copies on a mirror: as the directory knows, and as the mirror says."""

from __future__ import annotations

import json

import pytest

from holdfast import Latest, sync
from holdfast.cli import main
from holdfast.storage import open_store
from holdfast.storage.remote import RemoteStore
from tests.front.loops import Loop
from tests.mirroring.makings import save


def _listed(capsys, *arguments):
    """What ``ls --json`` says: the mirrors of each checkpoint, by name."""
    assert main(["ls", *arguments, "--json"]) == 0
    return {item["name"]: item["mirrored"] for item in json.loads(capsys.readouterr().out)}


def _no_request(*_, **__):
    pytest.fail("the mirror was asked")


def test_what_the_directory_knows(local, memory, capsys, monkeypatch):
    """Without a request ``ls`` and ``show`` tell what has arrived, under its name and as it is; before that nothing."""
    for number in range(3):
        save(local, f"{number}.ckpt", seed=number)
    assert set(map(str, _listed(capsys, local.root).values())) == {"None"}
    assert main(["ls", local.root]) == 0
    assert "mirror" not in capsys.readouterr().out
    sync(local.root, memory)
    save(local, "1.ckpt", seed=7)  # another save of the name
    save(local, "3.ckpt", seed=3)
    with monkeypatch.context() as patch:
        for name in ("blobs", "read", "exists", "size", "hidden", "files"):
            patch.setattr(RemoteStore, name, _no_request)
        assert _listed(capsys, local.root) == {"0.ckpt": [memory], "1.ckpt": [], "2.ckpt": [memory], "3.ckpt": []}
        assert main(["ls", local.root]) == 0
        assert f"2 of 4 on the mirror {memory} (at the last upload" in capsys.readouterr().out
        assert main(["show", local.path("0.ckpt")]) == 0
        assert f"on the mirror {memory}" in capsys.readouterr().out
        assert main(["show", "--json", local.path("3.ckpt")]) == 0
        assert json.loads(capsys.readouterr().out)["mirrored"] == []


def test_what_the_mirror_says(local, memory, capsys):
    """With ``--mirror`` the mirror is asked: what was removed there by hand is not there, whatever was known."""
    for number in range(2):
        save(local, f"{number}.ckpt", seed=number)
    assert _listed(capsys, local.root, "--mirror", memory) == {"0.ckpt": [], "1.ckpt": []}
    sync(local.root, memory)
    open_store(memory).remove("1.ckpt")
    assert _listed(capsys, local.root) == {"0.ckpt": [memory], "1.ckpt": [memory]}
    assert _listed(capsys, local.root, "--mirror", memory) == {"0.ckpt": [memory], "1.ckpt": []}
    assert main(["ls", local.root, "--mirror", memory]) == 0
    assert "1 of 2 on the mirror" in capsys.readouterr().out


def test_what_is_removed_there_is_known_here(local, memory, capsys):
    """What the rules of a sync have removed from the mirror is not said to be there."""
    for number in range(2):
        save(local, f"{number}.ckpt", seed=number)
    sync(local.root, memory)
    sync(local.root, memory, keep=Latest(1))
    assert _listed(capsys, local.root) == {"0.ckpt": [], "1.ckpt": [memory]}


def test_runs_in_folders(tmp_path, memory, capsys):
    """Of several runs below one directory each is said to be on its own mirror; retention there is followed."""
    for name in ("a", "b"):
        loop = Loop()
        ckpt = loop.checkpointer(tmp_path / name, mirror=f"{memory}-{name}", mirror_keep="Latest(1)", save_top_k=-1)
        loop.run(ckpt, 2)
    assert _listed(capsys, str(tmp_path)) == {
        f"{name}/{file}": [f"{memory}-{name}"] if file == "epoch=1-step=8.ckpt" else []
        for name in ("a", "b")
        for file in ("epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt")
    }


def test_a_damaged_note_is_none(local, memory, capsys):
    """A note that cannot be read says nothing, and the next upload writes it anew."""
    save(local, "0.ckpt")
    sync(local.root, memory)
    (name,) = (blob.name for blob in local.hidden(".holdfast-mirror") if blob.name.endswith(".there"))
    for bad in (b"", b"[]", b"{}", b'{"holdfast_mirror": 1, "url": 3, "there": []}', b"\xff" * 10):
        local.put(name, [bad])
        assert _listed(capsys, local.root) == {"0.ckpt": None}
    sync(local.root, memory)
    assert _listed(capsys, local.root) == {"0.ckpt": [memory]}
