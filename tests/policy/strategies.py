"""Values of the policy, arbitrary ones."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from itertools import product

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
TIMES = st.sampled_from(
    (
        *(NOW + timedelta(minutes=minutes) for minutes in range(-400, 400, 10)),
        *(NOW + timedelta(hours=hours) for hours in range(-9000, 900, 90)),
        datetime.min.replace(tzinfo=timezone.utc),
        *(datetime(2999, 1, 1, hour, tzinfo=timezone.utc) for hour in range(8)),
        *(None,) * 20,
    )
)
ROLES = ("ranked",) * 8 + ("last", "exception", "preempted", "by hand", "foreign", None)
FILES = tuple(product(("", "a/", "b/"), "uvwxyz", "12"))


@st.composite
def candidates(draw, *, max_size=12, roles=ROLES):
    """Checkpoints of several runs, callbacks and folders, with whatever steps, times, scores, sizes and links.

    Few draws for each: most of a search's time goes into them.
    """
    places = draw(st.lists(st.sampled_from(FILES), max_size=max_size, unique=True))
    kinds = tuple(product(roles, ("r", "r", "s"), ("", "", "o"), (False, False, False, True), ("", "", "1", "2")))
    found = []
    for folder, stem, version in places:
        role, run, owner, pinned, file_id = draw(st.sampled_from(kinds))
        step = draw(st.integers(0, 40))
        scores = {name: draw(SCORES | st.none()) for name in METRICS}
        found.append(
            Known(
                f"{folder}{stem}{version}.ckpt",
                step=step,
                epoch=step // 3,
                sequence=draw(st.integers(-2, 15)),
                metrics={name: score for name, score in scores.items() if score is not None},
                time=draw(TIMES),
                size=draw(st.integers(0, 30)),
                file_id=file_id,
                pinned=pinned,
                role=role,
                run=run,
                owner=owner,
                folder=folder,
            )
        )
    return found


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
