"""What is damaged is refused, whatever was done to the file, and the record is named."""

from __future__ import annotations

import os

import pytest

import holdfast
from holdfast import DamagedCheckpointError
from holdfast.front.opening import checkpoints
from tests.support.files import content, offsets, put, save, small_state
from tests.support.properties import FACTOR, chance

SEED = 20260731


@pytest.fixture
def whole(tmp_path):
    """The bytes of a small whole checkpoint, and a place for damaged ones."""
    path = save(tmp_path / "whole.ckpt", small_state(), step=2, metrics={"val_loss": 0.25})
    return content(path), str(tmp_path / "damaged" / "x.ckpt")


def assert_refused(path, data):
    """Neither verified nor loaded, each with the error that names the file and the record."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    put(path, data)
    for use in (holdfast.verify, holdfast.load):
        with pytest.raises(DamagedCheckpointError) as caught:
            use(path)
        assert caught.value.path == path
        assert caught.value.record
        assert caught.value.problem
    for found in checkpoints(os.path.dirname(path)):
        assert found.name == "x.ckpt"  # listing never fails for what it finds


def flipped(data, byte, bit):
    """The data with one bit turned over."""
    return data[:byte] + bytes([data[byte] ^ (1 << bit)]) + data[byte + 1 :]


def test_every_byte_is_guarded(whole):
    """One random bit turned over in each byte of the file, one byte at a time: none passes, and none is loaded."""
    data, path = whole
    dice = chance(SEED)
    assert_refused(path, flipped(data, 0, 0))
    for byte in range(len(data)):
        put(path, flipped(data, byte, dice.randrange(8)))
        with pytest.raises(DamagedCheckpointError):
            holdfast.verify(path)
    for byte in dice.sample(range(len(data)), len(data) // 4):  # of all of them: the long run
        assert_refused(path, flipped(data, byte, dice.randrange(8)))


@pytest.mark.long
@pytest.mark.parametrize("bit", range(8))
def test_every_bit_is_guarded(whole, bit):
    """Every single bit of the file turned over: all are refused."""
    data, path = whole
    for byte in range(len(data)):
        assert_refused(path, flipped(data, byte, bit))


def test_a_flip_in_a_tensor_names_the_tensor(whole):
    """A flipped bit in a tensor's data is reported with the record and the tensor's name."""
    data, path = whole
    start = data.index(small_state()["state_dict"]["weight"].numpy().tobytes())
    os.makedirs(os.path.dirname(path))
    put(path, flipped(data, start + 5, 3))
    with pytest.raises(DamagedCheckpointError, match=r"record data/0 \(state_dict.weight\): its CRC-32 is") as caught:
        holdfast.load(path)
    assert "holdfast verify" in str(caught.value)


def test_the_unchecked_load_is_the_callers_choice(whole):
    """``verify=False`` skips the check, as it says: the damaged tensor is loaded."""
    data, path = whole
    start = data.index(small_state()["state_dict"]["weight"].numpy().tobytes())
    os.makedirs(os.path.dirname(path))
    put(path, flipped(data, start, 0))
    loaded = holdfast.load(path, verify=False)["state_dict"]["weight"]
    assert (loaded != small_state()["state_dict"]["weight"]).sum() == 1


def test_truncation_at_every_length(whole):
    """Cut off at every length near a boundary, and at others: all are refused."""
    data, path = whole
    ends = {0, 1, 2, 3, 4, 5, len(data) - 1}
    for at in offsets(data).values():
        ends |= {at - 1, at, at + 1}
    ends |= set(range(len(data) - 100, len(data)))
    ends |= set(chance(SEED).sample(range(len(data)), 200 * min(FACTOR, 20)))
    for end in sorted(end for end in ends if end >= 0):
        assert_refused(path, data[:end])


@pytest.mark.parametrize(
    "more", [b"\0", b"x" * 10, bytes(64), bytes(4096), b"PK\x05\x06" + bytes(18)], ids=lambda more: f"{len(more)}"
)
def test_appended_bytes(whole, more):
    """Bytes behind or before the end of the file, zeros and a second zip end among them, are refused."""
    data, path = whole
    assert_refused(path, data + more)
    assert_refused(path, more + data)


def test_a_file_saved_twice_over_itself(whole):
    """A file with a second copy of itself behind it is refused."""
    data, path = whole
    assert_refused(path, data + data)


def test_zeroed_ranges(whole):
    """Ranges that became zeros, as a power cut leaves them, blocks of all sizes up to the whole file: refused."""
    data, path = whole
    dice = chance(SEED)
    ranges = [(0, len(data)), (0, 4096), (len(data) - 98, len(data)), (4096, len(data))]
    for _ in range(200 * FACTOR):
        start = dice.randrange(len(data))
        ranges.append((start, min(len(data), start + dice.choice((1, 2, 16, 64, 512, 4096)))))
    for start, end in ranges:
        if any(data[start:end]):
            assert_refused(path, data[:start] + bytes(end - start) + data[end:])


def test_random_overwrites(whole):
    """Ranges overwritten with noise are refused."""
    data, path = whole
    dice = chance(SEED)
    for _ in range(200 * FACTOR):
        start = dice.randrange(len(data))
        noise = dice.randbytes(dice.choice((1, 4, 30, 300)))[: len(data) - start]
        if data[start : start + len(noise)] != noise:
            assert_refused(path, data[:start] + noise + data[start + len(noise) :])


def test_moved_and_removed_ranges(whole):
    """Bytes removed from the middle, put in there, or exchanged with their neighbours are refused."""
    data, path = whole
    dice = chance(SEED)
    for _ in range(100 * FACTOR):
        start, width = dice.randrange(len(data) - 300), dice.choice((1, 8, 64, 128))
        first, second = data[start : start + width], data[start + width : start + 2 * width]
        assert_refused(path, data[:start] + data[start + width :])
        assert_refused(path, data[:start] + first + data[start:])
        if first != second:
            assert_refused(path, data[:start] + second + first + data[start + 2 * width :])


def test_bytes_of_another_checkpoint(whole, tmp_path):
    """Bytes exchanged between two checkpoints of one layout, tensors, manifest or directory, are refused."""
    data, path = whole
    other = content(save(tmp_path / "other.ckpt", small_state(seed=1), step=2, metrics={"val_loss": 0.75}))
    assert len(other) == len(data)
    differ = [at for at in range(len(data)) if data[at] != other[at]]
    dice = chance(SEED)
    for _ in range(200 * FACTOR):
        at = dice.choice(differ)
        start = max(0, at - dice.choice((0, 4, 64, 1024)))
        end = at + 1 + dice.choice((0, 4, 64, 1024))
        if other[:start] + other[end:] == data[:start] + data[end:]:
            continue  # the exchanged range is all in which they differ: it is the other checkpoint
        mixed = data[:start] + other[start:end] + data[end:]
        if mixed not in (data, other):
            assert_refused(path, mixed)


def test_verification_reads_no_more_than_a_piece_at_a_time(tmp_path, monkeypatch):
    """A record larger than a piece is read in pieces, so that checking a large file takes little memory."""
    import torch

    from holdfast.storage import direct_read

    path = save(tmp_path / "x.ckpt", {"x": torch.ones(50_000)})
    for name in ("PIECE", "CACHED_PIECE"):
        monkeypatch.setattr(direct_read, name, direct_read.PAGE)
    lengths, memories = [], []
    real, fresh = direct_read.FileReader.read_into, direct_read.page_memory

    def read_into(self, memory, offset):
        lengths.append(len(memory))
        return real(self, memory, offset)

    monkeypatch.setattr(direct_read.FileReader, "read_into", read_into)
    monkeypatch.setattr(direct_read, "page_memory", lambda size: memories.append(size) or fresh(size))
    holdfast.verify(path)
    assert max(lengths) == direct_read.PAGE
    assert len(lengths) > 40
    assert len(memories) <= direct_read.THREADS


@pytest.mark.parametrize("record", ["data/0", "data/1", "data.pkl", ".data/serialization_id"])
def test_damage_in_a_file_of_many_pieces_is_named(tmp_path, record, monkeypatch):
    """A flip anywhere in a file that is read in many pieces, by several threads, is refused and its record named."""
    import torch

    from holdfast.engine import filling
    from holdfast.storage import direct_read

    for module in (direct_read, filling):
        monkeypatch.setattr(module, "PIECE", direct_read.PAGE)
    data = content(save(tmp_path / "x.ckpt", {"x": torch.ones(50_000), "y": torch.zeros(30_000)}))
    start = -(-(data.index(b"FB", offsets(data)[record]) + 4) // 64) * 64
    path = put(tmp_path / "x.ckpt", flipped(data, start + 30, 1))
    for use in (holdfast.verify, holdfast.load):
        with pytest.raises(DamagedCheckpointError, match=f"record {record}.*CRC-32"):
            use(path)


def test_a_file_cut_off_while_it_is_read_is_refused(tmp_path, monkeypatch):
    """A file that loses its end after its account was read is refused, checked or not, and never half loaded."""
    import torch

    from holdfast.format import reading

    whole = content(save(tmp_path / "x.ckpt", {"x": torch.ones(50_000)}))
    real = reading.read_account
    path = str(tmp_path / "x.ckpt")

    def read_then_cut(source):
        account = real(source)
        os.truncate(path, len(whole) // 2)
        return account

    monkeypatch.setattr(reading, "read_account", read_then_cut)
    for use in (holdfast.verify, holdfast.load, lambda path: holdfast.load(path, verify=False)):
        put(path, whole)
        with pytest.raises(DamagedCheckpointError, match="ended after"):
            use(path)
