"""A sample of the fuzzing that ``make fuzz`` does for as long as one likes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import one, seeds
from tests.support.properties import examples


@pytest.mark.filterwarnings("ignore")
@examples(120)
@given(st.data())
def test_made_up_files_end_in_our_errors(data):
    """Seeds with pieces removed, put in and written over end in holdfast's errors or none, at every door."""
    made = data.draw(st.sampled_from(seeds()))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(1, len(made)))
        piece = data.draw(st.binary(max_size=12))
        made = made[:at] + piece + made[at + data.draw(st.integers(0, 12)) :]
    one(made)
