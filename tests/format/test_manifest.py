"""The manifest: what is written is read, and what was not written is refused."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast.format.manifest import ManifestError, decode, decode_facts, encode
from holdfast.records import FORMAT_VERSION, Facts, Lineage, Manifest, Record, TensorInfo
from tests.support.files import line, save
from tests.support.properties import examples

TEXT = st.text(st.characters(codec=None), max_size=12)  # lone surrogates too: metrics are named by users
COUNT = st.integers(0, 2**62)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT

FACTS = st.builds(
    Facts,
    step=COUNT,
    epoch=COUNT,
    sequence=COUNT,
    time=TEXT,
    metrics=st.dictionaries(TEXT, st.floats(), max_size=4),
    reason=TEXT,
    kind=st.sampled_from(("torch", "lightning")),
    weights_only=st.booleans(),
    run=TEXT,
    owner=TEXT,
    names=st.dictionaries(TEXT, TEXT, max_size=3),
    policy=st.fixed_dictionaries(
        {"monitor": st.none() | TEXT, "mode": st.sampled_from(("min", "max")), "save_top_k": st.integers(-1, 99)},
        optional={"later": PLAIN},
    ),
    resumed_from=st.none() | st.builds(Lineage, TEXT, st.none() | COUNT, st.none() | TEXT),
    sources=st.lists(st.builds(Lineage, TEXT, st.none() | COUNT, st.none() | TEXT), max_size=3).map(tuple),
    git_commit=st.none() | TEXT,
    versions=st.dictionaries(TEXT, TEXT, max_size=3),
)
RECORD = st.builds(Record, st.text(max_size=20), st.integers(0, 2**50), st.integers(0, 2**32 - 1))
TENSOR = st.builds(TensorInfo, TEXT, TEXT, st.lists(COUNT, max_size=4).map(tuple), TEXT)
MANIFEST = st.builds(Manifest, FACTS, st.lists(RECORD, max_size=4).map(tuple), st.lists(TENSOR, max_size=4).map(tuple))


@examples(150)
@given(MANIFEST)
def test_what_is_written_is_read(manifest):
    """Any manifest, NaN, infinities and every Unicode text in it, comes back as it was."""
    data = encode(manifest)
    assert repr(decode(data)) == repr(manifest)  # NaN does not equal itself, its name does
    assert repr(decode_facts(data)) == repr(manifest.facts)


@examples(60)
@given(MANIFEST)
def test_the_first_line_is_enough_for_the_facts(manifest):
    """The facts can be read without the rest, and not from less than their line."""
    data = encode(manifest)
    first = data.index(b"\n") + 1
    assert repr(decode_facts(data[:first])) == repr(manifest.facts)
    with pytest.raises(ManifestError):
        decode_facts(data[: first - 1])


@examples(60)
@given(MANIFEST, st.data())
def test_any_changed_byte_is_noticed(manifest, data):
    """A manifest of which one byte was changed, removed or put in is refused."""
    whole = encode(manifest)
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(1, 255))
    for changed in (
        whole[:at] + bytes([whole[at] ^ other]) + whole[at + 1 :],
        whole[:at] + whole[at + 1 :],
        whole[:at] + bytes([other]) + whole[at:],
    ):
        if changed != whole:
            with pytest.raises(ManifestError):
                decode(changed)


def test_the_lines_are_json_with_a_checksum():
    """The layout that the documentation promises: a CRC-32, a space and one JSON value on each of three lines."""
    lines = encode(Manifest(Facts(step=3, metrics={"loss": math.inf}), (Record("data/0", 4, 7),), ())).split(b"\n")
    assert lines[3] == b""
    head, records, tensors = (json.loads(text.split(b" ", 1)[1]) for text in lines[:3])
    assert head["holdfast"] == FORMAT_VERSION == 1
    assert (head["step"], head["metrics"]) == (3, {"loss": "inf"})
    assert records == [["data/0", 4, "00000007"]]
    assert tensors == []
    assert all(line(json.loads(text.split(b" ", 1)[1])).split()[0] for text in lines[:3])


def test_a_newer_format_is_named():
    """A manifest of a later format is refused with both numbers, not misread."""
    data = line({"holdfast": 2, "step": 1, "epoch": 0, "sequence": 1}) + line([]) + line([])
    for read in (decode, decode_facts):
        with pytest.raises(ManifestError, match="format 2 is newer than this holdfast reads"):
            read(data)


def test_unknown_keys_of_the_same_format_are_ignored():
    """What a later release adds to the facts does not stop this one from reading the rest."""
    head = {"holdfast": 1, "step": 1, "epoch": 0, "sequence": 1, "later": [1], "resumed_from": {"path": "x", "new": 1}}
    facts = decode_facts(line(head))
    assert (facts.step, facts.resumed_from) == (1, Lineage("x"))


def test_metrics_are_read_from_a_file_as_they_were(tmp_path):
    """Through a real file: metrics with NaN, infinities and names in any script survive."""
    metrics = {"naïve/損失[0]": math.nan, "up": math.inf, "down": -math.inf, "'\"\\\n": 1e-320, "\ud800": 2.0}
    facts = holdfast.verify(save(tmp_path / "x.ckpt", metrics=metrics)).facts
    assert repr(dict(facts.metrics)) == repr(metrics)
