"""Loading is safe: no code of a file runs unless it was asked for."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import os
import pathlib
import pickle
import subprocess
import sys
import uuid

import pytest
import torch

import holdfast
from holdfast import LoadError, UnsafeCheckpointError
from tests.support.files import save, small_state


class Mine:
    """A class of the user's own."""

    def __init__(self, value=1):
        self.value = value


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("where", ["top", "hyper_parameters", "metric"])
@pytest.mark.parametrize("form", ["ours", "torch", "old torch", "plain pickle"])
def test_no_code_runs(tmp_path, form, where):
    """A pickle with ``os.system`` in it, in a file of whatever form, is refused and never run."""
    canary = tmp_path / "canary"
    bomb = Bomb(canary)
    state = {"top": bomb, "hyper_parameters": {"state_dict": {}, "hyper_parameters": {"x": bomb}}, "metric": [bomb]}[
        where
    ]
    path = str(tmp_path / "x.ckpt")
    if form == "ours":
        save(path, state)
    elif form == "plain pickle":
        with open(path, "wb") as file:
            pickle.dump(state, file, protocol=2)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(LoadError) as caught:
        holdfast.load(path)
    holdfast.verify(path)
    assert not canary.exists()
    assert path in str(caught.value)
    if form in ("ours", "torch"):
        assert isinstance(caught.value, UnsafeCheckpointError)
        assert caught.value.needs == ("posix.system",)


def test_trusting_a_file_is_the_callers_word(tmp_path):
    """Only ``weights_only=False`` runs what a file names: the canary shows that this test could notice."""
    canary = tmp_path / "canary"
    holdfast.load(save(tmp_path / "x.ckpt", {"x": Bomb(canary)}), weights_only=False)
    assert canary.exists()


def test_allowing_a_class(tmp_path):
    """A class of the user's own is refused by name, with the cure; allowed, it is loaded."""
    path = save(tmp_path / "x.ckpt", {"hyper_parameters": {"mine": Mine(7)}})
    with pytest.raises(UnsafeCheckpointError) as caught:
        holdfast.load(path)
    text = str(caught.value)
    assert caught.value.needs == (f"{__name__}.Mine",)
    for part in (path, f"{__name__}.Mine", "allow=[Mine]", "add_safe_globals([Mine])", "weights_only=False"):
        assert part in text
    assert holdfast.load(path, allow=[Mine])["hyper_parameters"]["mine"].value == 7
    with pytest.raises(UnsafeCheckpointError):
        holdfast.load(path)  # what was allowed once is not allowed for good


HARMLESS = {
    "path": pathlib.Path("a/b"),
    "namespace": argparse.Namespace(lr=0.1, deep=argparse.Namespace(x=1)),
    "interval": dt.timedelta(minutes=5),
    "when": dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone.utc),
    "day": dt.date(2026, 1, 2),
    "id": uuid.UUID(int=5),
    "set": {1, 2},
    "frozen": frozenset({1}),
    "complex": 1 + 2j,
    "slice": slice(1, 2),
    "bytes": b"",
    "ordered": collections.OrderedDict(a=1),
    "counter": collections.Counter("aab"),
}


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_plain_values_need_no_permission(tmp_path, name):
    """What hyperparameters are made of loads without being allowed: building it runs no code of the file's choosing."""
    path = save(tmp_path / "x.ckpt", {"value": HARMLESS[name]})
    assert holdfast.load(path)["value"] == HARMLESS[name]


def test_the_permission_ends_with_the_load(tmp_path):
    """Loading adds nothing to torch's own list of allowed classes."""
    before = set(map(str, torch.serialization.get_safe_globals()))
    holdfast.load(save(tmp_path / "x.ckpt"), allow=[Mine])
    assert set(map(str, torch.serialization.get_safe_globals())) == before


def test_map_location(tmp_path):
    """Tensors go where they were told, to the CPU by default."""
    path = save(tmp_path / "x.ckpt", small_state())
    assert holdfast.load(path)["state_dict"]["weight"].device.type == "cpu"
    assert holdfast.load(path, map_location="meta")["state_dict"]["weight"].device.type == "meta"


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_paths_of_both_kinds(tmp_path, kind):
    """A path is a str or a Path, absolute or relative, with or without ``file://``."""
    save(tmp_path / "x.ckpt", small_state())
    assert holdfast.load(kind("x.ckpt"))["global_step"] == 2
    assert holdfast.load(kind(tmp_path / "x.ckpt"))["global_step"] == 2
    assert holdfast.load(f"file://{tmp_path}/x.ckpt")["global_step"] == 2


def test_importing_holdfast_is_cheap():
    """``import holdfast`` alone brings in neither torch nor fsspec nor Lightning."""
    code = "import sys, holdfast; print(sorted({'torch', 'fsspec', 'lightning', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
