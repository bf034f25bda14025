"""Whatever happens in whatever order: the mirror has whole checkpoints alone, and in the end all that is here."""

from __future__ import annotations

import contextlib
import tempfile
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import notes
from holdfast.format import reading
from holdfast.mirroring import Carrier
from holdfast.mirroring.sending import way_to
from holdfast.source import FileSource
from holdfast.storage.local import LocalStore
from holdfast.storage.remote import RemoteStore
from holdfast.storage.remote import parts as cutting
from holdfast.storage.remote.objects import PartRules
from tests.mirroring.makings import content, link, pin, save
from tests.storage.objects_in_memory import ObjectsInMemory
from tests.support.properties import examples

PART = 1 << 12
NAMES = ("a.ckpt", "b.ckpt", "last.ckpt")

names = st.sampled_from(NAMES)
events = st.one_of(
    st.tuples(st.just("save"), names),
    st.tuples(st.just("link"), names),
    st.tuples(st.just("remove"), names),
    st.tuples(st.just("pin"), names),
    st.tuples(st.just("carry"), names, st.integers(0, 25)),  # after so many requests the server is gone: 0 is never
    st.tuples(st.just("lose"), st.integers(1, 20)),  # a file goes at such a request of the next carry
)


class _GoneError(ConnectionError):
    """The server is gone."""


class _World:
    """A directory, a server, and what a process knows that carries from one to the other."""

    def __init__(self, folder):
        self.local = LocalStore(f"{folder}/run")
        self.objects = ObjectsInMemory(PartRules(least=1))
        self.remote = RemoteStore("s3://bucket/run", "bucket/run", self.objects)
        self.said = {}
        self.number = 0
        self.losing = 0

    def save(self, name):
        self.number += 1
        self.said[name] = save(self.local, name, seed=self.number, size=5000, sequence=self.number)

    def link(self, name):
        if self.local.exists(name) and name != "last.ckpt":
            link(self.local, name, "last.ckpt")
            self.said["last.ckpt"] = self.said[name]

    def remove(self, name):
        self.local.remove(name)

    def pin(self, name):
        if self.local.exists(name):
            pin(self.local, self.said[name])

    def lose(self, number):
        self.losing = number

    def carry(self, name, limit=0):
        """Carry as a process that has just begun, until the server goes."""
        asked = [0]
        losing, self.losing = self.losing, 0

        def before(kind, part):
            asked[0] += 1
            if limit and asked[0] > limit:
                raise _GoneError
            if asked[0] == losing:
                self.local.remove(name)

        self.objects.before = before
        carrier = Carrier(self.local, way_to(self.remote, self.local, workers=1))
        try:
            with contextlib.suppress(_GoneError) if limit else contextlib.nullcontext():
                carrier.tidy()
                return carrier.carry(name)
        finally:
            carrier.close()
            self.objects.before = lambda kind, part: None

    def here(self):
        """The checkpoints of the directory, and what is said of them; not what is said of those that are gone."""
        living = [notes.identity(self.said[name]) for name in NAMES if self.local.exists(name)]
        found = content(self.local)
        return {name: data for name, data in found.items() if name in NAMES or any(one in name for one in living)}

    def check(self):
        """Every checkpoint of the mirror is whole, by every digest."""
        for name, data in content(self.remote).items():
            if name.endswith(".ckpt"):
                with tempfile.NamedTemporaryFile() as file:
                    file.write(data)
                    file.flush()
                    assert reading.verify(FileSource(name, file)) is not None


@pytest.fixture(autouse=True, scope="module")
def _small_parts():
    with (
        mock.patch.object(cutting, "PART", PART),
        mock.patch.object(cutting, "_ROUND", 1),
        mock.patch("holdfast.storage.remote.uploading.PART", PART),
    ):
        yield


@examples(25)
@given(st.lists(events, max_size=12))
def test_any_order(happened):
    """After any order of saves, removals, cuts and outages the mirror is whole, and gets all that is here."""
    with tempfile.TemporaryDirectory() as folder:
        world = _World(folder)
        for event, *words in happened:
            getattr(world, event)(*words)
            world.check()
        for name in NAMES:
            world.carry(name)
        world.check()
        assert world.here().items() <= content(world.remote).items()
        assert world.objects.underway == {}
