"""Strategies that shard, under Lightning: directories that are committed, verified, ranked and found again."""

from __future__ import annotations

import glob
import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import holdfast
from tests.lightning import jobs_ranks
from tests.lightning.test_ranks import WORDS, together
from tests.support.ranks import run_ranks
from tests.support.shards import shard_of


@pytest.fixture(autouse=True)
def _way_of_saving():
    """As it is for users."""


def test_shards_are_lightnings_and_dcps_and_go_on_bit_for_bit(tmp_path):
    """A run that is resumed on two ranks ends as an uninterrupted one; plain DCP reads it by Lightning's names."""
    whole, first, second = together(
        2,
        (tmp_path / "whole", "sharded", WORDS, {}),
        (tmp_path / "part", "sharded", WORDS, {"max_epochs": 2}),
        (tmp_path / "part", "sharded", WORDS, {"ckpt_path": "last"}),
    )
    assert first[0]["error"] is None
    assert (second[0]["error"], second[0]["from"], second[0]["began"]) == (None, "last.ckpt", first[0]["step"])
    assert {one["weights"] for one in (*whole, *second)} == {whole[0]["weights"]}
    assert second[0]["knows"] == second[1]["knows"] == whole[0]["knows"]
    last = tmp_path / "part" / "d" / "last.ckpt"
    manifest = holdfast.verify(last)
    assert (manifest.facts.ranks, manifest.facts.kind) == (2, "lightning")
    dcp_to_torch_save(str(last), str(tmp_path / "plain.pt"))
    plain = torch.load(tmp_path / "plain.pt")
    assert set(plain) == {"state_dict", "optimizer_0"}
    assert torch.load(last / "meta.pt")["global_step"] == 8


def test_a_damaged_shard_is_passed_over_on_every_rank(tmp_path):
    """With a bit of one rank's file flipped, both go on from the one before; asked for by its name, both refuse it."""
    words = {"save_top_k": 3, "save_last": True}
    together(2, (tmp_path, "sharded", words, {"max_epochs": 2}))
    damage(tmp_path / "d" / "last.ckpt")
    ((first, second),) = together(2, (tmp_path, "sharded", words, {"ckpt_path": str(tmp_path / "d" / "last.ckpt")}))
    assert first["error"].startswith("DamagedCheckpointError")
    assert "__1_0.holdfast-" in first["error"]
    assert second["error"] == first["error"]
    ((first, second),) = together(2, (tmp_path, "sharded", words, {"ckpt_path": "last"}))
    assert (first["error"], first["from"], first["began"]) == (None, "epoch=0-step=2.ckpt", 2)
    assert second["from"] == first["from"]
    assert any("last.ckpt" in text and "passed over" in text for text in first["warnings"])


def damage(path):
    """Flip a bit in the middle of what rank 1 has written."""
    with open(shard_of(path, 1), "r+b") as file:
        file.seek(os.path.getsize(file.name) // 3)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def test_a_full_disk_under_one_rank_is_an_error_of_both(tmp_path):
    """The save fails on both ranks, naming rank and cause; what was committed stays, and nothing torn is left."""
    first, second = run_ranks(2, jobs_ranks.train_on_a_full_disk, str(tmp_path), timeout=60)
    assert first["error"] == second["error"]
    assert "rank 1" in first["error"]
    assert "No space left on device" in first["error"]
    assert [os.path.basename(path) for path in glob.glob(f"{tmp_path}/d/*")] == ["epoch=0-step=2.ckpt"]
    assert not glob.glob(f"{tmp_path}/d/.holdfast-*.tmp")
    holdfast.verify(tmp_path / "d" / "epoch=0-step=2.ckpt")


def test_a_save_by_hand_is_committed_as_well(tmp_path):
    """``trainer.save_checkpoint(path)`` under a strategy that shards: durable, whole, and loaded again."""
    (first, _) = run_ranks(2, jobs_ranks.save_by_hand, str(tmp_path), timeout=60)
    assert first["error"] is None
    assert holdfast.verify(tmp_path / "by-hand.ckpt").facts.reason == "requested"


@pytest.mark.long
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (2, 3), (1, 2)])
def test_shards_go_on_with_another_number_of_ranks(tmp_path, before, after):
    """What some ranks have saved is where another number goes on: the same weights, and the same ranking on each."""
    (saved,) = together(before, (tmp_path, "sharded", WORDS, {"max_epochs": 2}))
    (resumed,) = together(after, (tmp_path, "sharded", WORDS, {"max_epochs": 2, "ckpt_path": "last"}))
    assert {one["error"] for one in (*saved, *resumed)} == {None}
    assert {one["weights"] for one in resumed} == {saved[0]["weights"]}
    assert all(one["knows"] == saved[0]["knows"] for one in resumed)


@pytest.mark.long
def test_one_file_of_all_ranks(tmp_path):
    """With ``save_distributed_checkpoint=False`` rank 0 writes one file, of the same weights, and two go on from it."""
    first, second = together(
        2,
        (tmp_path, "full", WORDS, {"max_epochs": 2}),
        (tmp_path, "full", WORDS, {"max_epochs": 2, "ckpt_path": "last"}),
    )
    assert (first[0]["error"], second[0]["error"]) == (None, None)
    assert second[0]["weights"] == second[1]["weights"] == first[0]["weights"]
    assert os.path.isfile(tmp_path / "d" / "last.ckpt")


def test_saves_that_overlap_are_bit_for_bit_the_same(tmp_path):
    """With ``overlap`` tensors are copied later, and every checkpoint and the final weights are as without."""
    ways = [("at-once", {}), ("overlap", {"overlap": True}), ("neither", {"every_n_train_steps": 1000})]
    for at_once, overlap, neither in run_ranks(2, jobs_ranks.train_in_every_way, str(tmp_path), *ways, timeout=100):
        assert (at_once["error"], overlap["error"], neither["error"]) == (None, None, None)
        assert at_once["weights"] == overlap["weights"] == neither["weights"]
        assert at_once["later"] == 0 < overlap["later"]
    names = sorted(path.name for path in (tmp_path / "at-once" / "d").glob("*.ckpt"))
    assert len(names) == 6
    for name in names:
        plain, later = (flat(tmp_path / way / "d" / name) for way in ("at-once", "overlap"))
        assert plain == later


def flat(value):
    """Return what a directory holds, its tensors as bytes."""
    if isinstance(value, Path):
        state = holdfast.load(value)
        return [flat(state[key]) for key in ("state_dict", "optimizer_0")]
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def test_words_that_do_nothing_are_warned_of(tmp_path):
    """``zero_copy`` and ``recycle_blocks`` on shards: one warning, of rank 0, names them; the run goes on."""
    ((first, second),) = together(
        2, (tmp_path, "sharded", {"zero_copy": True, "recycle_blocks": True}, {"max_epochs": 1})
    )
    said = [[text for text in one["warnings"] if "of no effect" in text] for one in (first, second)]
    assert ([len(each) for each in said], first["error"], second["error"]) == ([1, 0], None, None)
    assert "`zero_copy` and `recycle_blocks`" in said[0][0]


class Code:
    """What leaves a file behind if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("where", ["metadata", "value"])
def test_no_code_of_a_directory_runs(tmp_path, where):
    """A directory whose metadata or values hold code is refused on both ranks, and the code has not run."""
    ran, evil = tmp_path / "ran", tmp_path / "evil.ckpt"
    dcp.save({"state_dict": {}, "value": Code(str(ran))}, checkpoint_id=evil, no_dist=True)
    torch.save({}, evil / "meta.pt")
    if where == "metadata":
        (evil / ".metadata").write_bytes(pickle.dumps(Code(str(ran))))
    for told in run_ranks(2, jobs_ranks.resume_from, str(tmp_path), str(evil)):
        assert told["error"].startswith("UnsafeCheckpointError")
    assert not ran.exists()
