"""Large files: written directly from several threads, or as well as the filesystem can; and what if it cannot."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import threading
import time

import pytest

from holdfast.memory import PAGE
from holdfast.storage import Blob, blocks, open_store
from holdfast.storage import durable as module
from holdfast.testing.store_suite.material import FAILURE, POOL, aligned, failing

DATA = POOL + POOL[: 3 << 20] + b"an odd end"  # three bounce buffers full, and one that is not
BLOCK = 1 << 20
WHOLES = [[aligned(DATA)], [DATA], [aligned(DATA[:BLOCK]), DATA[BLOCK : BLOCK + 5], aligned(DATA[BLOCK + 5 :])]]

needs_direct = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no direct writes on this system")


@pytest.fixture(autouse=True)
def _many_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "run")


@pytest.fixture
def rests(store):
    """Nothing is left of a put: no temporary, no thread, no open file."""
    opened = len(os.listdir("/proc/self/fd"))

    def check(*names):
        assert sorted(os.listdir(store.root)) == sorted(names)
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("holdfast")] == []
        assert len(os.listdir("/proc/self/fd")) == opened

    return check


def is_direct(descriptor):
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0))


class Writes:
    """Stands before ``os.pwrite``: counts, and does what it was told instead."""

    def __init__(self, monkeypatch, instead=None):
        self.direct, self.buffered, self.inside, self.most = [], [], 0, 0
        self._real, self._instead, self._lock = os.pwrite, instead, threading.Lock()
        monkeypatch.setattr(blocks.os, "pwrite", self)

    def __call__(self, descriptor, data, offset):
        with self._lock:
            of_kind = self.direct if is_direct(descriptor) else self.buffered
            of_kind.append((offset, len(data)))
            number = len(of_kind)
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            if self._instead is None:
                return self._real(descriptor, data, offset)
            return self._instead(self._real, descriptor, data, offset, number)
        finally:
            with self._lock:
                self.inside -= 1


def takes_direct_writes(folder):
    path = os.path.join(folder, "probe")
    with open(path, "wb"), contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_DIRECT))
        return True
    return False


def refuse_direct(monkeypatch, number=errno.EINVAL):
    real = os.open

    def refusing(path, flags, *mode, **words):
        if flags & os.O_DIRECT:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *mode, **words)

    monkeypatch.setattr(blocks.os, "open", refusing)


@needs_direct
@pytest.mark.parametrize("chunks", WHOLES, ids=["aligned", "bytes", "mixed"])
def test_large_files_go_past_the_cache(store, tmp_path, monkeypatch, rests, chunks):
    """Where the filesystem takes direct writes, all but the ragged end is written so, at multiples of a page."""
    if not takes_direct_writes(tmp_path):
        pytest.skip("this filesystem takes no direct writes")
    writes = Writes(monkeypatch)
    whole = b"".join(chunks)
    store.put("x.ckpt", chunks)
    assert store.read("x.ckpt", 0, len(DATA) + 9) == whole
    assert writes.buffered == []
    assert all(offset % PAGE == length % PAGE == 0 for offset, length in writes.direct)
    assert sum(length for _, length in writes.direct) == len(whole) // PAGE * PAGE
    rests("x.ckpt")


@pytest.mark.parametrize("chunks", WHOLES, ids=["aligned", "bytes", "mixed"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
@needs_direct
def test_a_filesystem_that_opens_nothing_for_direct_writes(store, monkeypatch, rests, chunks, number):
    """Where the file cannot be opened for direct writes, it is written through the cache, exact."""
    refuse_direct(monkeypatch, number)
    writes = Writes(monkeypatch)
    store.put("x.ckpt", chunks)
    assert writes.direct == []
    assert store.read("x.ckpt", 0, len(DATA) + 9) == b"".join(chunks)
    rests("x.ckpt")


def test_a_system_without_direct_writes(store, monkeypatch, rests):
    """Where there is no such flag at all (macOS), the file is written through the cache, exact."""
    monkeypatch.delattr(blocks.os, "O_DIRECT", raising=False)
    store.put("x.ckpt", [aligned(DATA)])
    assert store.read("x.ckpt", 0, len(DATA) + 9) == DATA
    rests("x.ckpt")


@needs_direct
def test_an_open_that_fails_otherwise_is_an_error(store, monkeypatch, rests):
    """A second open that fails for any other reason is an error like that of the first."""
    store.put("x.ckpt", [b"old"])
    with monkeypatch.context() as patch:
        refuse_direct(patch, errno.EMFILE)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
            store.put("x.ckpt", [aligned(DATA)])
    assert caught.value.errno == errno.EMFILE
    assert store.read("x.ckpt", 0, 9) == b"old"
    rests("x.ckpt")


@needs_direct
@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("chunks", WHOLES, ids=["aligned", "bytes", "mixed"])
def test_direct_writes_that_are_refused(store, monkeypatch, rests, chunks, first):
    """A filesystem that opens for direct writes but refuses them, from the first or a later one on, does no harm."""

    def instead(real, descriptor, data, offset, number):
        if is_direct(descriptor) and number >= first:
            raise OSError(errno.EINVAL, "not like this")
        return real(descriptor, data, offset)

    writes = Writes(monkeypatch, instead)
    store.put("x.ckpt", chunks)
    assert writes.buffered
    assert store.read("x.ckpt", 0, len(DATA) + 9) == b"".join(chunks)
    rests("x.ckpt")


def test_memory_that_is_a_filesystem(monkeypatch):
    """On a real tmpfs, whatever it says of direct writes, files are exact and nothing is left."""
    if not os.path.ismount("/dev/shm"):  # noqa: S108 - the one tmpfs that a Linux has
        pytest.skip("no tmpfs here")
    folder = tempfile.mkdtemp(dir="/dev/shm")
    try:
        store = open_store(folder)
        for chunks in WHOLES:
            store.put("x.ckpt", chunks, over=store.retire("x.ckpt"))
            assert store.read("x.ckpt", 0, len(DATA) + 9) == b"".join(chunks)
            assert os.listdir(folder) == ["x.ckpt"]
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("share", [1, PAGE - 1, PAGE, 5 * PAGE, BLOCK - 1, BLOCK - PAGE])
def test_short_writes_of_blocks_are_continued(store, monkeypatch, rests, share):
    """When the system takes only a part of a block, the rest is written too, directly or not."""
    taken = []

    def instead(real, descriptor, data, offset, number):
        if offset % BLOCK or len(data) <= share:  # the rest of a block, or its end
            return real(descriptor, data, offset)
        taken.append(offset)
        if share % PAGE == 0:
            return real(descriptor, data[:share], offset)
        with open(f"/proc/self/fd/{descriptor}", "r+b", buffering=0) as ordinary:
            ordinary.seek(offset)
            return ordinary.write(data[:share])

    Writes(monkeypatch, instead)
    store.put("x.ckpt", [aligned(DATA)])
    assert len(taken) >= len(DATA) // BLOCK
    assert store.read("x.ckpt", 0, len(DATA) + 9) == DATA
    rests("x.ckpt")


@pytest.mark.parametrize("direct", [True, False])
def test_blocks_of_which_nothing_is_written(store, monkeypatch, rests, direct):
    """A system that writes none of a block and says no error is not asked for ever: that is an error."""
    store.put("x.ckpt", [b"old"])
    if not direct:
        monkeypatch.delattr(blocks.os, "O_DIRECT", raising=False)
    Writes(monkeypatch, lambda real, descriptor, data, offset, number: 0)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
        store.put("x.ckpt", [aligned(DATA)])
    assert caught.value.errno == errno.EIO
    assert store.read("x.ckpt", 0, 9) == b"old"
    rests("x.ckpt")


@pytest.mark.parametrize("at", [1, 2, 6, 11])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("make", [bytes, aligned], ids=["bytes", "aligned"])
def test_a_block_that_fails(store, monkeypatch, rests, *, at, number, make):
    """Whichever block a thread cannot write, that error comes out, and no thread reads the memory any more."""
    store.put("x.ckpt", [b"old"])
    if make is bytes and at > 3:
        at = 3  # there are no more blocks

    def instead(real, descriptor, data, offset, count):
        if count == at:
            raise OSError(number, os.strerror(number))
        time.sleep(0.01)
        return real(descriptor, data, offset)

    with monkeypatch.context() as patch:
        writes = Writes(patch, instead)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
            store.put("x.ckpt", [make(DATA)])
        inside, count = writes.inside, len(writes.direct) + len(writes.buffered)
        time.sleep(0.03)
        assert inside == 0
        assert len(writes.direct) + len(writes.buffered) == count
    assert caught.value.errno == number
    assert store.read("x.ckpt", 0, 9) == b"old"
    rests("x.ckpt")
    store.put("x.ckpt", [make(DATA)])
    assert store.read("x.ckpt", 0, len(DATA) + 9) == DATA


@pytest.mark.parametrize("before", [0, 1, 5 << 20, len(POOL)])
def test_a_source_that_fails_while_blocks_are_written(store, monkeypatch, rests, before):
    """When the source fails, what is being written ends, what waits is not begun, and the old blob stays."""
    store.put("x.ckpt", [b"old"])

    def instead(real, descriptor, data, offset, number):
        time.sleep(0.02)
        return real(descriptor, data, offset)

    writes = Writes(monkeypatch, instead)
    with pytest.raises(OSError, match="the source failed"):
        store.put("x.ckpt", failing(aligned(POOL[:before]), error=FAILURE))
    assert writes.inside == 0
    count = len(writes.direct)
    time.sleep(0.05)
    assert len(writes.direct) == count
    assert store.read("x.ckpt", 0, 9) == b"old"
    rests("x.ckpt")


def test_blocks_are_written_beside_each_other(store, monkeypatch):
    """More than one block is with the system at a time, but not more than there are threads."""

    def instead(real, descriptor, data, offset, number):
        time.sleep(0.02)
        return real(descriptor, data, offset)

    writes = Writes(monkeypatch, instead)
    store.put("x.ckpt", [aligned(DATA)])
    assert writes.most == blocks._WRITERS == 2


def test_no_threads_to_be_had(store, monkeypatch, rests):
    """Where the system gives no thread any more, the blocks are written without."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        store.put("x.ckpt", [aligned(DATA)])
    assert store.read("x.ckpt", 0, len(DATA) + 9) == DATA
    rests("x.ckpt")


@pytest.mark.parametrize("recycled", [False, True])
def test_the_order_of_a_large_durable_write(store, monkeypatch, recycled):
    """A retired name goes; all blocks; the gate; the file's fsync; the rename; the folder's fsync: in this order."""
    store.put("old.ckpt", [aligned(DATA)])
    over = store.retire("old.ckpt") if recycled else ""
    calls = []

    def watch(name):
        real = getattr(os, name)

        def call(*arguments):
            calls.append(name)
            result = real(*arguments)
            calls.append(f"{name} done")
            return result

        monkeypatch.setattr(module.os, name, call)

    for name in ("pwrite", "write", "ftruncate", "fsync", "rename"):
        watch(name)
    store.put("x.ckpt", [aligned(DATA)], over=over, gate=lambda: calls.append("gate"))
    at = calls.index("gate")
    truncate = ["ftruncate", "ftruncate done"] if recycled else []
    assert calls[at:] == ["gate", *truncate, *["fsync", "fsync done", "rename", "rename done", "fsync", "fsync done"]]
    before = ["fsync", "fsync done"] if recycled else []
    assert calls[: len(before)] == before
    writes = calls[len(before) : at]
    assert set(writes) == {"pwrite", "pwrite done", "write", "write done"}
    assert writes.count("pwrite") == writes.count("pwrite done") == len(DATA) // BLOCK


@pytest.mark.parametrize("refused", [False, True])
def test_a_system_whose_fsync_stops_at_the_drive(store, monkeypatch, refused):
    """Where fcntl has F_FULLFSYNC (macOS), it is what makes the file durable, before the rename; or it fails."""
    store.put("x.ckpt", [b"old"])
    full, calls, real = 51, [], os.rename

    def control(descriptor, command, *rest):
        calls.append((command, os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))[:9]))
        if refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return 0

    monkeypatch.setattr(module.fcntl, "F_FULLFSYNC", full, raising=False)
    monkeypatch.setattr(module.fcntl, "fcntl", control)
    monkeypatch.setattr(module.os, "rename", lambda *paths: (calls.append("rename"), real(*paths)))
    if refused:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
            store.put("x.ckpt", [b"new"])
        assert caught.value.errno == errno.EIO
        assert store.blobs() == [Blob("x.ckpt", 3)]
        assert store.read("x.ckpt", 0, 9) == b"old"
    else:
        store.put("x.ckpt", [b"new"])
        assert calls == [(full, ".holdfast"), "rename"]
        assert store.read("x.ckpt", 0, 9) == b"new"
