"""Each fault at each request of each act: how it is tried, and what is counted."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.storage.remote import connect, retrying, uploading
from holdfast.storage.remote import parts as cutting
from holdfast.storage.remote.abilities import forget_abilities
from holdfast.storage.remote.claims import give_up_all_claims
from holdfast.testing import FaultyObjects
from holdfast.testing import object_faults as faults
from tests.object_store.acts import KNOWN, Place, Told
from tests.object_store.words import check_words

LONG, SHORT = "30", "0.02"  # seconds of patience: more than one fault lasts, less than a storm
READS = ("get", "get_into")
_PART = 2048  # bytes, where objects go in parts


@dataclass(frozen=True)
class Case:
    """A fault: which requests meet it, how many from the chosen one on (None: all), how patient the client is.

    ``harmless``: the act succeeds all the same, and what comes of it is what comes of it without the fault.
    """

    name: str
    fault: Callable
    kinds: tuple[str, ...] = ()
    times: int | None = 1
    patience: str = LONG
    harmless: bool = False


def _said(error, text):
    return lambda: error(text)


CASES = [
    Case("503 once", faults.refused(), harmless=True),
    Case("500 once", faults.refused(_said(ConnectionError, "500 InternalError")), harmless=True),
    Case("no answer once", faults.unanswered(), harmless=True),
    Case("a lost answer", faults.lost(), harmless=True),
    Case("a read that breaks", faults.broken(), READS, harmless=True),
    Case("a listing that breaks", faults.cut_listing(1), ("list",), harmless=True),
    Case("a storm", faults.refused(), times=None, patience=SHORT),
    Case("a lost answer, one try", faults.lost(), patience="0"),
    Case("a reset, one try", faults.broken(), patience="0"),
    Case("expired once", faults.expired()),
    Case("expired for good", faults.expired(), times=None),
    Case("an odd refusal", faults.refused(_said(OSError, "400 InvalidRequest"))),
    Case("a short read", faults.short(5), READS),
    Case("wrong bytes", faults.flipped(9), READS),
    Case("a listing one change old", faults.lagging(1), ("list",)),
    Case("a listing four changes old", faults.lagging(4), ("list",)),
    Case("listings that lag", faults.lagging(2), ("list",), times=None),
    Case("a condition that is said not to hold", faults.conflict(), ("put", "complete")),
]


class Table:
    """Runs acts in a world where the k-th request that a case is about meets its fault."""

    def __init__(self, folder, monkeypatch, rules, url, bucket=None):
        """Take the rules of the fault injector, and the URL below which each run has a place of its own."""
        self.folder, self.patch, self.rules, self.url, self.bucket = str(folder), monkeypatch, rules, url, bucket
        self.runs = self.met = self.failed = 0
        self._numbers = itertools.count()
        monkeypatch.setattr(retrying, "_FIRST", 0.001)
        monkeypatch.setattr(retrying, "_LONGEST", 0.002)
        monkeypatch.setattr("holdfast.mirroring.mirror.PAUSES", (0.01,))

    def _place(self, act):
        number = next(self._numbers)
        place = Place(f"{self.url}/{number}", os.path.join(self.folder, str(number)))
        for module, name, size in (
            (cutting, "PART", 1 << 24),
            (cutting, "_ROUND", 1 << 20),
            (uploading, "PART", 1 << 24),
        ):
            self.patch.setattr(module, name, (1 if name == "_ROUND" else _PART) if act.parts else size)
        self.patch.setenv("HOLDFAST_PATIENCE", LONG)
        act.before(place)
        self._next_process()
        return place

    def _next_process(self):
        give_up_all_claims()
        forget_abilities()

    def _do(self, act, place, told):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                told.result = act.do(place, told)
        except KNOWN as error:
            told.errors.append(error)
        finally:
            self.rules.no_rules()
            give_up_all_claims()

    def whole(self, act):
        """Do it without a fault; return what came of it, and the requests."""
        place, told = self._place(act), Told()
        before = len(self.rules.asked)
        self._do(act, place, told)
        assert told.errors == []
        asked = list(self.rules.asked[before:])
        act.after(place, told)
        self._over(place)
        return told, asked

    def one(self, act, case, skip, whole):
        """Do it with the fault at one request."""
        place, told = self._place(act), Told(stale=case.kinds == ("list",))
        self.patch.setenv("HOLDFAST_PATIENCE", case.patience)
        before = len(self.rules.asked)
        rule = self.rules.rule(case.fault, kinds=case.kinds, skip=skip, times=case.times)
        self._do(act, place, told)
        asked = self.rules.asked[before:]
        self.patch.setenv("HOLDFAST_PATIENCE", LONG)
        forget_abilities()
        self.runs += 1
        self.met += rule.hits > 0
        self.failed += bool(told.errors)
        try:
            if case.harmless:
                assert told.errors == [], told.errors
                assert told.result == whole.result
            check_words(act, place, told)
            act.after(place, told)
        except BaseException as error:  # torch's own is no Exception
            number = [one for one in asked if not case.kinds or one.kind in case.kinds][skip : skip + 1]
            error.add_note(f"{act.name}: {case.name} at request {skip + 1}: {number}; told: {told}")
            raise
        self._over(place)

    def _over(self, place):
        self._next_process()
        for folder in (place.folder, place.folder + "-gone"):
            shutil.rmtree(folder, ignore_errors=True)
        if self.bucket is not None:
            self.bucket.put_back(({}, {}))
            self.rules.forget()

    def points(self, act, case, asked):
        """Return how many requests of the act a case is about."""
        del act
        return sum(not case.kinds or one.kind in case.kinds for one in asked)


@contextmanager
def in_memory(folder, monkeypatch, bucket):
    """Yield a table whose store is a bucket in memory."""
    faulty = FaultyObjects(bucket)
    with connect.wrapping(lambda _: FaultyObjects(bucket, like=faulty)):
        yield Table(folder, monkeypatch, faulty, "memory://bucket/runs", bucket)
