"""Several ranks with a second tier: rank 0 carries and fetches, and all go on from the same."""

from __future__ import annotations

import shutil

import pytest

from holdfast.storage import open_store
from tests.mirroring import jobs_ranks
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
