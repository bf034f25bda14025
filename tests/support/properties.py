"""How long the property tests search: a little by default, more where HOLDFAST_EXAMPLES says so."""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("HOLDFAST_EXAMPLES", "1"))


def examples(count):
    """Return the settings for this many examples, times the factor that the environment gives.

    Fixtures are shared by the examples of one test: each of them begins by writing what it reads.
    """
    fine = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors)
    shared = (HealthCheck.function_scoped_fixture,)
    return settings(max_examples=count * FACTOR, deadline=None, suppress_health_check=(*fine, *shared))


def chance(seed):
    """Return a source of chance that gives the same on every run."""
    return random.Random(seed)  # noqa: S311 - repeatable is what is wanted, not secret
