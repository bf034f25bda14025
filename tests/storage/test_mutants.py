"""The exam's own exam: stores with planted bugs fail it."""

from __future__ import annotations

import inspect
import itertools
import os
import secrets

import pytest

from holdfast.storage.local import LocalStore
from holdfast.testing import BundleSuite, StoreSuite
from tests.storage import mutants, mutants_bundles, mutants_looking
from tests.storage.store_in_memory import StoreInMemory


def cases(test):
    """Each set of arguments that a test's marks give it."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    lists = [[(mark.args[0], value) for value in mark.args[1]] for mark in marks]
    return [dict(case) for case in itertools.product(*lists)]


def exam_of(suite):
    """The exam's tests, without those that search by chance: they may find a bug today and not tomorrow."""
    found = inspect.getmembers(suite, lambda item: inspect.isfunction(item) and item.__name__.startswith("test_"))
    return [(name, test) for name, test in found if not hasattr(test, "hypothesis")]


def failed(suite, kind):
    """The exam's tests that a store fails, as they come."""
    for name, test in exam_of(suite):
        for case in cases(test):
            store = kind(os.path.abspath(secrets.token_hex(8)))
            fixtures = {"store": store, "again": lambda store=store: kind(store.root)}
            wanted = fixtures.keys() & inspect.signature(test).parameters.keys() | {"store"}
            try:
                test(suite(), **{key: fixtures[key] for key in wanted}, **case)
            except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however it fails
                yield name
                break


class Files(StoreSuite):
    """Looked through past the store."""

    def everything(self, store):
        return sorted(store.all)


class Bundles(BundleSuite):
    """The same, of folders."""

    def everything(self, store):
        found = [os.path.join(where, name) for where, _, files in os.walk(store.root) for name in files]
        return sorted(os.path.relpath(path, store.root) for path in found)


@pytest.mark.parametrize(
    ("suite", "good"), [(Files, StoreInMemory), pytest.param(Bundles, LocalStore, marks=pytest.mark.long)]
)
def test_the_good_ones_pass(suite, good):
    """The stores that the mutants are made of fail no test of the exam: what fails a mutant is its bug."""
    assert list(failed(suite, good)) == []


MUTANTS = [*mutants.MUTANTS, *mutants_looking.MUTANTS]
BUNDLE_MUTANTS = mutants_bundles.MUTANTS
SAMPLE = [*MUTANTS[::6], *BUNDLE_MUTANTS[:1]]
REST = [pytest.param(kind, marks=pytest.mark.long) for kind in [*MUTANTS, *BUNDLE_MUTANTS] if kind not in SAMPLE]


@pytest.mark.parametrize("mutant", [*SAMPLE, *REST], ids=lambda kind: kind.__name__)
def test_a_planted_bug_fails_the_exam(mutant):
    """Some test of the exam fails for this bug."""
    suite = Bundles if issubclass(mutant, LocalStore) else Files
    assert next(failed(suite, mutant), None) is not None
