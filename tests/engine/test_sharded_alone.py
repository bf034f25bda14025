"""A sharded saver on one rank: what it keeps, and what it lets go of."""

import gc
import os
import weakref

import pytest
import torch

from holdfast.engine import Order, SaveStats, ShardedSaver, load_sharded, read_sharded, write_sharded
from holdfast.errors import DamagedCheckpointError
from holdfast.ranks import Ranks
from holdfast.records import Facts
from holdfast.storage import open_store
from tests.support.shards import unmarked


def test_nothing_of_a_state_is_kept_once_it_is_saved(tmp_path):
    """Neither the plan nor the flight holds tensors of a state that its owner has dropped."""
    saver, stats = ShardedSaver(Ranks()), SaveStats()
    tensor = torch.ones(1000)
    flight = saver.submit(Order(open_store(str(tmp_path)), "a.ckpt", {"x": tensor, "n": 1}, Facts(), stats=stats))
    flight.wait()
    assert flight.committed
    saver.poll()
    gone = [weakref.ref(tensor), weakref.ref(flight)]
    del tensor, flight
    gc.collect()
    assert [item() for item in gone] == [None, None]
    assert (stats.saves, stats.given_up) == (1, 0)
    assert torch.equal(load_sharded(tmp_path / "a.ckpt")["x"], torch.ones(1000))


def test_memory_that_was_warmed_is_the_memory_that_is_used(tmp_path):
    """A save after ``warm`` takes no more, and closing gives all back."""
    saver = ShardedSaver(Ranks())
    saver.warm(1 << 20)
    flight = saver.submit(Order(open_store(str(tmp_path)), "a.ckpt", {"x": torch.ones(1000)}, Facts()))
    flight.wait()
    assert flight.committed
    assert saver.memory == 1 << 20
    saver.close()
    assert saver.memory == 0


def test_a_name_that_is_taken_by_a_file_is_replaced_and_extra_files_are_written(tmp_path):
    """A single file of the same name gives way in one step; further files stand beside the shards."""
    (tmp_path / "a.ckpt").write_bytes(b"old")
    saver = ShardedSaver(Ranks())
    order = Order(open_store(str(tmp_path)), "a.ckpt", {"x": torch.ones(3)}, Facts())
    saver.submit(order, {"meta.pt": b"more"}).wait()
    saver.close()
    assert (tmp_path / "a.ckpt" / "meta.pt").read_bytes() == b"more"
    assert os.listdir(tmp_path) == ["a.ckpt"]


@pytest.mark.parametrize("name", ["holdfast.keys", "meta.pt", "__0_0.distcp"])
@pytest.mark.parametrize("harm", [os.remove, lambda path: os.truncate(path, os.path.getsize(path) - 1)])
def test_a_file_that_is_missing_or_cut_is_damage_also_where_nothing_of_it_is_wanted(tmp_path, name, harm):
    """A load in place refuses a directory that lacks a file, or the end of one, though it would not have read it."""
    state = {"w": torch.ones(3), "numbered": {0: torch.ones(2)}}
    store = open_store(str(tmp_path))
    write_sharded(Ranks(), Order(store, "a.ckpt", state, Facts()), {"meta.pt": b"more"})
    wanted = {"w": torch.zeros(3)}
    read_sharded(tmp_path / "a.ckpt", wanted)
    assert wanted["w"].tolist() == [1.0] * 3
    (file,) = (file for file in os.listdir(tmp_path / "a.ckpt") if unmarked(file) == name)
    harm(tmp_path / "a.ckpt" / file)
    with pytest.raises(DamagedCheckpointError, match=file):
        read_sharded(tmp_path / "a.ckpt", {"w": torch.zeros(3)})
