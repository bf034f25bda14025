"""Values of the policy, arbitrary ones."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from holdfast.policy.ledger import Entry

# Few different scores, so that ties are common, and all that are special.
SCORES = st.sampled_from((0.0, -0.0, 1.0, 2.0, -3.5, 1e300, math.inf, -math.inf, math.nan)) | st.floats()
MODES = st.sampled_from(("min", "max"))


@st.composite
def entries(draw, *, scores=SCORES, unscored=False, max_size=8):
    """Committed checkpoints in the order of any listing; each has a name and a place in the order of saves."""
    found = draw(st.lists(scores | st.none() if unscored else scores, max_size=max_size))
    sequences = draw(st.lists(st.integers(-5, 99), min_size=len(found), max_size=len(found), unique=True))
    return [
        Entry(f"{place}.ckpt", score, sequence, sequence // 4, sequence)
        for place, (score, sequence) in enumerate(zip(found, sequences, strict=True))
    ]
