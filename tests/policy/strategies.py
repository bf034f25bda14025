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
from tests.support.properties import chance

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
# Each list of all names, in another order: a listing takes the beginning of one.
NAMES = tuple(tuple(chance(seed).sample(tuple(product(("", "a/", "b/"), "uvwxyz", "12")), k=12)) for seed in range(200))
RUNS = (("r", ""), ("r", ""), ("r", "o"), ("s", ""))
PINS = (False, False, False, True)
LINKS = ("", "", "1", "2")
SIZES = (0, 1, 5, 9, 10, 10, 17, 30)
RANKED_KINDS = tuple(product(("ranked",), RUNS, PINS, LINKS, SIZES))
OTHER_KINDS = tuple(product(("last", "exception", "preempted", "by hand", "foreign", None), RUNS, PINS, LINKS, SIZES))
SPECIAL = (None, None, 0.0, -0.0, 1.0, 2.0, -3.5, 1e300, math.inf, -math.inf, math.nan)

# Made once: what a search pays for each strategy, it pays when it is made.
RANKED_ALONE = st.sampled_from(RANKED_KINDS)
KINDS = st.sampled_from((*RANKED_KINDS * 10, *OTHER_KINDS))
SCORE_PAIRS = st.sampled_from(tuple(product(SPECIAL, SPECIAL)))
LISTINGS = st.sampled_from(NAMES)
LENGTHS = st.integers(0, 12)
STEPS = st.integers(0, 40)
SEQUENCES = st.integers(-2, 15)


@st.composite
def candidates(draw, *, kinds=KINDS):
    """Up to 12 checkpoints of several runs, callbacks and folders: any steps, times, scores, sizes, links.

    Few draws for each: a search takes its time for them.
    """
    names = draw(LISTINGS)[: draw(LENGTHS)]
    found = []
    for folder, stem, version in names:
        role, (run, owner), pinned, file_id, size = draw(kinds)
        step = draw(STEPS)
        scores = zip(METRICS, draw(SCORE_PAIRS), strict=True)
        found.append(
            Known(
                f"{folder}{stem}{version}.ckpt",
                step=step,
                epoch=step // 3,
                sequence=draw(SEQUENCES),
                metrics={name: score for name, score in scores if score is not None},
                time=draw(TIMES),
                size=size,
                file_id=file_id,
                pinned=pinned,
                role=role,
                run=run,
                owner=owner,
                folder=folder,
            )
        )
    return found


LADDERS = ({}, {1: 2}, {7: 3}, {5: -1}, {2: 1, 9: -1})
KEEPING = st.sampled_from(
    (
        *map(Latest, range(5)),
        *map(Best, range(5)),
        *(Best(k, name, mode) for k in range(4) for name in (*METRICS, "never logged") for mode in ("min", "max")),
        *map(EverySteps, range(1, 20)),
        *map(EveryEpochs, range(1, 6)),
        *(Newer(timedelta(seconds=10**power)) for power in range(9)),
        *(
            Thin(hourly, daily, weekly, steps, epochs)
            for hourly, daily, weekly in ((1, 0, 0), (2, 1, 0), (0, -1, 2), (-1, 0, 1))
            for steps in LADDERS
            for epochs in LADDERS
        ),
        *(Thin(steps={size: many}) for size in range(1, 9) for many in (1, 2, -1)),
        *(Pinned(), All()) * 5,
    )
)
BUDGETS = st.integers(1, 150).map(Within)
