"""What "durable" means on this machine: the order of the calls, and what is left when one fails."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from holdfast.storage import Blob, open_store
from holdfast.storage import local as module
from holdfast.testing.store_suite.material import failing

ORDER = ("write", "fsync", "rename", "link", "unlink", "mkdir")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "run")


@pytest.fixture
def calls(monkeypatch):
    """The calls to the system, in their order, with the paths that the descriptors stand for."""
    seen = []

    def watched(name, real):
        def call(*arguments, **options):
            seen.append((name, *(_shown(argument) for argument in arguments[:2])))
            return real(*arguments, **options)

        return call

    for name in ORDER:
        monkeypatch.setattr(module.os, name, watched(name, getattr(os, name)))
    return seen


def _shown(argument):
    if isinstance(argument, int):
        argument = os.readlink(f"/proc/self/fd/{argument}")
    text = os.path.basename(str(argument)) if isinstance(argument, str) else "data"
    return "temporary" if text.startswith(".holdfast-") else text


def test_the_order_of_a_durable_write(store, calls):
    """Write, fsync of the file, rename, fsync of its folder, and nothing after: in this order."""
    store.put("first.ckpt", [b"x"])
    calls.clear()
    store.put("x.ckpt", [b"one", b"two"])
    assert calls == [
        ("write", "temporary", "data"),
        ("fsync", "temporary"),
        ("rename", "temporary", "x.ckpt"),
        ("fsync", "run"),
    ]


def test_new_folders_are_durable_too(tmp_path, calls):
    """Each folder that a put makes is synced in the folder above it, before the file is written."""
    open_store(tmp_path / "a").put("b/x.ckpt", [b"one"])
    names = [call for call in calls if call[0] in ("mkdir", "fsync", "rename")]
    assert names == [
        ("mkdir", "a"),
        ("fsync", tmp_path.name),
        ("mkdir", "b"),
        ("fsync", "a"),
        ("fsync", "temporary"),
        ("rename", "temporary", "x.ckpt"),
        ("fsync", "b"),
    ]


def test_links_and_removals_are_durable(store, calls):
    """A second name replaces the old one by a rename, and it and a removal are followed by the folder's fsync."""
    store.put("a.ckpt", [b"1"])
    store.put("b.ckpt", [b"2"])
    calls.clear()
    assert store.link("a.ckpt", "b.ckpt") == "hard link"
    store.remove("a.ckpt")
    assert calls == [
        ("link", "a.ckpt", "temporary"),
        ("rename", "temporary", "b.ckpt"),
        ("fsync", "run"),
        ("unlink", "a.ckpt"),
        ("fsync", "run"),
    ]


def test_a_move_is_durable(store, calls):
    """A file gets its other name by one rename, followed by the folder's fsync."""
    store.put("a.ckpt", [b"1"])
    calls.clear()
    assert store.move("a.ckpt", "a.ckpt.damaged")
    assert calls == [("rename", "a.ckpt", "a.ckpt.damaged"), ("fsync", "run")]


@pytest.mark.parametrize("share", [1, 7, 4096])
def test_short_writes_are_continued(store, monkeypatch, share):
    """When the system takes only a part of the bytes at a time, the rest is written too."""
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda descriptor, data: real(descriptor, data[:share]))
    data = bytes(range(256)) * 40
    assert store.put("x.ckpt", [data]) == len(data)
    assert store.read("x.ckpt", 0, 99_999) == data


@pytest.mark.parametrize(
    "lie", [lambda real, descriptor, data: real(descriptor, data[:-1]) + 1, lambda real, descriptor, data: 0]
)
def test_writes_that_lie_are_noticed(store, monkeypatch, lie):
    """A write that reports bytes it did not write, or none for ever, is an error, and nothing is committed."""
    store.put("x.ckpt", [b"old"])
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda descriptor, data: lie(real, descriptor, data))
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
        store.put("x.ckpt", [b"something"])
    assert caught.value.errno == errno.EIO
    assert store.read("x.ckpt", 0, 99) == b"old"
    assert os.listdir(store.root) == ["x.ckpt"]


@pytest.mark.parametrize("name", ["write", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_call_that_fails_leaves_the_old_blob(store, monkeypatch, name, number):
    """Whichever call of the write fails, the old blob stays, no temporary is left, and the next put works."""
    store.put("x.ckpt", [b"old"])

    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(module.os, name, fail)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
            store.put("x.ckpt", [b"new"])
    assert caught.value.errno == number
    assert store.read("x.ckpt", 0, 99) == b"old"
    assert os.listdir(store.root) == ["x.ckpt"]
    store.put("x.ckpt", [b"new"])
    assert store.read("x.ckpt", 0, 99) == b"new"


@pytest.mark.parametrize("how", ["reflink", "copy"])
def test_a_filesystem_without_hard_links(store, monkeypatch, how):
    """Where there are no hard links, a second name is a reflink or a copy, just as whole and durable."""

    def refuse(*arguments, **options):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(module.os, "link", refuse)
    if how == "copy":
        monkeypatch.setattr(module, "_reflink", lambda origin, copy: False)
    data = os.urandom(100_000)
    store.put("a.ckpt", [data])
    assert store.link("a.ckpt", "b.ckpt") in (how, "copy")
    assert store.read("b.ckpt", 0, 999_999) == data
    assert sorted(os.listdir(store.root)) == ["a.ckpt", "b.ckpt"]


def test_hard_links_share_the_bytes(store):
    """Where there are hard links, a second name takes no space."""
    store.put("a.ckpt", [b"x" * 10_000])
    assert store.link("a.ckpt", "b.ckpt") == "hard link"
    assert os.path.samefile(store.path("a.ckpt"), store.path("b.ckpt"))


def test_what_is_no_blob_is_not_listed(store, tmp_path):
    """Folders, dangling links and temporaries are not blobs; a link to a file is."""
    store.put("a.ckpt", [b"1"])
    os.mkdir(store.path("folder.ckpt"))
    os.symlink("nowhere", store.path("dangling.ckpt"))
    os.symlink("a.ckpt", store.path("linked.ckpt"))
    os.symlink(str(tmp_path), store.path("out"))
    with open(store.path(".holdfast-0011.tmp"), "wb") as file:
        file.write(b"half")
    assert store.blobs(depth=5) == [Blob("a.ckpt", 1), Blob("linked.ckpt", 1)]
    assert store.exists("dangling.ckpt")


def test_a_symbolic_link_is_replaced_and_not_followed(store, tmp_path):
    """A put over a symbolic link replaces the link; the file behind it is not touched."""
    (tmp_path / "precious").write_bytes(b"precious")
    store.put("a.ckpt", [b"1"])
    os.symlink(str(tmp_path / "precious"), store.path("x.ckpt"))
    store.put("x.ckpt", [b"new"])
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert store.read("x.ckpt", 0, 9) == b"new"


def test_modes_follow_the_umask(store):
    """A checkpoint has the permissions that any new file of this user has."""
    before = os.umask(0o027)
    try:
        store.put("x.ckpt", [b"1"])
    finally:
        os.umask(before)
    assert os.stat(store.path("x.ckpt")).st_mode & 0o777 == 0o640


def test_a_file_where_a_folder_should_be(store):
    """A root or folder that is a file is an error that says so, and the file stays."""
    store.put("a", [b"file"])
    with pytest.raises(OSError):  # noqa: PT011 - NotADirectoryError or FileExistsError
        store.put("a/x.ckpt", [b"1"])
    assert store.read("a", 0, 9) == b"file"


def test_descriptors_are_given_back(store):
    """Neither puts, failed puts, links nor sweeps leave a file open."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        store.put("x.ckpt", [b"1"])
        store.link("x.ckpt", "y.ckpt")
        with pytest.raises(OSError, match="source"):
            store.put("z.ckpt", failing(b"1"))
        store.sweep()
    assert len(os.listdir("/proc/self/fd")) == before


LIMITED = """
import resource, signal, sys
from holdfast.storage import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store = open_store(sys.argv[1])
try:
    store.put("x.ckpt", [b"n" * 60_000] * 3)
except OSError as error:
    print(error.errno)
store.put("y.ckpt", [b"small"])
"""


def test_a_file_larger_than_the_process_may_write(store):
    """With ``ulimit -f`` a large put fails with EFBIG, leaves the old blob and no rest, and a small one works."""
    store.put("x.ckpt", [b"old"])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, store.root], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [str(errno.EFBIG)]
    assert store.blobs() == [Blob("x.ckpt", 3), Blob("y.ckpt", 5)]
    assert sorted(os.listdir(store.root)) == ["x.ckpt", "y.ckpt"]


@pytest.fixture
def full_disk(tmp_path):
    """A real filesystem of one mebibyte, where this user may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],  # noqa: S607 - the system's own
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small filesystem")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607 - the system's own


def test_a_full_disk(full_disk):
    """On a disk that fills up, the put fails with ENOSPC, gives its space back, and harms nothing."""
    store = open_store(full_disk)
    store.put("x.ckpt", [b"o" * 300_000])
    for _ in range(3):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
            store.put("x.ckpt", [b"n" * 200_000] * 6)
        assert caught.value.errno == errno.ENOSPC
    assert store.read("x.ckpt", 0, 999_999) == b"o" * 300_000
    assert os.listdir(full_disk) == ["x.ckpt"]
    store.put("y.ckpt", [b"n" * 300_000])
