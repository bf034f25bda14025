"""The memory that a load leaves behind: the bytes that were checked, tied to no file, given back piece by piece."""

from __future__ import annotations

import copy
import errno
import gc
import io
import os
import pickle
import tempfile

import pytest
import torch
from hypothesis import given

import holdfast
from holdfast import DamagedCheckpointError, LoadError
from holdfast.engine import filling, unpickling
from holdfast.storage import direct_read
from tests.support.files import assemble, content, put, records, save, torch_bytes
from tests.support.properties import examples
from tests.support.states import same, states

SIZE = 3 << 20


@pytest.fixture
def large(tmp_path):
    """A checkpoint with records of all sizes around those at which something changes."""
    sizes = (0, 1, 4095, 4096, 65535, 65536, 65537, 1 << 20, SIZE, 9 << 20)
    state = {str(size): torch.arange(size, dtype=torch.int64).to(torch.uint8) for size in sizes}
    return save(tmp_path / "large.ckpt", state), state


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield made


def resident():
    """Bytes of this process that are in memory and are no file's."""
    with open("/proc/self/status") as file:
        return next(int(text.split()[1]) * 1024 for text in file if text.startswith("RssAnon"))


def never(*_, **__):
    raise AssertionError


@examples(60)
@given(state=states())
def test_what_is_built_here_is_what_torch_builds(folder, state):
    """For arbitrary states the load equals ``torch.load`` of the same file, checked or not, whatever the location."""
    path = save(os.path.join(folder, "x.ckpt"), {"state": state})
    expected = torch.load(path, weights_only=False)
    moved = {"cpu": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", never)
        for location in ("cpu", None, torch.device("cpu"), moved, lambda storage, _: storage):
            assert same(holdfast.load(path, weights_only=False, map_location=location), expected)
        assert same(holdfast.load(path, weights_only=False, verify=False), expected)


@pytest.mark.parametrize("piece", [direct_read.PAGE, 1 << 20, direct_read.PIECE])
@pytest.mark.parametrize("verify", [True, False])
def test_records_of_all_sizes(large, monkeypatch, piece, verify):
    """Records shorter and longer than a page, a piece and the memory of their own come back to the byte."""
    path, state = large
    for module in (direct_read, filling):
        monkeypatch.setattr(module, "PIECE", piece)
    loaded = holdfast.load(path, verify=verify)
    assert same(loaded, state)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.values())


@pytest.mark.parametrize("lacking", ["direct", "nowait", "mincore", "preadv", "refused"])
def test_systems_that_lack_something(large, monkeypatch, lacking):
    """Without direct reads, or without a way to ask the page cache, the same bytes come in another way."""
    path, state = large
    real = os.preadv
    if lacking == "direct":
        monkeypatch.setattr(direct_read, "_DIRECT", 0)
    elif lacking == "mincore":
        monkeypatch.setattr(direct_read._PageCache, "of", lambda _: None)
    elif lacking == "preadv":
        monkeypatch.setattr(direct_read, "_DIRECT", 0)
        monkeypatch.delattr(os, "preadv")
    else:

        def preadv(descriptor, buffers, offset, flags=0):
            import fcntl

            if (lacking == "nowait" and flags) or fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
                raise OSError(errno.EOPNOTSUPP, "not here")
            return real(descriptor, buffers, offset, flags)

        monkeypatch.setattr(os, "preadv", preadv)
    assert same(holdfast.load(path), state)
    assert holdfast.verify(path) is not None


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system has no way to drop a file from its cache")
@pytest.mark.parametrize("cached", [0, 1 << 20, 10 << 20])
def test_cached_in_part(large, cached):
    """A file of which the page cache holds nothing, the beginning, or most is read right."""
    path, state = large
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.read(cached)
    assert same(holdfast.load(path), state)


def test_reads_that_come_short(large, monkeypatch):
    """A system that hands over a few bytes at a time, as a network's filesystem may, is asked until all are there."""
    path, state = large
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, at, flags=0: real(file, [buffers[0][:100_000]], at, flags))
    assert same(holdfast.load(path), state)


def test_a_disk_that_fails_is_named(large, monkeypatch):
    """An input/output error is neither damage nor success: it is raised with the file's name."""
    path, _ = large

    def fail(*_):
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "preadv", fail)
    for use in (holdfast.load, holdfast.verify):
        with pytest.raises(OSError, match=r"large\.ckpt") as caught:
            use(path)
        assert caught.value.errno == errno.EIO


def test_the_tensors_have_no_tie_to_the_file(large):
    """After the load the file can be cut off and overwritten: the tensors stay, and are written to as any other."""
    path, state = large
    loaded = holdfast.load(path)
    os.truncate(path, 10)
    put(path, b"x" * SIZE)
    assert same(loaded, state)
    with open("/proc/self/maps") as file:
        assert path not in file.read()
    for tensor in loaded.values():
        tensor.fill_(3)
    assert all((tensor == 3).all() for tensor in loaded.values())


def test_the_tensors_are_ordinary(large):
    """What was loaded can be copied, pickled, saved, shared with other processes and viewed as any tensor."""
    path, state = large
    loaded = holdfast.load(path)
    assert same(copy.deepcopy(loaded), state)
    assert same(pickle.loads(pickle.dumps(loaded)), state)  # noqa: S301 - our own
    buffer = io.BytesIO()
    torch.save(loaded, buffer)
    assert same(torch.load(io.BytesIO(buffer.getvalue())), state)
    shared = loaded[str(SIZE)].share_memory_()
    assert shared.is_shared()
    assert torch.equal(shared, state[str(SIZE)])


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_a_tensor_keeps_no_other_ones_memory(tmp_path):
    """When most of a state is let go, its memory goes back to the system although a part is still in use."""
    count = 40
    state = {str(place): torch.full((1 << 20,), place, dtype=torch.uint8) for place in range(count)}
    path = save(tmp_path / "x.ckpt", {**state, "small": torch.ones(1)})
    holdfast.load(path)
    gc.collect()
    before = resident()
    loaded = holdfast.load(path)
    held = {"5": loaded["5"], "small": loaded["small"], "view": loaded["20"][10:20]}
    assert resident() - before > (count - 5) << 20
    del loaded
    gc.collect()
    assert resident() - before < 8 << 20
    assert held["5"].eq(5).all()
    assert held["view"].eq(20).all()


def test_a_tensor_larger_than_its_record_is_refused(tmp_path):
    """A pickle that asks for more bytes than its record has, or fewer than none, gets no other memory."""
    base = records(torch_bytes({"x": torch.ones(4)}))
    manifest = dict(_with_manifest(base))
    for count in (5, 2**31 - 1, -1):
        pickled = manifest["data.pkl"].replace(b"K\x04tq", b"J" + count.to_bytes(4, "little", signed=True) + b"tq")
        assert pickled != manifest["data.pkl"]
        parts = [(name, pickled if name == "data.pkl" else data) for name, data in base]
        path = put(tmp_path / "x.ckpt", assemble(_with_manifest(parts)))
        holdfast.verify(path)
        with pytest.raises(LoadError, match="cannot be loaded"):
            holdfast.load(path)


def _with_manifest(parts):
    """Add a true manifest to records."""
    import zlib

    from holdfast.format.manifest import MANIFEST_NAME, encode
    from holdfast.records import Facts, Manifest, Record

    listed = tuple(Record(name, len(data), zlib.crc32(data)) for name, data in parts)
    return [*parts, (MANIFEST_NAME, encode(Manifest(Facts(), listed, ())))]


def test_a_record_between_the_known_ones(tmp_path):
    """A record that neither torch nor the state knows of is checked and otherwise left alone."""
    parts = records(torch_bytes({"x": torch.arange(4)}))
    at = next(place for place, (name, _) in enumerate(parts) if name == "data/0")
    parts.insert(at, ("holdfast/slack", b"\0" * 10_000))
    path = put(tmp_path / "x.ckpt", assemble(_with_manifest(parts)))
    assert holdfast.load(path)["x"].tolist() == torch.load(path)["x"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("verify", [True, False])
def test_another_torch(large, monkeypatch, verify):
    """Where torch's unpickler takes no records from here, the file is verified all the same, then torch reads it."""
    path, state = large
    monkeypatch.setattr(unpickling, "works", lambda: False)
    assert same(holdfast.load(path, verify=verify), state)
    data = content(path)
    put(path, data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
    if verify:
        with pytest.raises(DamagedCheckpointError):
            holdfast.load(path)


def test_this_torch_takes_records_from_memory(monkeypatch):
    """The trial succeeds with the torch that is installed, and says no when its function is gone or errs."""
    assert unpickling.works()
    real = torch.serialization._load
    for other in (
        None,
        never,
        lambda *_, **__: {"x": torch.zeros(3), "y": [torch.zeros(0), "z"], "part": torch.ones(2)},
    ):
        monkeypatch.setattr(torch.serialization, "_load", other)
        assert not unpickling._try()
    monkeypatch.setattr(torch.serialization, "_load", real)
    assert unpickling._try()
    monkeypatch.setattr(filling, "_part", lambda image, *_: torch.zeros(len(image)))
    assert not unpickling._try()


def test_mapped(large):
    """``mmap=True`` gives the same tensors without reading them; writing to them leaves the file as it is."""
    path, state = large
    before = content(path)
    loaded = holdfast.load(path, mmap=True)
    assert same(loaded, state)
    loaded[str(SIZE)].fill_(9)
    assert content(path) == before


def test_mapped_files_are_checked_as_far_as_asked(large):
    """Mapped, damage in the framing and the manifest is refused; in a tensor's bytes only with ``verify=True``."""
    path, _ = large
    data = content(path)
    middle = len(data) // 2
    put(path, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert holdfast.load(path, mmap=True) is not None
    assert holdfast.load(path, mmap=True, verify=False) is not None
    with pytest.raises(DamagedCheckpointError, match="CRC-32"):
        holdfast.load(path, mmap=True, verify=True)
    for at in (2, data.rindex(b"float32") if b"float32" in data else len(data) - 2000, len(data) - 5):
        put(path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DamagedCheckpointError):
            holdfast.load(path, mmap=True)


def test_mapping_an_old_file_is_refused_in_words(tmp_path):
    """A file of the format before torch 1.6 cannot be mapped, and the error says so."""
    torch.save({"x": torch.ones(1)}, tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(LoadError, match="mmap"):
        holdfast.load(tmp_path / "x.ckpt", mmap=True)
