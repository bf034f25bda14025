"""Values of the policy, arbitrary ones."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

from hypothesis import strategies as st

from holdfast.policy.budget import Within
from holdfast.policy.ledger import Entry
from holdfast.policy.rules import All, Best, EveryEpochs, EverySteps, Latest, Newer, Pinned
from holdfast.policy.terms import Known
from holdfast.policy.thinning import Thin

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


NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
METRICS = ("val_loss", "acc")
# Clocks that run backwards, that stood at their beginning, and that were set far into the future.
TIMES = (
    st.integers(-400, 400).map(lambda minutes: NOW + timedelta(minutes=minutes))
    | st.integers(-9000, 900).map(lambda hours: NOW + timedelta(hours=hours))
    | st.sampled_from((datetime.min.replace(tzinfo=timezone.utc), datetime(2999, 1, 1, tzinfo=timezone.utc)))
    | st.none()
)
ROLES = st.sampled_from(("ranked",) * 8 + ("last", "exception", "preempted", "by hand", "foreign", None))


@st.composite
def candidates(draw, *, max_size=12, roles=ROLES, times=TIMES):
    """Checkpoints of several runs, callbacks and folders, with whatever steps, times, scores, sizes and links."""
    places = draw(
        st.lists(
            st.tuples(st.sampled_from(("", "a/", "b/")), st.sampled_from("uvwxyz"), st.sampled_from("12")),
            max_size=max_size,
            unique=True,
        )
    )
    return [
        Known(
            f"{folder}{stem}{version}.ckpt",
            step=draw(st.integers(0, 40)),
            epoch=draw(st.integers(0, 12)),
            sequence=draw(st.integers(-2, 15)),
            metrics=draw(st.dictionaries(st.sampled_from(METRICS), SCORES)),
            time=draw(times),
            size=draw(st.integers(0, 30)),
            file_id=draw(st.sampled_from(("", "", "1", "2"))),
            pinned=draw(st.sampled_from((False, False, False, True))),
            role=draw(roles),
            run=draw(st.sampled_from(("r", "r", "r", "s"))),
            owner=draw(st.sampled_from(("", "", "o"))),
            folder=folder,
        )
        for folder, stem, version in places
    ]


COUNTS = st.integers(0, 4)
LADDERS = st.dictionaries(st.integers(1, 9), st.integers(-1, 3), max_size=2)
KEEPING = st.one_of(
    st.builds(Latest, COUNTS),
    st.builds(Best, COUNTS),
    st.builds(Best, COUNTS, st.sampled_from((*METRICS, "never logged")), mode=MODES),
    st.builds(EverySteps, st.integers(1, 20)),
    st.builds(EveryEpochs, st.integers(1, 5)),
    st.builds(Newer, st.integers(1, 10**6).map(lambda seconds: timedelta(seconds=seconds))),
    st.builds(Thin, st.integers(-1, 3), st.integers(-1, 3), st.just(1), LADDERS, LADDERS),
    st.builds(Thin, steps=st.dictionaries(st.integers(1, 9), st.integers(1, 3), min_size=1, max_size=2)),
    st.just(Pinned()),
    st.just(All()),
)
BUDGETS = st.builds(Within, st.integers(1, 400))
