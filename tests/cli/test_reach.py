"""How far ``ls`` and ``verify`` see: deep folders, other extensions, and files of which nothing can be said."""

from __future__ import annotations

import json
import os

import pytest

import holdfast
from holdfast.cli import main
from tests.support.files import content, put, save, small_state, torch_bytes

DEPTHS = (1, 4, 12, 40)


def _damage(path):
    data = bytearray(content(path))
    data[len(data) // 2] ^= 1
    put(path, bytes(data))


@pytest.mark.parametrize("depth", DEPTHS)
def test_many_folders_down(tmp_path, capsys, depth):
    """A checkpoint is listed and verified however deep its folder lies, and damage down there is found."""
    folder = os.path.join(tmp_path, *map(str, range(depth)))
    os.makedirs(folder)
    path = save(os.path.join(folder, "x.ckpt"))
    name = os.path.relpath(path, tmp_path)
    assert main(["ls", "--json", str(tmp_path)]) == 0
    assert [look["name"] for look in json.loads(capsys.readouterr().out)] == [name]
    assert main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"whole    {path}\n"
    _damage(path)
    assert main(["verify", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith(f"DAMAGED  {path}")


@pytest.mark.parametrize("extension", [".pth", ".pt", ""])
def test_another_extension(tmp_path, capsys, extension):
    """Files that have a manifest are found by it, whatever they are called; other files are none of ours."""
    path = save(tmp_path / f"x{extension}")
    put(tmp_path / "weights.pt", torch_bytes(small_state()))
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    assert main(["ls", "--json", str(tmp_path)]) == 0
    assert [look["name"] for look in json.loads(capsys.readouterr().out)] == [f"x{extension}"]
    assert main(["verify", "--json", str(tmp_path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["path"], found["whole"], found["manifest"]) == (path, True, True)
    _damage(path)
    assert main(["verify", str(tmp_path)]) == 1
    with pytest.warns(UserWarning, match="passed over"):
        assert holdfast.newest(tmp_path) is None


@pytest.mark.parametrize("part", [1.0, 0.9, 0.5], ids=["whole", "cut", "halved"])
def test_a_file_that_cannot_be_verified(tmp_path, capsys, part):
    """A torch file of before the zip has no checksums: cut off or not, it is not called whole, and the code is 1."""
    data = torch_bytes(small_state(), _use_new_zipfile_serialization=False)
    path = put(tmp_path / "old.ckpt", data[: int(len(data) * part)])
    for target in (path, str(tmp_path)):
        assert main(["verify", target]) == 1
        out = capsys.readouterr().out
        assert out.startswith(f"unknown  {path}")
        assert "cannot be verified" in out
        assert main(["verify", "--json", target]) == 1
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["path"], found["whole"], found["manifest"]) == (path, None, False)
