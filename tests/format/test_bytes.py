"""The bytes of a file: torch's own, up to the digits that identify it and the manifest behind them."""

from __future__ import annotations

import io
import os
import zipfile
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holdfast.format.layout import central_directory, place
from holdfast.format.writing import stream
from holdfast.records import Record
from holdfast.snapshot import capture
from tests.support.files import offsets, torch_bytes
from tests.support.properties import examples
from tests.support.states import arrays, dense, plain, states

SERIAL = ".data/serialization_id"


def our_bytes(state):
    """The file we would write, with a manifest of four bytes."""
    return b"".join(stream(capture(state).parts(), lambda _: b"none"))


def assert_framed_alike(state):
    """Compare with torch's file up to the content of the serialization id."""
    ours, theirs = our_bytes(state), torch_bytes(state)
    begin = offsets(theirs)[SERIAL]
    end = theirs.index(b"FB", begin + 30) + 4
    assert offsets(ours)[SERIAL] == begin
    assert ours[:end] == theirs[:end]


@examples(120)
@given(states())
def test_bytes_are_those_of_torch_save(state):
    """For arbitrary states every byte up to the serialization id is the one that torch.save writes."""
    assert_framed_alike(state)


@examples(25)
@given(states(leaves=st.one_of(arrays(), dense(), plain())))
def test_numpy_arrays_are_written_as_torch_does(state):
    """States that hold NumPy arrays give torch's bytes too."""
    assert_framed_alike(state)


@pytest.mark.filterwarnings("ignore:.*nested tensors.*")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_written_as_torch_does(layout):
    """Nested tensors, which have no single shape, can be saved, and give torch's bytes."""
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
    assert_framed_alike({"nested": nested, "plain": torch.ones(2)})


def test_modules_and_optimizers_are_written_as_torch_does():
    """A whole module, its state, an optimizer's state after a step and a raw storage give torch's bytes."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.LSTM(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    model[1](model[0](torch.ones(5, 4))).sum().backward()
    optimizer.step()
    storage = torch.arange(5.0).untyped_storage()
    state = {"model": model, "state": model.state_dict(), "optimizer": optimizer.state_dict(), "raw": storage}
    assert_framed_alike(state)


def test_cycles_and_deep_nesting_are_written_as_torch_does():
    """A list that contains itself, and a hundred levels of lists, give torch's bytes."""
    cycle = [torch.ones(2)]
    cycle.append(cycle)
    deep = torch.ones(1)
    for _ in range(100):
        deep = [deep]
    assert_framed_alike({"cycle": cycle, "deep": deep})


def test_the_same_memory_under_two_types_is_refused_as_torch_does():
    """Two storages of different types over one memory raise what torch.save raises, not a wrong file."""
    memory = torch.zeros(8, dtype=torch.uint8)
    state = [memory, memory.view(torch.float32)]
    with pytest.raises(RuntimeError, match="view the same data as different types"):
        torch_bytes(state)
    with pytest.raises(RuntimeError, match="view the same data as different types"):
        capture(state)


def test_the_serialization_id_follows_the_content():
    """Equal states have equal ids of forty digits; one changed bit changes them."""

    def serial(value):
        data = our_bytes({"x": torch.full((4,), value)})
        begin = data.index(SERIAL.encode()) + len(SERIAL)
        start = -(-begin // 64) * 64
        return data[start : start + 40]

    assert serial(1.0) == serial(1.0) != serial(2.0)
    assert serial(1.0).isdigit()


def test_records_beyond_four_gibibytes_are_framed_as_torch_does(tmp_path):
    """With records larger than 4 GiB and behind them, each header, descriptor and entry is torch's."""
    sizes = (2**32 + 100, 12, 0, 2**32 - 1, 2**32 - 2)
    path = tmp_path / "archive.pt"
    with torch.serialization.skip_data():  # leaves a hole where the data would be, and 0 for its CRC-32
        torch.save([torch.empty(size, dtype=torch.uint8) for size in sizes], path)
    with open(path, "rb") as file:

        def read(offset, length):
            return os.pread(file.fileno(), length, offset)

        records = _records(file)
        placed = place(records)
        for item in placed:
            assert read(item.header_offset, len(item.header)) == item.header, item.record
            assert read(item.data_offset + item.record.size, len(item.descriptor)) == item.descriptor
        expected = central_directory(placed)
        assert read(placed[-1].end_offset, len(expected) + 1) == expected


def _records(file):
    """The records as the central directory has them."""
    with zipfile.ZipFile(file) as archive:
        return [Record(info.filename.partition("/")[2], info.file_size, info.CRC) for info in archive.infolist()]


class _Sink:
    """A file that keeps small writes and forgets large ones."""

    def __init__(self):
        self.size = 0
        self.small = b""

    def write(self, data):
        if len(data) < 2**16:
            self.small += bytes(data)
        self.size += len(data)
        return len(data)

    def flush(self):
        pass


@pytest.mark.long
def test_five_gibibytes_are_streamed_as_torch_does():
    """Really streaming more than 4 GiB gives torch's bytes wherever they are not the tensor's."""
    state = {"a": torch.zeros(3), "b": torch.empty(2**32 + 2**20, dtype=torch.uint8), "c": torch.ones(2)}
    theirs, ours = _Sink(), _Sink()
    torch.save(state, theirs)
    for chunk in stream(capture(state).parts(), lambda _: b"none"):
        ours.write(chunk)
    end = theirs.small.index(SERIAL.encode())
    assert ours.small[:end] == theirs.small[:end]


@pytest.mark.long
def test_seventy_thousand_records_are_counted_as_torch_does():
    """More records than sixteen bits can count are framed as torch does."""
    data = torch_bytes([torch.zeros(1) for _ in range(70_000)])
    placed = place(_records(io.BytesIO(data)))
    assert data[placed[-1].end_offset :] == central_directory(placed)


def test_digests_are_those_of_the_data():
    """The records handed to the manifest carry the size and CRC-32 of what was written."""
    seen = []
    parts = list(capture({"x": torch.arange(4.0)}).parts())
    b"".join(stream(parts, lambda records: seen.extend(records) or b""))
    for part, record in zip(parts, seen, strict=False):
        data = bytes(part.data)
        assert (record.name, record.size, record.crc32) == (part.name, len(data), zlib.crc32(data))
    assert seen[-1].name == SERIAL
