"""What a listing reads of each file: its end, once, and of a large one two ranges more."""

from __future__ import annotations

import pytest
import torch

import holdfast
from holdfast import DamagedCheckpointError
from holdfast.format.manifest import MANIFEST_NAME
from holdfast.scanning import scan
from holdfast.storage import Blob, open_store
from holdfast.storage.local import LocalStore
from tests.format.test_hostile import GOOD
from tests.support.files import assemble, content, line, put, records, save, small_state, torch_bytes


@pytest.fixture
def reads(monkeypatch):
    """How often each file is read, by its name."""
    seen = []
    real = LocalStore.read

    def read(self, name, offset, length):
        seen.append((name, length))
        return real(self, name, offset, length)

    monkeypatch.setattr(LocalStore, "read", read)
    return seen


def test_a_small_file_is_read_once(tmp_path, reads):
    """Of each file of a few tensors one range is read, and not more than sixteen kilobytes."""
    for at in range(5):
        save(tmp_path / f"{at}.ckpt", sequence=at)
    reads.clear()
    assert len(scan(open_store(tmp_path))) == 5
    assert sorted(name for name, _ in reads) == [f"{at}.ckpt" for at in range(5)]
    assert max(length for _, length in reads) <= 1 << 14


def test_a_large_one_is_read_thrice(tmp_path, reads):
    """Of a file of a thousand tensors its end, its directory and its facts are read, and no data."""
    path = save(tmp_path / "x.ckpt", {f"{at}": torch.zeros(100) for at in range(1000)})
    size = len(content(path))
    reads.clear()
    (found,) = scan(open_store(tmp_path))
    assert found.facts is not None
    assert len(reads) == 3
    assert sum(length for _, length in reads) < size / 4


def test_a_manifest_that_is_not_the_last_record(tmp_path):
    """A manifest in the midst of a file is found as well."""
    parts = records(torch_bytes(small_state()))
    manifest = (MANIFEST_NAME, line(GOOD) + line([]) + line([]))
    put(tmp_path / "x.ckpt", assemble([parts[0], manifest, *parts[1:]]))
    assert holdfast.catalog(tmp_path)[0].run == GOOD["run"]


def test_what_a_listing_does_not_look_at_is_found_when_it_is_read(tmp_path):
    """A directory whose first entry is damaged is listed by its manifest; to verify or load it is refused."""
    path = save(tmp_path / "x.ckpt")
    data = bytearray(content(path))
    data[data.rfind(b"archive/data.pkl")] ^= 1  # in the central directory, which comes last
    put(path, bytes(data))
    assert holdfast.catalog(tmp_path)[0].facts is not None
    for read in (holdfast.verify, holdfast.load):
        with pytest.raises(DamagedCheckpointError):
            read(path)


def test_what_goes_while_it_is_listed_is_not_there(tmp_path):
    """A checkpoint that retention removes between the listing and the look at it is no problem of the directory."""

    class Late(LocalStore):
        def blobs(self, depth=0, odd=None):
            return [*super().blobs(depth, odd), Blob("gone.ckpt", 5000)]

    (tmp_path / "torn.ckpt").write_bytes(b"PK\3\4 torn")
    assert [item.name for item in scan(Late(str(tmp_path)))] == ["torn.ckpt"]
