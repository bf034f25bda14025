"""Copies that are as slow as they can be: half of each is made at the fence, when training is already waiting."""

from __future__ import annotations

import ctypes
import threading

import pytest

from holdfast.engine import Saver
from holdfast.engine.flight import Flight
from holdfast.snapshot import copying
from holdfast.snapshot.image import HostImage
from holdfast.storage.local import LocalStore
from tests.engine.disks import Disk

PATIENCE = 20  # seconds after which a test that hangs goes on, and fails


class SlowCopies:
    """Holds what reads tensors while training goes on, at one of two moments, until the fence or a ``wait`` is reached.

    Attributes:
        moment: ``"before"`` the first byte, ``"halfway"`` through the first tensor, or ``""``: not at all.
        overlapped: how many copies of the state were left for later.

    """

    def __init__(self):
        self.moment = "halfway"
        self.overlapped = 0
        self.stands = threading.Event()
        self.go = threading.Event()

    def hold(self):
        self.stands.set()
        assert self.go.wait(PATIENCE)

    def memmove(self, target, source, size):
        """Copy as ``ctypes`` does; not on the training thread, which copies what cannot wait."""
        if threading.current_thread() is threading.main_thread() or not self.moment:
            ctypes.memmove(target, source, size)
            return
        half = size // 2 if self.moment == "halfway" else 0
        ctypes.memmove(target, source, half)
        self.hold()
        ctypes.memmove(target + half, source + half, size - half)

    def __getattr__(self, name):
        """Stand for ``ctypes`` otherwise."""
        return getattr(ctypes, name)

    def seal(self, original, image, snapshot, taken, finish):
        if taken.resident and self.moment:
            self.hold()
        return original(image, snapshot, taken, finish)

    def begin(self, original, flight):
        self.stands.clear()
        self.go.clear()
        original(flight)

    def submit(self, original, saver, order):
        flight = original(saver, order)
        self.overlapped += bool(flight.taken.later)
        if (flight.taken.later or flight.taken.resident) and self.moment:
            assert self.stands.wait(PATIENCE)
        return flight

    def release(self, original, flight):
        self.go.set()
        return original(flight)


@pytest.fixture
def slow_copies(monkeypatch):
    """Have each overlapped copy stand still until the training thread waits for it."""
    slow = SlowCopies()

    def wrap(owner, name, around):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given: around(original, *given))

    monkeypatch.setattr(copying, "ctypes", slow)
    wrap(HostImage, "seal", slow.seal)
    wrap(Saver, "submit", slow.submit)
    wrap(Flight, "__post_init__", slow.begin)
    wrap(Flight, "fence", slow.release)
    wrap(Flight, "wait", slow.release)
    yield slow
    slow.go.set()


@pytest.fixture
def saver():
    """A saver of one's own, closed in the end."""
    one = Saver()
    yield one
    one.close()


@pytest.fixture
def disk(monkeypatch):
    """Have the local store's writes wait, or fail, as the test says."""
    one = Disk()
    original = LocalStore.put
    monkeypatch.setattr(LocalStore, "put", lambda *given, **words: one.put(original, *given, **words))
    yield one
    one.open()
