"""Sharded checkpoints in motion: written by several ranks, read by any number, ours and plain DCP's."""

import os
import pathlib
import re
import shutil

import pytest
import torch

from holdfast.engine import load_sharded, read_metadata
from holdfast.errors import DamagedCheckpointError
from tests.ranks import jobs_sharded as jobs
from tests.support.ranks import run_ranks
from tests.support.shards import shard_of, unmarked


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("runs"))
    known = run_ranks(2, jobs.save, folder, ["a.ckpt", "b.ckpt", "c.ckpt"], "last.ckpt")
    return folder, known


def test_every_rank_knows_the_same_of_each_commit(saved):
    """Several saves in a row are committed under both names, and all ranks are told the same outcome."""
    folder, known = saved
    assert known[0] == known[1]
    assert all(committed and not error and not link for committed, error, link, _ in known[0])
    assert sorted(os.listdir(folder)) == ["a.ckpt", "b.ckpt", "c.ckpt", "last.ckpt"]
    assert os.path.samefile(shard_of(f"{folder}/last.ckpt", 1), shard_of(f"{folder}/c.ckpt", 1))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_two_ranks_saved_any_number_reads_back_bit_by_bit(saved, size):
    """Uneven shards, views, empty and odd kinds of tensors, numbers for keys: all come back, on 1, 2 and 3 ranks."""
    folder, _ = saved
    missing = run_ranks(size, jobs.load, folder, "b.ckpt", 2)
    assert missing == [("rng.2",) if rank == 2 else () for rank in range(size)]


def test_plain_dcp_reads_what_we_wrote(saved):
    """``dcp.load`` with its own reader fills a state bit by bit, on another number of ranks."""
    folder, _ = saved
    run_ranks(3, jobs.load_plainly, folder, "c.ckpt", 3)


def test_we_read_what_plain_dcp_wrote(tmp_path):
    """A directory without a manifest, by DCP's own writer, is read by as many and by fewer ranks."""
    run_ranks(2, jobs.save_plainly, str(tmp_path), "x.ckpt", 1)
    assert run_ranks(2, jobs.load, str(tmp_path), "x.ckpt", 1) == [(), ()]
    run_ranks(1, jobs.load, str(tmp_path), "x.ckpt", 1)


def test_one_process_gets_the_whole_state(saved):
    """Without torch.distributed the state comes back nested and whole, numbers as keys and empty mappings too."""
    folder, _ = saved
    state = load_sharded(f"{folder}/a.ckpt")
    assert state["model"]["w"].shape == (7, 300)
    assert state["opt"]["state"] == {0: {"step": torch.tensor(1.0), "n": 5}, 1: {}}
    assert state["opt"]["groups"] == [{"lr": 0.1, "params": [0, 1]}]
    assert state["empty"] == {}
    assert [state[f"rng.{rank}"].tolist() for rank in (0, 1)] == [[10] * 3, [11] * 3]


@pytest.mark.parametrize(
    ("where", "cause"),
    [
        ("disk", "rank 1 of 2: .*was not saved: File too large"),
        ("plan", "rank 1 could not plan it: .*'a.b'"),
        ("pickle", "rank 1 of 2: .*pickle"),
        ("apart", "the ranks' parts do not fit together"),
    ],
)
def test_what_fails_on_one_rank_is_an_error_on_all(tmp_path, where, cause):
    """A full disk under one writer, or a state that does not fit: all have the same error, and nothing is left."""
    one, other = run_ranks(2, jobs.fail_to_save, str(tmp_path), "a.ckpt", where)
    assert one == other
    assert one[0] == "SaveError"
    assert os.listdir(tmp_path) == []
    assert re.search(cause, one[1]), one[1]


def test_what_is_damaged_for_one_rank_is_refused_by_all(saved, tmp_path):
    """A flipped byte anywhere is a DamagedCheckpointError that names the file, the same on every rank."""
    shards = [os.path.basename(shard_of(f"{saved[0]}/c.ckpt", rank)) for rank in (0, 1)]
    files = [".metadata", *shards, "holdfast.manifest", "holdfast.keys"]
    for number, file in enumerate(files):
        shutil.copytree(f"{saved[0]}/c.ckpt", tmp_path / f"{number}.ckpt")
        path = tmp_path / f"{number}.ckpt" / file
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 4
        path.write_bytes(data)
    one, other = run_ranks(2, jobs.refuse, str(tmp_path), [f"{number}.ckpt" for number in range(len(files) - 1)])
    assert one == other
    for (kind, text), file in zip(one, files, strict=False):
        assert kind == "DamagedCheckpointError"
        assert file in text
    with pytest.raises(DamagedCheckpointError, match=r"holdfast\.keys"):
        load_sharded(tmp_path / "4.ckpt")


def test_a_shard_that_is_cut_off_missing_or_of_another_save_is_refused(saved, tmp_path):
    """Each is found before anything is loaded from it, by the manifest."""
    for number, harm in enumerate(("cut", "gone", "other")):
        copy = tmp_path / f"{number}.ckpt"
        shutil.copytree(f"{saved[0]}/c.ckpt", copy)
        shard = pathlib.Path(shard_of(copy, 1))
        if harm == "cut":
            shard.write_bytes(shard.read_bytes()[:-1])
        elif harm == "gone":
            shard.unlink()
        else:
            shutil.copy(shard_of(f"{saved[0]}/b.ckpt", 1), shard)
        with pytest.raises(DamagedCheckpointError, match="__1_0"):
            load_sharded(copy)


def test_a_save_that_waits_says_what_it_wrote(tmp_path):
    """``write_sharded`` returns the manifest, with the number of ranks and every file."""
    told = run_ranks(2, jobs.save_at_once, str(tmp_path), "a.ckpt")
    assert told[0] == told[1]
    assert told[0][0] == 2
    assert [unmarked(name) for name in told[0][1]] == [
        ".metadata",
        "__0_0.distcp",
        "__1_0.distcp",
        "holdfast.keys",
        "meta.pt",
    ]
    assert read_metadata(tmp_path / "a.ckpt").state_dict_metadata["model.w"].size == (7, 300)


def test_savers_side_by_side_keep_their_order_and_plan_once(tmp_path):
    """Six saves of two savers overlap, while the state changes under them: each is what it was when it was taken.

    And once the plan is known, nothing is gathered from the ranks or told to them before training goes on.
    """
    for rounds, errors, held, left in run_ranks(2, jobs.save_many_ways, str(tmp_path)):
        assert (rounds, errors, held, left) == ([], [], True, [0, 0])


def test_a_state_that_changes_its_shape_is_planned_and_laid_out_anew(tmp_path):
    """Nothing of an earlier, larger or smaller state is left in what is saved after it."""
    run_ranks(2, jobs.change_shape, str(tmp_path))


def test_a_forked_child_has_no_part_in_a_save(tmp_path):
    """The child does not wait for the parent's threads, and the parent's save is committed."""
    assert run_ranks(2, jobs.fork_in_the_middle, str(tmp_path)) == [(7, True)] * 2


def test_copies_beside_the_training_are_never_torn(tmp_path):
    """With what only the optimizer changes copied later, each save is the state of its moment, or it is given up.

    The first save is a rehearsal. A weight that rank 1 alone changes too early is an error on both ranks, which
    names it, and the next save is committed again.
    """
    for seen, given_up in run_ranks(2, jobs.overlap, str(tmp_path)):
        assert seen[0] == (False, "NoneType")
        assert seen[1:3] == [(True, "NoneType")] * 2
        assert seen[3] == (True, "ChangedStateError")
        assert seen[4][1] == "NoneType"
        assert given_up == 1
    assert sorted(os.listdir(tmp_path)) == ["0.ckpt", "1.ckpt", "2.ckpt", "4.ckpt"]


def test_shards_of_others_are_waited_for_before_a_signal_acts(tmp_path):
    """``quiesce``, which a signal's save ends with, comes back once the shards of every owner are committed."""
    assert run_ranks(2, jobs.quiesced, str(tmp_path)) == [(False, True)] * 2
