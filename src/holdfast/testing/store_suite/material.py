"""What the exam writes: names, sizes, memory of several kinds, sources that fail; and how long it searches."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from holdfast.memory import PAGE, allocate

NAMES = ("a.ckpt", "deep/er/b=1.ckpt", "epoch=0-step=1.ckpt", "with space é 損.ckpt", "val[0]+x,y.ckpt", "a" * 200)
FACTOR = int(os.environ.get("HOLDFAST_EXAMPLES", "1"))
FAILURE = OSError("the source failed")


class Sudden(BaseException):
    """What may come at any time, as Ctrl-C does."""


def examples(count: int) -> settings:
    """Return the settings for this many examples, times the factor that ``HOLDFAST_EXAMPLES`` gives.

    Fixtures are shared by the examples of one test: each of them begins by writing what it reads.
    """
    fine = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors)
    shared = (HealthCheck.function_scoped_fixture,)
    return settings(max_examples=count * FACTOR, deadline=None, suppress_health_check=(*fine, *shared))


def chance(seed: int) -> random.Random:
    """Return a source of chance that gives the same on every run."""
    return random.Random(seed)  # noqa: S311 - repeatable is what is wanted, not secret


def failing(*chunks: bytes | memoryview, error: BaseException = FAILURE) -> Iterator[bytes | memoryview]:
    """Yield some chunks and then fail."""
    yield from chunks
    raise error


def aligned(data: bytes, shift: int = 0) -> memoryview:
    """Return the same bytes in writable memory that begins at a page, or some bytes behind it."""
    view = memoryview(allocate(len(data) + shift))[shift : shift + len(data)]
    view[:] = data
    return view


POOL = chance(7).randbytes(9 << 20)
MAKERS: dict[str, Callable[[bytes], bytes | memoryview]] = {
    "bytes": bytes,
    "aligned": aligned,
    "shifted": lambda data: aligned(data, 64),
    "read-only": lambda data: aligned(data).toreadonly(),
}
_EDGES = [edge + by for edge in (PAGE, 1 << 20, 1 << 22, 2 << 22) for by in (-1, 0, 1, PAGE)]
SIZES = st.one_of(st.integers(0, 3 << 20), st.sampled_from(_EDGES))
PIECES = st.tuples(st.sampled_from(sorted(MAKERS)), SIZES)
