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
from holdfast.front import loop_searching, opening
from holdfast.front.loop_state import Parts
from holdfast.front.passing import PassingOver
from holdfast.ranks import Ranks
from tests.support.files import content, put, save, small_state


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


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    "location",
    [
        "meta",
        torch.device("meta"),
        {"cpu": "meta"},
        lambda storage, _: torch.UntypedStorage(len(storage), device="meta"),
    ],
    ids=["name", "device", "dict", "callable"],
)
def test_another_device_in_each_way_of_saying_it(tmp_path, location, verify):
    """Tensors on another device, tied ones and views among them, are those that ``torch.load`` would give."""
    weight = torch.arange(50_000.0)
    path = save(tmp_path / "x.ckpt", {"a": weight, "b": weight, "part": weight[3:9], "small": torch.ones(2)})
    expected = torch.load(path, map_location=location)
    loaded = holdfast.load(path, map_location=location, verify=verify)
    for name, tensor in expected.items():
        assert (loaded[name].device.type, loaded[name].shape) == ("meta", tensor.shape)
        assert loaded[name].storage_offset() == tensor.storage_offset()


def test_a_location_that_is_none(tmp_path):
    """A device that does not exist is an error that names it, as every other that comes of a load."""
    with pytest.raises(LoadError, match="nowhere"):
        holdfast.load(save(tmp_path / "x.ckpt"), map_location="nowhere")


def test_the_environment_may_forbid_to_trust_files(tmp_path, monkeypatch):
    """torch's own switch against unsafe loads holds here too."""
    canary = tmp_path / "canary"
    path = save(tmp_path / "x.ckpt", {"x": Bomb(canary)})
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(LoadError):
        holdfast.load(path, weights_only=False)
    assert not canary.exists()


def newest(folder, **words):
    """What a resume finds in a folder: the newest whole one and its state, or None."""
    passing = PassingOver()
    search = loop_searching.Search(Ranks(), passing)
    search.look_at(opening.checkpoints(folder))
    try:
        return search.first_whole(loop_searching.Reading(Parts(), Ranks(), **words))
    finally:
        passing.settle(search.run)


def three(folder):
    """Three checkpoints of one run; their paths, oldest first."""
    return [
        save(folder / f"{step}.ckpt", {"x": torch.full((9,), float(step))}, step=step, sequence=step)
        for step in (1, 2, 3)
    ]


def test_the_newest_is_loaded_and_read_once(tmp_path, monkeypatch):
    """One pass over the newest file finds it, checks it and loads it; the others are not opened."""
    paths = three(tmp_path)
    opened = []
    real = loop_searching.load_into
    monkeypatch.setattr(
        loop_searching, "load_into", lambda path, into, **words: opened.append(path) or real(path, into, **words)
    )
    monkeypatch.setattr(loop_searching, "verify", None)
    path, state = newest(tmp_path)
    assert (path, state["x"][0].item(), opened) == (paths[2], 3.0, [paths[2]])


def test_damaged_ones_are_passed_over_by_name(tmp_path):
    """Newest ones with a flipped bit or without an end are warned of, and the newest whole one is loaded."""
    paths = three(tmp_path)
    data = content(paths[2])
    at = data.index(torch.full((9,), 3.0).numpy().tobytes())
    put(paths[2], data[:at] + b"\1" + data[at + 1 :])
    put(paths[1], content(paths[1])[:-300])
    with pytest.warns(UserWarning, match="passed over") as warned:
        path, state = newest(tmp_path)
    assert (path, state["x"][0].item()) == (paths[0], 1.0)
    said = " ".join(str(item.message) for item in warned)
    assert paths[1] in said
    assert paths[2] in said


@pytest.mark.filterwarnings("ignore:passed over")
def test_there_may_be_no_newest(tmp_path):
    """Nothing, weights alone, and nothing whole are all the same: there is none."""
    assert newest(tmp_path) is None
    save(tmp_path / "w.ckpt", weights_only=True)
    put(tmp_path / "x.ckpt", content(save(tmp_path / "x.ckpt"))[:-1])
    assert newest(tmp_path) is None


def test_a_newest_that_is_not_allowed_is_no_reason_to_go_back(tmp_path):
    """A whole newest file that needs a class is an error, not an older file in its place; allowed, it loads."""
    save(tmp_path / "1.ckpt", step=1, sequence=1)
    save(tmp_path / "2.ckpt", {"mine": Mine(7)}, step=2, sequence=2)
    with pytest.raises(UnsafeCheckpointError, match=r"2\.ckpt"):
        newest(tmp_path)
    _, state = newest(tmp_path, allow=[Mine])
    assert state["mine"].value == 7


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


def test_what_the_user_allowed_stays_allowed(tmp_path):
    """A load that allows a class leaves the process's own list of safe classes as it was."""
    path = save(tmp_path / "x.ckpt", {"mine": Mine(7)})
    with torch.serialization.safe_globals([Mine]):
        assert holdfast.load(path, allow=[Mine])["mine"].value == 7
        assert Mine in torch.serialization.get_safe_globals()
    assert Mine not in torch.serialization.get_safe_globals()
