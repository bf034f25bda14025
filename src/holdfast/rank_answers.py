"""What rank 0 answers in a round, and what is said of a rank that failed."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable

from holdfast.errors import HoldfastError, RankError
from holdfast.rank_watch import cause_of

FINE, MORE, ERROR, APART = range(4)  # how an answer is meant


def failed(rank: int, cause: str, at: str, *, waited: bool = False) -> RankError:
    """Return the error that names a rank, what it or this one was at, and the cause."""
    who = f"rank {rank}" if rank >= 0 else "another rank"
    where = f" while this one waited for it at {at}" if waited and at else f" at {at}" if at else ""
    return RankError(f"{who} failed{where}: {cause}", rank=rank)


def answer_of(
    answer: Callable[[list[bytes]], bytes], told: list[bytes], at: str
) -> tuple[int, bytes, Exception | None]:
    """Rank 0 only: return how an answer is meant, and its bytes; and what is to be raised here."""
    try:
        return FINE, answer(told), None
    except Exception as error:
        for told_as in (error, failed(0, cause_of(error), at)):
            with contextlib.suppress(Exception):  # what cannot be pickled is told in words
                if isinstance(told_as, HoldfastError):
                    data = pickle.dumps(told_as)
                    pickle.loads(data)  # noqa: S301 - our own, just made
                    return ERROR, data, error
        raise
