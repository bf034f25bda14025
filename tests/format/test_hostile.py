"""Files made to hurt their reader: right checksums and wrong contents."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast import DamagedCheckpointError, HoldfastError
from holdfast.cli import main
from holdfast.format.manifest import MANIFEST_NAME, ManifestError, decode, decode_facts
from holdfast.front.opening import checkpoints
from tests.support.files import assemble, content, line, put, records, save, torch_bytes, with_manifest
from tests.support.properties import examples

GOOD = {"holdfast": 1, "step": 1, "epoch": 0, "sequence": 1, "run": "r", "time": "t", "metrics": {}, "names": {}}
DEEP = b"[" * 100_000

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)
WRONG = (None, True, -1, 1.5, 10**400, "x", "nan", [], [1], {}, {"a": 1}, {"a": {}}, [[]], float("inf"), float("nan"))
FIELDS = (
    *GOOD,
    "policy",
    "resumed_from",
    "sources",
    "versions",
    "reason",
    "owner",
    "kind",
    "weights_only",
    "git_commit",
)


def use(path):
    """Do all that reads a file, as a user would; only holdfast's own errors may come of it."""
    for step in (
        lambda: holdfast.verify(path),
        lambda: holdfast.load(path),
        lambda: holdfast.newest(os.path.dirname(path)),
        lambda: checkpoints(os.path.dirname(path)),
    ):
        with contextlib.suppress(HoldfastError):
            step()
    folder = os.path.dirname(path)
    for arguments in (["ls", folder], ["ls", "--json", folder], ["show", path], ["verify", folder]):
        assert main(arguments) in (0, 1)


@pytest.mark.filterwarnings("ignore:passed over")
@pytest.mark.parametrize("field", FIELDS)
def test_wrong_types_in_the_facts(tmp_path, capsys, field):
    """Any field of the facts with a value of another type is refused or harmless, in every command."""
    for value in WRONG:
        head = json.dumps({**GOOD, field: value}).encode()
        path = with_manifest(tmp_path / "x.ckpt", line(head) + line([]) + line([]))
        use(path)


@pytest.mark.filterwarnings("ignore:passed over")
@pytest.mark.parametrize("key", ["monitor", "mode", "save_top_k"])
def test_wrong_types_in_the_policy(tmp_path, capsys, key):
    """A policy of wrong types does not break the table that explains it."""
    for value in WRONG:
        head = {**GOOD, "names": {"ranked": "x.ckpt"}, "metrics": {"a": 1}, "policy": {"monitor": "a", key: value}}
        use(with_manifest(tmp_path / "x.ckpt", line(json.dumps(head).encode()) + line([]) + line([])))


@pytest.mark.parametrize(
    "entry",
    [
        ["data/0", -1, "00000000"],
        ["data/0", 2**62, "00000000"],
        ["data/0", 2**64, "00000000"],
        ["data/0", 10**300, "00000000"],
        ["data/0", 4, "-1"],
        ["data/0", 4, "1" * 300],
        ["data/0", 4, 4],
        ["data/0", "4", "00000000"],
        ["data/0", 4.5, "00000000"],
        ["data/0", True, "00000000"],
        [5, 4, "00000000"],
        ["\ud800", 4, "00000000"],
        ["x" * 70_000, 4, "00000000"],
        ["data/0", 4],
        ["data/0", 4, "00000000", 1],
        [],
        None,
        "abc",
        {"a": 1, "b": 2, "c": 3},
    ],
    ids=lambda entry: repr(entry)[:30],
)
def test_wrong_records(tmp_path, entry):
    """Negative, huge and mistyped records are damage, not an overflow, a hang or an allocation."""
    path = with_manifest(tmp_path / "x.ckpt", line(GOOD) + line([entry]) + line([]))
    for step in (holdfast.verify, holdfast.load):
        with pytest.raises(DamagedCheckpointError) as caught:
            step(path)
        assert "manifest" in caught.value.record or "record" in caught.value.record


def test_many_records_larger_than_the_file(tmp_path):
    """A manifest that claims the file a thousand times over is refused before anything is read for it."""
    path = with_manifest(tmp_path / "x.ckpt", line(GOOD) + line([["a", 10**9, "00000000"]] * 1000) + line([]))
    with pytest.raises(DamagedCheckpointError, match="more bytes than the file has"):
        holdfast.verify(path)


@pytest.mark.parametrize("tensor", [["a", "f", [[]], "r"], ["a", "f", 3, "r"], ["a", "f", ["x"], "r"], ["a"], 7])
def test_wrong_tensors(tmp_path, tensor):
    """Mistyped tensors in a manifest are damage."""
    with pytest.raises(DamagedCheckpointError):
        holdfast.verify(with_manifest(tmp_path / "x.ckpt", line(GOOD) + line([]) + line([tensor])))


@pytest.mark.filterwarnings("ignore:passed over")
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    "text", [DEEP, b"{" * 9, b"", b"1" * 10_000, b"\xff\xfe", b"NaN", b'{"holdfast":1}', b'"x"', b"[]", b"{}"]
)
def test_wrong_json(tmp_path, capsys, place, text):
    """Lines that are no JSON, too deep, too long a number, or another kind of value: damage, in every command."""
    lines = [line(GOOD), line([]), line([])]
    lines[place] = line(text)
    use(with_manifest(tmp_path / "x.ckpt", b"".join(lines)))


def test_more_and_fewer_lines(tmp_path):
    """A manifest of other than three lines is damage."""
    for lines in (b"", b"\n", line(GOOD), line(GOOD) + line([]), line(GOOD) + line([]) * 3, line(GOOD)[:-1]):
        with pytest.raises(DamagedCheckpointError):
            holdfast.verify(with_manifest(tmp_path / "x.ckpt", lines))


@pytest.mark.filterwarnings("ignore:passed over")
@pytest.mark.parametrize("offset", [2**31, 2**32, 2**62, 2**63, 2**64 - 2**12, 0, 64])
def test_a_directory_that_points_elsewhere(tmp_path, capsys, offset):
    """A directory that places the manifest outside the file, or over another record, is damage."""
    parts = [*records(torch_bytes({"a": 1})), (MANIFEST_NAME, line(GOOD) + line([]) + line([]))]
    path = put(tmp_path / "x.ckpt", assemble(parts, directory_offset=offset))
    for step in (holdfast.verify, holdfast.load):
        with pytest.raises(DamagedCheckpointError):
            step(path)
    use(path)


@examples(150)
@given(JSON, JSON, JSON)
def test_arbitrary_json_lines(first, second, third):
    """Whatever JSON stands on the three lines, the reader accepts it or says that it is no manifest."""
    data = b"".join(line(json.dumps(value).encode()) for value in (first, second, third))
    for read in (decode, decode_facts):
        with contextlib.suppress(ManifestError):
            read(data)


@examples(100)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_arbitrary_values_in_the_facts(values):
    """Whatever values the facts have, what is accepted has the types that it declares."""
    try:
        facts = decode_facts(line(json.dumps({**GOOD, **values}).encode()))
    except ManifestError:
        return
    assert all(type(number) is float for number in facts.metrics.values())
    assert all(type(number) is int for number in (facts.step, facts.epoch, facts.sequence))
    assert all(isinstance(text, str) for text in (facts.run, facts.time, *facts.names.values()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    return content(save(folder / "whole.ckpt")), folder


@examples(250)
@given(data=st.data())
def test_random_bytes(whole, data):
    """Noise, noise between the ends of a real file, and real files cut and joined at random: never another error."""
    real, folder = whole
    noise = data.draw(st.binary(max_size=300))
    at, to = data.draw(st.integers(0, len(real))), data.draw(st.integers(0, len(real)))
    shape = data.draw(st.sampled_from(("noise", "zip", "end", "pickle", "joined")))
    made = {
        "noise": noise,
        "zip": b"PK\x03\x04" + noise,
        "end": real[:at] + noise + real[-98:],
        "pickle": b"\x80\x02" + noise,
        "joined": real[:at] + noise + real[to:],
    }[shape]
    path = put(folder / "x.ckpt", made)
    for step in (holdfast.verify, holdfast.load, lambda path: checkpoints(os.path.dirname(path))):
        with contextlib.suppress(HoldfastError):
            step(path)


def test_a_small_hostile_file_takes_little_memory(tmp_path):
    """A file of some kilobytes that claims terabytes is refused without allocating a hundred megabytes."""
    huge = [["data/0", 2**45, "00000000"]]
    path = with_manifest(tmp_path / "x.ckpt", line(GOOD) + line(huge) + line([["a", "float32", [2**40], "data/0"]]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for step in (holdfast.verify, holdfast.load):
        with pytest.raises(DamagedCheckpointError):
            step(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_a_checksum_in_other_letters_is_not_the_checksum():
    """The CRC-32 stands in eight small hexadecimal digits: another way to write it is not what was written."""
    text = json.dumps(GOOD).encode()
    digest = zlib.crc32(text)
    with pytest.raises(ManifestError):
        decode_facts(f"{digest:#010x} ".encode() + text + b"\n")
