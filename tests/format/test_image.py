"""A file as one piece of memory is the same, byte for byte, as the stream of its records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.format import image as module
from holdfast.format.digest import crc32
from holdfast.format.image import Plan
from holdfast.format.writing import Part, stream
from tests.support.properties import chance, examples

BLOCK = 1024
_EDGES = [0, 1, *range(60, 70), *range(120, 132), *(k * BLOCK + by for k in (1, 2, 3) for by in range(-70, 71, 5))]
SIZES = st.one_of(st.sampled_from(_EDGES), st.integers(0, 4 * BLOCK))


def finish(records):
    """A manifest that tells the records' names, sizes and digests."""
    return repr([(item.name, item.size, item.crc32) for item in records]).encode()


def filled(plan, memory, contents):
    """The image with the headers and the records' data in place."""
    plan.frame(memory)
    for offset, data in zip(plan.offsets, contents, strict=True):
        memory[offset : offset + len(data)] = data


def sealed(plan, memory, arrive):
    """The file's bytes, each block as it was when it was handed on, and as it is at the end."""
    early, late = [], []
    for block in plan.seal(memory, finish, arrive):
        early.append(bytes(block))
        late.append(block)
    assert early == [bytes(block) for block in late], "a block was written to after it was handed on"
    return early


def streamed(names, contents):
    return b"".join(stream([Part(name, data) for name, data in zip(names, contents, strict=True)], finish))


@examples(150)
@given(sizes=st.lists(SIZES, max_size=12), seed=st.integers(0, 999), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_the_image_is_the_stream(monkeypatch, sizes, seed, share):
    """For records of any sizes, there before or arriving, with digests or without, the image is the stream's bytes."""
    monkeypatch.setattr(module, "BLOCK", BLOCK)
    dice = chance(seed)
    names = [f"data/{number}" + "x" * dice.randrange(80) for number in range(len(sizes))]
    plan = Plan(list(zip(names, sizes, strict=True)))
    memory = memoryview(bytearray(dice.randbytes(plan.end + dice.randrange(200))))
    for _ in range(2):  # the same image again, with what the first file left in it
        contents = [dice.randbytes(size) for size in sizes]
        known = {number: crc32(data) for number, data in enumerate(contents) if dice.random() < share}
        late = {number for number in range(len(sizes)) if dice.random() < share}
        filled(plan, memory, [b"" if number in late else data for number, data in enumerate(contents)])
        arrived = []

        def arrive(number, contents=contents, known=known, arrived=arrived):
            arrived.append(number)
            start = plan.offsets[number]
            memory[start : start + len(contents[number])] = contents[number]
            return known.get(number)

        assert b"".join(sealed(plan, memory, arrive)) == streamed(names, contents)
        assert arrived == list(range(len(sizes)))


@examples(60)
@given(sizes=st.lists(SIZES, min_size=1, max_size=8), known=st.booleans())
def test_the_blocks_are_large(monkeypatch, sizes, known):
    """All of the image but its end is handed on in whole blocks that begin at multiples of a block."""
    monkeypatch.setattr(module, "BLOCK", BLOCK)
    names = [str(number) for number in range(len(sizes))]
    plan = Plan(list(zip(names, sizes, strict=True)))
    memory = memoryview(bytearray(plan.end))
    contents = [bytes(size) for size in sizes]
    filled(plan, memory, contents)
    digests = {number: crc32(data) for number, data in enumerate(contents)} if known else {}
    *blocks, last, _ = sealed(plan, memory, digests.get)
    assert [len(block) for block in blocks] == [BLOCK] * (plan.end // BLOCK)
    assert len(last) == plan.end % BLOCK


def test_blocks_come_before_what_follows_them_is_there(monkeypatch):
    """A block is handed on before the record behind it is asked for: writing begins while others arrive."""
    monkeypatch.setattr(module, "BLOCK", BLOCK)
    plan = Plan([("a", 3 * BLOCK), ("b", 3 * BLOCK)])
    memory = memoryview(bytearray(plan.end))
    contents = [b"1" * 3 * BLOCK, b"2" * 3 * BLOCK]
    filled(plan, memory, contents)
    asked = []
    blocks = plan.seal(memory, finish, asked.append)
    first = bytes(next(blocks))
    assert asked == [0]
    assert first + b"".join(bytes(block) for block in blocks) == streamed(["a", "b"], contents)
    assert asked == [0, 1]


def test_an_image_of_no_records():
    """A file of no records is what the stream makes of none."""
    assert b"".join(sealed(Plan([]), memoryview(bytearray(0)), {}.get)) == streamed([], [])
