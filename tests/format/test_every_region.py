"""The instrument of damages, and what becomes of each of them at every door that reads a checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast import Checkpointer, DamagedCheckpointError
from holdfast.cli import main
from holdfast.testing.damage import damages, every_bit, flips, regions, survey
from tests.support.files import content, put, save, small_state, torch_bytes
from tests.support.properties import examples
from tests.support.states import same, states

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KINDS = {"flipped", "truncated", "zeroed", "extended", "swapped", "duplicated", "shifted"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two checkpoints of one layout, and a folder for what is made of them."""
    folder = tmp_path_factory.mktemp("pair")
    one = save(folder / "one.ckpt", small_state(), step=2, metrics={"val_loss": 0.25})
    two = save(folder / "two.ckpt", small_state(seed=1), step=2, metrics={"val_loss": 0.75})
    (folder / "damaged").mkdir()
    return content(one), content(two), folder / "damaged" / "x.ckpt"


def expected(region):
    """The record that has to be named for damage in a region alone."""
    if region.part in ("directory entry", "end record"):
        return "central directory"
    if (region.record, region.part) == ("holdfast/manifest", "data"):
        return "manifest"
    return f"record {region.record}"


@examples(40)
@given(states())
def test_the_regions_are_the_file(state):
    """Of torch's files of arbitrary states the regions follow each other, from the first byte to the last."""
    data = torch_bytes(state)
    found = regions(data)
    assert [item.begin for item in found] == [0, *(item.end for item in found[:-1])]
    assert found[-1].end == len(data)
    assert {"header", "data", "directory entry", "end record"} <= {item.part for item in found}
    assert "data.pkl" in {item.record for item in found}


@examples(60)
@given(st.binary(max_size=300))
def test_what_is_no_checkpoint_is_one_region(data):
    """Arbitrary bytes are one region, and can be damaged all the same."""
    assert [(item.begin, item.end) for item in regions(data)] == [(0, len(data))]
    if data:
        assert all(damage.apply(data) != data for damage in damages(data, every=1))


def test_there_is_damage_of_every_kind_in_every_region(pair):
    """Each kind occurs, each region is flipped and zeroed, and no damage leaves the file or makes the other one."""
    data, other, _ = pair
    made = list(damages(data, other))
    assert {damage.kind for damage in made} == KINDS
    for region in regions(data):
        hit = {damage.kind for damage in made if damage.region == region}
        assert hit >= ({"flipped", "zeroed"} if any(data[region.begin : region.end]) else {"flipped"})
    assert all(damage.apply(data) not in (data, other) for damage in made)
    assert len(list(every_bit(data))) == 8 * len(data)


def test_every_damage_is_refused_and_named(pair):
    """Whatever is done to whatever region, verification and loading refuse it, and name the record that it hit."""
    data, other, path = pair
    for damage in damages(data, other):
        put(path, damage.apply(data))
        for use in (holdfast.verify, holdfast.load):
            with pytest.raises(DamagedCheckpointError) as caught:
                use(path)
            assert caught.value.record, damage.what
            if damage.region is not None and damage.kind in ("flipped", "zeroed"):
                assert caught.value.record.startswith(expected(damage.region)), damage.what


@pytest.mark.parametrize("made", [bytes(5000), b"P", b"PK\3"], ids=["zeros", "one byte", "three bytes"])
def test_what_a_power_cut_has_emptied_is_not_passed_over_in_silence(tmp_path, made, capsys):
    """A checkpoint of zeros, or of a few bytes, is listed as damaged, warned of by a resume and set aside."""
    path = put(tmp_path / "x.ckpt", made)
    assert main(["ls", str(tmp_path)]) == 1
    assert main(["verify", path]) == 1
    assert "damaged: the file: " in capsys.readouterr().out
    with (
        pytest.warns(UserWarning, match=r"passed over.*x\.ckpt"),
        Checkpointer(tmp_path, model=torch.nn.Linear(1, 1)) as checkpointer,
    ):
        assert checkpointer.resume().path is None
    assert os.listdir(tmp_path) == ["x.ckpt.damaged"]


def doors(path):
    """Each way to a state or a verdict; all are to refuse."""
    from holdfast.lightning import CheckpointIO

    folder = os.path.dirname(path)
    with pytest.raises(DamagedCheckpointError):
        CheckpointIO().load_checkpoint(path)
    assert holdfast.newest(folder) is None
    with Checkpointer(folder, model=torch.nn.Linear(2, 2)) as checkpointer:
        with pytest.raises(DamagedCheckpointError):
            checkpointer.resume(path)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            start = checkpointer.resume()
        assert start.path is None
        assert any(str(path) in str(item.message) for item in warned)


@pytest.mark.filterwarnings("ignore:passed over")
@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.long), 79], ids=["all", "some"])
def test_every_door_refuses_every_damage(pair, share, capsys):
    """Resuming, by name and of itself, Lightning's load and the command refuse what is damaged, and name it."""
    data, other, path = pair
    for damage in list(damages(data, other))[::share]:
        put(path, damage.apply(data))
        assert main(["verify", str(path)]) == 1, damage.what
        said = capsys.readouterr().out
        assert said.startswith(f"DAMAGED  {path}: ")
        if damage.region is not None and damage.kind == "flipped":
            assert expected(damage.region) in said
        doors(str(path))


@pytest.mark.parametrize("large", [pytest.param(True, marks=pytest.mark.long), False], ids=["large", "small"])
def test_damage_costs_no_memory(pair, large, tmp_path):
    """A process whose address space may hardly grow refuses all damages as such: no crash, no hang, no allocation."""
    data, other, _ = pair
    if large:
        one, two = ({"x": torch.full((1 << 20,), value), "y": [torch.ones(3)] * 9} for value in (1.0, 2.0))
        data, other = content(save(tmp_path / "1.ckpt", one)), content(save(tmp_path / "2.ckpt", two))
    whole, twin = put(tmp_path / "whole.ckpt", data), put(tmp_path / "other.ckpt", other)
    command = [
        sys.executable,
        "-m",
        "tests.format.damage_child",
        whole,
        twin,
        str(tmp_path / "x.ckpt"),
        "29" if large else "1",
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900, check=True)
    for line in done.stdout.splitlines():
        told = json.loads(line)
        assert told["refused"] == {"DamagedCheckpointError": told["tried"]}
        assert told["peak"] < 150_000  # kilobytes; the large file has four thousand
    assert len(done.stdout.splitlines()) == 2


def test_a_mapped_load_checks_all_but_the_tensors(pair):
    """``mmap=True`` refuses a flip in each byte that is no tensor's; in a tensor only with ``verify=True``."""
    data, _, path = pair
    for damage in flips(data, every=16):
        put(path, damage.apply(data))
        tensor = damage.region.record.startswith("data/") and damage.region.part == "data"
        with pytest.raises(DamagedCheckpointError):
            holdfast.load(path, mmap=True, verify=True)
        if tensor:
            holdfast.load(path, mmap=True)
            continue
        with pytest.raises(DamagedCheckpointError) as caught:
            holdfast.load(path, mmap=True)
        assert caught.value.record.startswith(expected(damage.region)), damage.what


def test_the_instrument_finds_a_reader_that_checks_nothing(tmp_path):
    """``torch.load`` of a stock file reads flipped tensors without a word: the survey counts them, by their region."""
    data = torch_bytes(small_state())
    counts = survey(data, tmp_path / "x.pt", torch.load, flips(data, every=8), same)
    assert counts.tried == counts.refused.total() + counts.harmless + len(counts.silent)
    assert {"data/0", "data/1"} <= {damage.region.record for damage in counts.silent}
    assert f"{len(counts.silent)} read wrong" in str(counts)
