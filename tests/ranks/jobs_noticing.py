"""What ranks do in ``test_noticing``: each returns what it was told, or the error that it met."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from holdfast.errors import RankError, SaveError
from holdfast.ranks import ranks_here
from tests.support.ranks import tell

KINDS = ("agree", "exchange", "gather", "together", "highest")


def call(ranks, kind, at=""):
    """Make one call of a kind, and return what came of it."""
    calls = {
        "agree": lambda: ranks.agree(lambda: "decided", at=at),
        "exchange": lambda: ranks.exchange(ranks.rank, at=at),
        "gather": lambda: ranks.gather(ranks.rank, at=at),
        "together": lambda: ranks.together(lambda: ranks.rank, at=at),
        "highest": lambda: ranks.highest([ranks.rank, -ranks.rank], at=at),
    }
    return calls[kind]()


def met(do):
    """Return the error of a call: its rank, its text, and how long it took, in seconds."""
    begun = time.monotonic()
    try:
        do()
    except RankError as error:
        return error.rank, str(error), time.monotonic() - begun
    return None


def everything():
    """All kinds of calls, with small and with large values."""
    ranks = ranks_here()
    large = os.urandom(50_000) + bytes([ranks.rank])
    return {
        "agree": ranks.agree(lambda: ("rank 0", ranks.rank)),
        "agree large": len(ranks.agree(lambda: large)),
        "exchange": ranks.exchange(ranks.rank * 10),
        "exchange large": [one[-1] for one in ranks.exchange(large if ranks.rank == 1 else b"\x07")],
        "gather": ranks.gather(str(ranks.rank)),
        "gather large": [len(one) for one in ranks.gather(large)],
        "together": ranks.together(lambda: ranks.rank),
        "highest": ranks.highest([ranks.rank, 5 - ranks.rank, -(2**40)]),
        "behind": ranks.behind.exchange(ranks.rank),
    }


def an_error_of_rank_0():
    """Rank 0 refuses: all are told; then they go on."""
    ranks = ranks_here()
    told = []
    for error in (SaveError("the disk is full", path="x", errno=28), ZeroDivisionError("a bug"), ValueError(lambda: 0)):

        def decide(error=error):
            raise error

        try:
            ranks.agree(decide, at="a save")
        except Exception as caught:  # noqa: BLE001 - returned
            told.append((type(caught).__name__, str(caught), getattr(caught, "errno", None)))
    return told, ranks.exchange(ranks.rank)


def one_fails_together(who):
    """One rank fails at what all do."""
    ranks = ranks_here()

    def do():
        if ranks.rank == who:
            msg = "rotten"
            raise OSError(msg)

    try:
        ranks.together(do, at="a resume")
    except (OSError, RankError) as error:
        return type(error).__name__, str(error), ranks.exchange(ranks.rank)
    return None


def one_leaves(kind, who, how):
    """One rank goes, in one way or another, while the others wait for it in a call of a kind; then again."""
    ranks = ranks_here()
    call(ranks, kind)
    if ranks.rank == who:
        time.sleep(0.3)  # the others wait by now
        if how == "fail":
            ranks.fail(MemoryError("no room on this GPU"))
            return met(lambda: call(ranks, kind))
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(0)
    first = met(lambda: [call(ranks, kind, "step 100") for _ in range(3)])
    return first, met(lambda: call(ranks, kind))


def one_is_slow(kind, seconds):
    """One rank is stopped for a while (by the test), or busy; nobody takes it for dead."""
    ranks = ranks_here()
    if ranks.rank == 1:
        tell("busy")
        time.sleep(seconds)
    return call(ranks, kind, "an epoch's end")


def apart(kinds, ats):
    """Each rank calls something of its own."""
    ranks = ranks_here()
    mine = ranks.rank % len(kinds)
    return met(lambda: call(ranks, kinds[mine], ats[mine])), met(lambda: call(ranks, "agree"))


def schedule(seed, size):
    """Calls in a random order; at a random place a random rank fails, does something else, or is killed."""
    draw = random.Random(seed)  # noqa: S311 - a schedule, no secret
    ranks = ranks_here()
    at, who, how = draw.randrange(20), draw.randrange(size), draw.choice(("fail", "kill", "apart"))
    kinds = [draw.choice(KINDS) for _ in range(40)]
    results = []
    for number, kind in enumerate(kinds):
        if (number, ranks.rank) == (at, who):
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "fail":
                ranks.fail(ValueError(f"seed {seed}"))
            kind = "highest" if kind != "highest" else "agree"  # noqa: PLW2901 - what this rank does instead
        group = ranks.behind if number % 3 == 1 and how != "fail" else ranks
        error = met(lambda group=group, kind=kind, number=number: results.append(call(group, kind, str(number))))
        if error is not None:
            return number, error[0], error[1]
    return len(kinds), None, ""
