"""What an object store can do is what it was seen to do."""

from __future__ import annotations

import pytest

from holdfast.storage.remote import abilities
from tests.support.folder_objects import FolderObjects

BASE = "bucket/run"


@pytest.fixture(autouse=True)
def _clean():
    abilities.forget_abilities()
    yield
    abilities.forget_abilities()


def test_a_server_that_keeps_conditions(tmp_path):
    """It is found out in six requests, once in a process, and nothing is left behind."""
    objects = FolderObjects(tmp_path)
    assert abilities.abilities_of(objects, BASE).conditions
    assert objects.calls == ["put", "put", "put", "put", "list", "remove"]
    assert abilities.abilities_of(objects, f"{BASE}/other").conditions
    assert len(objects.calls) == 6
    assert objects.there() == []


def test_a_server_that_ignores_them(tmp_path):
    """One that answers as if there were no condition has none."""
    objects = FolderObjects(tmp_path, conditions=False)
    found = abilities.thorough(objects, BASE)
    assert not found.conditions
    assert "writes over what is there" in found.absent
    assert "writes over what is there" in found.absent_parts
    assert (found.writing, found.uploads, found.listing) == ("", "", "")
    assert objects.there() == objects.there("upload") == []


def test_conditions_that_are_refused(tmp_path):
    """One that refuses a condition altogether has none, and is written to without."""
    objects = FolderObjects(tmp_path)
    real = objects.put

    def put(key, data, *, absent=False, match=""):
        if absent or match:
            raise NotImplementedError("501")
        return real(key, data)

    objects.put = put
    found = abilities.probe(objects, BASE)
    assert not found.conditions
    assert "it is refused: 501" in found.absent


def test_a_race(tmp_path):
    """Of several that create one object at the same time one has to win; a thorough look counts."""
    none = abilities._race(FolderObjects(tmp_path / "none", conditions=False), BASE)
    assert none == "of 8 that created one object at the same time, 8 were told so"
    assert abilities._race(FolderObjects(tmp_path / "all"), BASE) == ""


def test_a_listing_that_lags(tmp_path):
    """A listing that does not show what was just put is said to lag."""
    objects = FolderObjects(tmp_path)
    objects.list = lambda prefix, deep=True: iter(())
    assert abilities.probe(objects, BASE).listing == "what was just put is not in it"


def test_a_server_that_is_away(tmp_path):
    """A probe that gets no answer is an error for a run, and remembered by nobody; for those who look it is a word."""
    objects = FolderObjects(tmp_path)

    def put(*_, **__):
        raise ConnectionError("reset by peer")

    objects.put = put
    with pytest.raises(ConnectionError):
        abilities.abilities_of(objects, BASE)
    assert abilities.thorough(objects, BASE).writing == "reset by peer"
    del objects.put
    assert abilities.abilities_of(objects, BASE).conditions
