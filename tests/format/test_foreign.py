"""Files that other programs wrote: checked by what they have, and read where torch can."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch

import holdfast
from holdfast import DamagedCheckpointError, LoadError
from holdfast.front.opening import checkpoints
from tests.support.files import content, offsets, put, save, small_state, torch_bytes
from tests.support.properties import FACTOR, chance


def test_a_file_of_torch_save_is_whole_and_loads(tmp_path):
    """A plain ``torch.save`` file is verified by its zip checksums, has no manifest, is listed, and loads."""
    torch.save(small_state(), tmp_path / "x.ckpt")
    assert holdfast.verify(tmp_path / "x.ckpt") is None
    assert holdfast.load(tmp_path / "x.ckpt")["global_step"] == 2
    (found,) = checkpoints(tmp_path)
    assert (found.name, found.facts, found.problem, found.role) == ("x.ckpt", None, "", None)


def test_a_file_of_the_old_format_loads(tmp_path):
    """The format of torch before 1.6, which has no checksums, loads."""
    torch.save(small_state(), tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    assert holdfast.verify(tmp_path / "x.ckpt") is None
    assert holdfast.load(tmp_path / "x.ckpt")["global_step"] == 2


def test_flips_in_the_data_of_a_torch_file_are_refused(tmp_path):
    """A flipped bit in any record's data of a ``torch.save`` file is refused by the zip's own checksum."""
    data = torch_bytes(small_state())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = {info.filename.partition("/")[2]: info.file_size for info in archive.infolist()}
    dice = chance(5)
    for name, begin in offsets(data).items():
        start = data.index(b"FB", begin)
        start = -(-(start + 4) // 64) * 64
        for at in {start, start + sizes[name] - 1, *(start + dice.randrange(sizes[name]) for _ in range(3 * FACTOR))}:
            path = put(tmp_path / "x.ckpt", data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
            for step in (holdfast.verify, holdfast.load):
                with pytest.raises(DamagedCheckpointError, match=name):
                    step(path)


def test_a_torch_file_that_was_cut_off_is_refused(tmp_path):
    """A ``torch.save`` file cut off anywhere is refused."""
    data = torch_bytes(small_state())
    for end in range(0, len(data), 37):
        with pytest.raises(DamagedCheckpointError):
            holdfast.verify(put(tmp_path / "x.ckpt", data[:end]))


def test_a_zip_of_another_program_is_checked_too(tmp_path):
    """A checkpoint that was unpacked and zipped again by another program is still verified by its checksums."""
    path = save(tmp_path / "x.ckpt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "y.ckpt", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            if "holdfast" not in info.filename:
                new.writestr(info.filename, old.read(info))
    assert holdfast.verify(tmp_path / "y.ckpt") is None
    assert [found.facts for found in checkpoints(tmp_path) if found.name == "y.ckpt"] == [None]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P",
        b"PK",
        b"\0" * 4096,
        b"hello\n",
        b"{}",
        b"GIF89a" + bytes(100),
        b"PK\x03\x04",
        b"PK\x05\x06" + bytes(18),
    ],
    ids=lambda data: repr(data[:8]),
)
def test_what_is_no_checkpoint_is_refused(tmp_path, data):
    """Empty files, text, zeros, an empty zip: refused by the load, and by the check wherever it can tell."""
    path = put(tmp_path / "x.ckpt", data)
    with pytest.raises(LoadError, match=r"x\.ckpt"):
        holdfast.load(path)
    if not data.startswith(b"PK\x05\x06"):  # an empty zip is a whole zip
        with pytest.raises(DamagedCheckpointError):
            holdfast.verify(path)


def test_an_encrypted_zip_is_refused(tmp_path):
    """A zip entry that is marked as encrypted, compressed by an unknown way, or both is refused in our words."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"abc" * 10)
    data = buffer.getvalue()
    at = data.rindex(b"PK\x01\x02")
    for flags, method in ((1, 0), (0, 14), (0, 12), (1, 99), (0x40, 8)):
        broken = bytearray(data)
        for place in (6, at + 8):
            broken[place : place + 4] = flags.to_bytes(2, "little") + method.to_bytes(2, "little")
        with pytest.raises(DamagedCheckpointError):
            holdfast.verify(put(tmp_path / "x.ckpt", bytes(broken)))


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    """What is not there, and what is a directory, are errors that name the path."""
    for path in (tmp_path / "none.ckpt", tmp_path / "no" / "none.ckpt", tmp_path):
        for step in (holdfast.verify, holdfast.load):
            with pytest.raises(holdfast.CheckpointNotFoundError, match=path.name):
                step(path)
    assert content(save(tmp_path / "x.ckpt"))
