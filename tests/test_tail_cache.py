"""The ends of remote files that are kept on this machine: looked up by what they are of, never wrong, bounded."""

from __future__ import annotations

import os
import stat

import pytest

import holdfast
from holdfast import tail_cache
from holdfast.front.saving import save_path
from holdfast.records import Facts
from holdfast.scanning import scan
from holdfast.storage.remote.connect import wrapping
from holdfast.tail_cache import kept


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Counts how often the server was asked; the cache is in ``tmp_path``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("HOLDFAST_CACHE")
    asked = []

    def of(data=b"end"):
        return lambda: asked.append(1) or data

    of.asked = asked
    return of


def files(folder):
    return [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names]


def test_what_was_fetched_is_not_fetched_again(fetch):
    """The same place, size and etag: the bytes of the first time, with no second request."""
    assert kept("s3://b/x", 9, "e", fetch()) == kept("s3://b/x", 9, "e", fetch(b"other")) == b"end"
    assert len(fetch.asked) == 1


@pytest.mark.parametrize("other", [("sftp://b/\udcff", 9, "e"), ("s3://b/x", 8, "e"), ("s3://b/x", 9, "f")])
def test_another_file_is_fetched(fetch, other):
    """Another place (be its name no text), size or etag is another file, and so is one without an etag."""
    kept("s3://b/x", 9, "e", fetch())
    assert kept(*other, fetch(b"new")) == b"new"
    assert kept("s3://b/x", 9, "", fetch(b"newer")) == b"newer"


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_one_is_fetched_again(fetch, tmp_path, damage):
    """A kept end that is cut off, is something else or has a flipped bit does not come out of the cache."""
    kept("s3://b/x", 9, "e", fetch(b"end" * 100))
    (path,) = files(tmp_path)
    with open(path, "rb") as file:
        data = bytearray(file.read())
    data[-1] ^= 1
    with open(path, "wb") as file:
        file.write(bytes(data) if damage is None else damage)
    assert kept("s3://b/x", 9, "e", fetch(b"again")) == b"again"
    assert kept("s3://b/x", 9, "e", fetch()) == b"again"


def test_it_is_for_this_user_alone_and_can_be_off(fetch, tmp_path, monkeypatch):
    """Nobody else may read what is kept; ``HOLDFAST_CACHE=0`` keeps nothing and uses nothing."""
    kept("s3://b/x", 9, "e", fetch())
    (path,) = files(tmp_path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    monkeypatch.setenv("HOLDFAST_CACHE", "0")
    assert kept("s3://b/x", 9, "e", fetch(b"now")) == b"now"
    kept("s3://b/z", 9, "e", fetch())
    assert files(tmp_path) == [path]


def test_a_cache_that_cannot_be_written_is_none(fetch, tmp_path):
    """A file where the folder should be is no error: the end is fetched."""
    (tmp_path / "holdfast").write_text("in the way")
    assert kept("s3://b/x", 9, "e", fetch()) == b"end"


def test_it_does_not_grow_without_bound(fetch, tmp_path, monkeypatch):
    """Where there is too much, the oldest go."""
    monkeypatch.setattr(tail_cache, "_LIMIT", 4000)
    for number in range(1000):
        kept("s3://b/x", 9, f"{number}", fetch(os.urandom(16)))
    assert sum(os.path.getsize(path) for path in files(tmp_path)) < 1000 * 20
    assert kept("s3://b/x", 9, "999", fetch(b"fetched")) != b"fetched"


class Spoiled:
    """Every answer's bytes are others than those that are there, each time in another place; and it counts them."""

    def __init__(self, objects):
        self._objects = objects
        self.asked = 0
        self.spoils = True

    def __getattr__(self, name):
        return getattr(self._objects, name)

    def get(self, key, start, end):
        data = bytearray(self._objects.get(key, start, end))
        self.asked += 1
        for at in range(self.asked if self.spoils else len(data), len(data), 31):
            data[at] ^= 1
        return bytes(data)


def test_what_came_wrong_is_not_believed_from_then_on(fetch, s3):
    """Wrong bytes over the network do not make a checkpoint damaged, or foreign, on this machine for ever."""
    url = s3.url(f"wrong/{os.urandom(4).hex()}")
    save_path(f"{url}/x.ckpt", {"w": 1}, Facts(step=7))
    with wrapping(Spoiled):
        assert [entry.step for entry in holdfast.catalog(url)] != [7]
    assert [entry.step for entry in holdfast.catalog(url)] == [7]


def test_what_is_damaged_stays_so_and_what_is_foreign_is_kept(fetch, s3):
    """A damaged end is fetched at each look, and never called whole; a foreign one that came twice, no more."""
    url = s3.url(f"wrong/{os.urandom(4).hex()}")
    save_path(f"{url}/x.ckpt", {"w": 1}, Facts(step=7))
    store = holdfast.storage.open_store(url)
    data = store.read("x.ckpt", 0, 1 << 20)
    store.put("x.ckpt", [data[:-100]])
    store.put("foreign.ckpt", [b"bytes of another program"])
    for asked in (2 + 2, 1, 1):
        made = []
        with wrapping(lambda objects, made=made: made.append(Spoiled(objects)) or made[-1]):
            store = holdfast.storage.open_store(url)
            for each in made:
                each.spoils = False
            found = {each.name: each for each in scan(store)}
        assert found["x.ckpt"].damaged
        assert not found["foreign.ckpt"].damaged
        assert sum(each.asked for each in made) == asked
