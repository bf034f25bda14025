"""One rank's file of a sharded checkpoint: its table, and the archives in it."""

import contextlib
import io
import random
import zipfile

import pytest
import torch

from holdfast.format.digest import crc32
from holdfast.format.framing import Frame, aligned
from holdfast.format.shards import FOOTER_SIZE, LONGEST, Region, ShardError, decode, encode, read_table, table_offset
from holdfast.snapshot import capture, memory_of

REGIONS = (
    Region("", None, 0, 64, 5),
    Region("model.weight", (4, 0), 64, 1000, 0xFFFFFFFF, 704, 200),
    Region("step", None, 1064, 90, 0),
)


class _Source:
    def __init__(self, data):
        self.data, self.size = data, len(data)

    def read(self, offset, length):
        return self.data[offset : offset + length]


def test_a_table_reads_back_as_it_was_written():
    """What was encoded is found from the end of the file, with every field, and the digest that the manifest has."""
    tail = encode(REGIONS)
    table = read_table(_Source(bytes(1154) + tail))
    assert table.regions == REGIONS
    assert table.offset == 1154
    assert table.crc32 == crc32(tail)
    assert read_table(_Source(encode(()))).regions == ()


def test_no_flipped_bit_of_table_or_footer_goes_unnoticed():
    """Each bit of the end of the file, flipped, makes it an error, or no table of ours at all."""
    whole = bytes(1154) + encode(REGIONS)
    for position in range(1154, len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[position] ^= 1 << bit
            with contextlib.suppress(ShardError):
                assert read_table(_Source(bytes(data))) is None


def test_regions_that_leave_a_gap_are_not_encoded():
    """A table covers every byte before it, or it is not made."""
    with pytest.raises(ShardError, match="begins at 65"):
        encode((REGIONS[0], Region("x", None, 65, 1, 0)))


def test_a_file_without_a_footer_has_no_table():
    """What plain DCP writes is told apart from what is damaged."""
    assert read_table(_Source(b"")) is None
    assert read_table(_Source(bytes(1000))) is None


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b"null",
        b'{"holdfast":1,"regions":[["x",null,-1,"0",-1,0]]}',
        b'{"holdfast":1,"regions":[["x",null,true,"0",-1,0]]}',
        b'{"holdfast":1,"regions":[["x",[1.5],0,"0",-1,0]]}',
        b'{"holdfast":1,"regions":[["x",null,0,"0",0,1]]}',
        b'{"holdfast":1,"regions":[["x",null,0,"-1",-1,0]]}',
        b'{"holdfast":1,"regions":[[3,null,0,"0",-1,0]]}',
        b'{"holdfast":1,"regions":[["x",null,8,"0",-1,0]]}',
        b'{"holdfast":2,"regions":[]}',
        b"[" * 100_000,
    ],
)
def test_a_table_with_a_right_digest_and_a_wrong_form_is_refused(text):
    """A stranger's table never gives another error than the one that says so."""
    footer = encode(())[-FOOTER_SIZE:]
    made = len(text).to_bytes(8, "little") + crc32(text).to_bytes(4, "little") + footer[12:]
    with pytest.raises(ShardError):
        decode(text + made, 0)


def test_a_footer_that_claims_more_than_there_is_costs_nothing():
    """A table longer than the file, or than any table, is refused before it is read."""
    footer = encode(())[-FOOTER_SIZE:]
    for length in (1, LONGEST + 1, 2**63):
        with pytest.raises(ShardError):
            table_offset(length.to_bytes(8, "little") + footer[8:], FOOTER_SIZE)


KINDS = [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.bool, torch.int64]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (7, 11)])
def test_a_framed_tensor_is_what_torch_saves(dtype, shape):
    """The archive around a tensor's bytes is a sound zip that torch's safe loader reads as this tensor."""
    tensor = torch.randint(0, 2, shape).to(dtype)
    taken = capture(tensor)
    data = bytes(memory_of(tensor.untyped_storage()))
    frame = Frame(taken.leaders, len(data), taken.trailer)
    tail, crc = frame.tail(crc32(data))
    archive = frame.head + data + tail
    assert len(archive) == frame.length
    assert crc32(archive) == crc
    assert zipfile.ZipFile(io.BytesIO(archive)).testzip() is None
    loaded = torch.load(io.BytesIO(archive), weights_only=True)
    assert (loaded.dtype, loaded.shape) == (dtype, tensor.shape)
    assert bytes(memory_of(loaded.untyped_storage())) == data


def test_a_frame_serves_many_tensors_of_its_shape():
    """The numbers of one tensor leave no trace in the next one's archive."""
    taken = capture(torch.zeros(4))
    frame = Frame(taken.leaders, 16, taken.trailer)
    before = frame.tail(1)
    assert frame.tail(2) != before
    assert frame.tail(1) == before


def test_an_aligned_archive_has_its_data_at_a_page():
    """Wherever the file has got to, the tensor's bytes begin at a multiple of what was asked for, and not far away."""
    taken = capture(torch.zeros(4))
    frame = Frame(taken.leaders, 16, taken.trailer)
    draw = random.Random(1)  # noqa: S311 - a seeded draw
    for _ in range(200):
        offset = draw.randrange(1 << 40)
        for page in (64, 4096):
            begin = aligned(offset, frame, page)
            assert (begin + len(frame.head)) % page == 0
            assert offset <= begin < offset + page
