"""The tree of tensors that ``show`` prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli.tree import HEAD, tree
from holdfast.records import Facts, Manifest, Record, TensorInfo

NAMES = st.lists(st.lists(st.sampled_from(["a", "b", "0", ""]), min_size=1, max_size=4).map(".".join), unique=True)


def manifest(*tensors):
    """A manifest of tensors given as name and record; each record has ten bytes."""
    infos = tuple(TensorInfo(name, "float32", (2, 3), record) for name, record in tensors)
    records = tuple(Record(name, 10, 0) for name in dict.fromkeys(record for _, record in tensors))
    return Manifest(Facts(), records, infos)


def test_folders_have_their_sums():
    """A folder's row says how many tensors are in it and their bytes, with shared bytes counted once."""
    rows = tree(manifest(("m.a.w", "data/0"), ("m.a.b", "data/1"), ("m.tied", "data/0")))
    assert [tuple(cell.strip() for cell in row[::3]) for row in rows] == [
        ("m", "20 B"), ("a", "20 B"), ("w", "10 B"), ("b", "10 B"), ("tied", "10 B"),
    ]  # fmt: skip
    assert [row[0].index(row[0].strip()) for row in rows] == [2, 4, 6, 6, 4]
    assert rows[2][4] == "data/0 (of 2)"


def test_long_ways_are_joined():
    """Folders with one thing in them take no line of their own."""
    assert [row[0].strip() for row in tree(manifest(("a.b.c.d", "data/0")))] == ["a.b.c.d"]


def test_a_depth_folds():
    """What is deeper than asked for is summed up in its folder."""
    rows = tree(manifest(("m.a.w", "data/0"), ("m.a.b", "data/1"), ("n", "data/2")), depth=1)
    assert [(row[0].strip(), row[2]) for row in rows] == [("m.a", "2 tensors"), ("n", "2x3")]


@given(NAMES)
def test_every_tensor_has_its_row(names):
    """Whatever the names are, one the beginning of another or parts of them empty, each tensor is shown once."""
    rows = tree(manifest(*((name, f"data/{place}") for place, name in enumerate(names))))
    assert sorted(row[4] for row in rows if row[4]) == sorted(f"data/{place}" for place in range(len(names)))
    assert all(len(row) == len(HEAD) for row in rows)


@pytest.mark.parametrize("depth", [1, 2])
@given(NAMES)
def test_a_fold_loses_nothing(depth, names):
    """However deep the tree is folded, the outermost rows add up to all tensors."""
    rows = tree(manifest(*((name, f"data/{place}") for place, name in enumerate(names))), depth=depth)
    outermost = [row for row in rows if not row[0].startswith("   ")]
    counts = [1 if row[4] else int(row[2].split()[0]) for row in outermost]
    assert sum(counts) == len(names)
