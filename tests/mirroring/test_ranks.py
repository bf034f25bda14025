"""Several ranks with a second tier: rank 0 carries and fetches, and all go on from the same."""

from __future__ import annotations

import shutil

import pytest

from holdfast.storage import open_store
from tests.mirroring import jobs_ranks
from tests.mirroring.makings import all_whole
from tests.ranks import jobs_sharded_loop
from tests.support.ranks import run_ranks


@pytest.mark.parametrize("blind", [False, pytest.param(True, marks=pytest.mark.long)])
def test_all_ranks_go_on_from_the_mirror(tmp_path, blind):
    """With an empty directory all ranks have the mirror's newest, also one that does not see what rank 0 fetched."""
    folder, mirror = str(tmp_path / "run"), str(tmp_path / "mirror")
    whole = run_ranks(2, jobs_ranks.trained, str(tmp_path / "whole"), None, 3, False) if blind else None
    run_ranks(2, jobs_ranks.trained, folder, mirror, 2, False)
    shutil.rmtree(folder)
    first, second = run_ranks(2, jobs_ranks.trained, folder, mirror, 3, blind)
    assert first[:2] == second[:2] == (4, "mirror")
    assert first == second
    assert sorted(first[2].values()) == [2.0, 4.0]
    assert whole is None or whole[0][3] == first[3]
    there = [blob.name for blob in open_store(mirror).blobs()]
    assert there == [blob.name for blob in open_store(folder).blobs()]


PLACES = ["folder", pytest.param("s3", marks=pytest.mark.long), pytest.param("s3-blind", marks=pytest.mark.long)]


@pytest.mark.parametrize("place", PLACES)
def test_shards_go_on_from_the_mirror(tmp_path, place, request):
    """What two ranks save in shards is resumed from the mirror alone, to the bit, also by one that sees no file."""
    folder, words = tmp_path / "run", {"every_n_train_steps": 2, "save_top_k": -1, "save_last": True}
    words["mirror"] = str(tmp_path / "mirror") if place == "folder" else request.getfixturevalue("bucket")
    if place != "folder":
        words["storage_options"] = request.getfixturevalue("s3").options
    expected = run_ranks(2, jobs_sharded_loop.untouched)
    run_ranks(2, jobs_ranks.in_shards, str(folder), words, 5)
    there = [(blob.name, blob.bundle) for blob in open_store(words["mirror"]).blobs()]
    assert there == [(blob.name, blob.bundle) for blob in open_store(folder).blobs()]
    assert ("last.ckpt", True) in there
    shutil.rmtree(folder)
    done = run_ranks(2, jobs_ranks.on_from_there, str(folder), words, place == "s3-blind")
    assert [one[:2] for one in done] == [(4, "mirror")] * 2
    assert [one[3] for one in done] == expected
    assert set(all_whole(words["mirror"])) == {*all_whole(folder), "epoch=0-step=2.ckpt"}
