"""A soak of seconds: that the instrument runs, finds nothing wrong here, and finds what is wrong."""

from __future__ import annotations

import pytest

from tests.soak.__main__ import soak
from tests.soak.checks import Books
from tests.soak.disk import NoDiskError, SmallDisk
from tests.soak.lives import Life, Plan


@pytest.mark.long
def test_half_a_minute(tmp_path):
    """Half a minute of kills and full disks loses nothing; there were saves, and failures that were told."""
    try:
        with SmallDisk(tmp_path, 8):
            pass
    except NoDiskError as error:
        pytest.skip(str(error))
    result = soak(0.6, every=0.3, long=5, report=tmp_path, tell=lambda _: None)
    assert result["problems"] == []
    assert result["counts"]["acknowledged saves"] > 10
    assert (tmp_path / "soak.md").exists()


def test_a_loss_is_found():
    """An acknowledged step that is not on the disk any more is a problem, and so are weights that differ."""
    books = Books()
    said = [{"resumed": 0, "digest": "a"}, {"step": 1, "digest": "b"}, {"acknowledged": 1}]
    books.enter(Life(Plan("kill", ((1.0, "kill"),)), code=-9, said=said))
    books.judge({"problems": [], "steps": [1]})
    assert books.problems == []
    books.enter(Life(Plan("kill", ((1.0, "kill"),)), code=-9, said=[{"resumed": 0, "digest": "c"}]))
    books.judge({"problems": [], "steps": []})
    assert len(books.problems) == 4
