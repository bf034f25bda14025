"""Memory for bytes on their way to a disk."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

import pytest

from holdfast import memory as module
from holdfast.memory import PAGE, address_of, allocate, keep_from_children, touch


def resident(memory):
    """The bytes of the memory that the system has given pages for."""
    view = (ctypes.c_ubyte * (len(memory) // PAGE))()
    address = ctypes.c_void_p(address_of(memoryview(memory)))
    assert not ctypes.CDLL(None).mincore(address, ctypes.c_size_t(len(memory)), view)
    return sum(item & 1 for item in view) * PAGE


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, PAGE + 1, (2 << 20) - 1, 5 << 20])
def test_allocated_memory(size):
    """Memory is large enough, whole pages, begins at a page, can be written, and holds zeros."""
    memory = allocate(size)
    view = memoryview(memory)
    assert size <= len(memory) < size + PAGE + (not size)
    assert len(memory) % PAGE == address_of(view) % PAGE == 0
    assert bytes(view) == bytes(len(view))
    view[:] = b"x" * len(view)
    assert memory[-1:] == b"x"


def test_a_system_without_anonymous_memory(monkeypatch):
    """Where mmap has no such flag, memory is the same."""
    monkeypatch.delattr(mmap, "MAP_ANONYMOUS")
    memory = allocate(PAGE + 1)
    memory[:3] = b"abc"
    assert (len(memory), memory[:4]) == (2 * PAGE, b"abc\0")


@pytest.mark.parametrize("known", [True, False])
def test_touched_memory_has_its_pages(monkeypatch, known):
    """After a touch every page is there, whether the system has a call for it or not."""
    memory = allocate(64 * PAGE)
    assert resident(memory) == 0
    if not known:
        monkeypatch.setattr(module, "_POPULATE_WRITE", 9999)
    touch(memory)
    assert resident(memory) == len(memory)
    assert bytes(memory) == bytes(len(memory))


def test_an_address_is_of_the_views_own_begin():
    """The address of a part is that of the whole and the offset."""
    memory = allocate(2 * PAGE)
    view = memoryview(memory)
    assert address_of(view[100:]) - address_of(view) == 100
    ctypes.memset(address_of(view[100:]), 7, 1)
    assert memory[99:102] == b"\0\7\0"


def test_what_children_do_not_get():
    """Kept memory is zeros in a forked child, other memory is there, and the parent has both."""
    if sys.platform != "linux":
        pytest.skip("this system gives a child all")
    kept, shared = allocate(PAGE), allocate(PAGE)
    kept[:4] = shared[:4] = b"here"
    keep_from_children(kept)
    places = [address_of(memoryview(memory)) for memory in (kept, shared)]
    child = os.fork()
    if not child:
        found = [ctypes.string_at(place, 4) for place in places]
        os._exit(0 if found == [bytes(4), b"here"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert kept[:4] == shared[:4] == b"here"
