"""From a state through the image to the file: what is committed is what ``torch.save`` would have written."""

from __future__ import annotations

import collections
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holdfast import verify
from holdfast.engine import Order, Saver
from holdfast.records import Facts
from holdfast.snapshot import copying
from holdfast.storage import open_store
from tests.support.files import content, records, torch_bytes
from tests.support.properties import examples
from tests.support.states import arrays, dense, plain, quantized, same, states

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*nested tensors.*"),
    pytest.mark.filterwarnings("ignore:.*Sparse.*"),
    pytest.mark.filterwarnings("ignore:.*quantize.*"),
    pytest.mark.filterwarnings("ignore:.*TypedStorage.*"),
]
SERIAL = ".data/serialization_id"
BIG = 9 << 20  # bytes: more threads than one copy from 8 MiB on


class Tagged(torch.Tensor):
    """A subclass, which torch pickles by its own function."""


class Weight(torch.nn.Parameter):
    """A subclass of a parameter."""


def with_attribute():
    tensor = torch.arange(5.0)
    tensor.tag = "kept by torch's own reduction"
    return tensor


def nested(layout):
    return torch.nested.nested_tensor([torch.ones(2), torch.arange(3.0)], layout=layout)


BASE = torch.arange(12, dtype=torch.float32).reshape(3, 4)
RARE = (
    lambda: BASE.clone().as_subclass(Tagged),
    lambda: Weight(BASE.clone()),
    lambda: torch.nn.Parameter(BASE.clone(), requires_grad=False),
    with_attribute,
    lambda: nested(torch.strided),
    lambda: nested(torch.jagged),
    BASE.to_sparse,
    BASE.to_sparse_csr,
    BASE.to_sparse_csc,
    lambda: quantized(BASE),
    lambda: BASE.to(torch.complex64).conj(),
    lambda: BASE.to(torch.complex64).conj().imag,
    lambda: BASE.to(torch.bfloat16).t(),
    lambda: BASE.to(torch.float8_e4m3fn),
    lambda: BASE.clone()[1],
    lambda: BASE.clone().requires_grad_() * 2,
    lambda: torch.empty(2, 0, 3),
    lambda: torch.empty(7, device="meta"),
    lambda: torch.tensor(3.5),
    lambda: BASE.clone().untyped_storage(),
    lambda: np.arange(100, dtype=np.float64)[::3],
    lambda: np.array([{"an": "object"}], dtype=object),
    lambda: {number: f"value {number}" for number in range(3000)},
    lambda: os.urandom(1 << 20),
)


def rare():
    """What is not a plain tensor, or is a large Python object; the big ones are too slow to be drawn often."""
    return st.sampled_from(RARE).map(lambda make: make())


def commit(saver, folder, state, name="a.ckpt"):
    """Save behind the training's back, and wait for it; return the path."""
    flight = saver.submit(Order(open_store(str(folder)), name, state, Facts()))
    flight.wait()
    saver.poll()
    assert flight.error is None
    assert flight.committed
    return os.path.join(folder, name)


def assert_as_torch_saves(path, state):
    """The records are torch's, in its order; what is loaded is the same; the file is whole."""
    ours = [item for item in records(content(path)) if item[0] != SERIAL]
    theirs = [item for item in records(torch_bytes(state)) if item[0] != SERIAL]
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    assert ours == theirs
    verify(path)


@pytest.fixture
def saver():
    one = Saver()
    yield one
    one.close()


@examples(60)
@given(states(leaves=st.one_of(dense(), plain(), arrays(), rare())))
def test_the_image_holds_what_torch_saves(saver, tmp_path, state):
    """Arbitrary states, rare kinds of tensors among them, come through the image as ``torch.save`` writes them."""
    assert_as_torch_saves(commit(saver, tmp_path, state), state)


@pytest.mark.parametrize("make", RARE)
def test_each_rare_kind_is_loaded_as_torch_loads_it(saver, tmp_path, make):
    """Each kind of tensor or object, alone and shared, is loaded equal to what torch's own file gives."""
    value = make()
    state = {"one": value, "again": value, "list": [value]}
    path = commit(saver, tmp_path, state)
    assert_as_torch_saves(path, state)
    other = tmp_path / "torch.ckpt"
    torch.save(state, other)
    mine, theirs = (torch.load(item, weights_only=False) for item in (path, other))
    assert type(mine["one"]) is type(theirs["one"])
    assert mine["one"] is mine["again"]
    if isinstance(value, torch.Tensor) and not value.is_nested:
        assert same(mine["one"], theirs["one"])
    elif isinstance(value, (dict, bytes)):
        assert mine["one"] == value


def similar():
    """States that differ in a key, a shape, a type, or the length of what is pickled, and else in values alone."""
    tensors = st.dictionaries(st.sampled_from("abc"), dense(), max_size=3)
    return st.builds(lambda held, text: {**held, "text": text}, tensors, st.text("x", max_size=200))


@examples(40)
@given(st.lists(st.one_of(similar(), states()), min_size=2, max_size=6))
def test_one_image_after_another_is_never_mixed_up(saver, tmp_path, several):
    """One saver that is given states of changing structure writes each as if it were the only one."""
    for number, state in enumerate(several):
        path = commit(saver, tmp_path, state, f"{number}.ckpt")
        assert_as_torch_saves(path, state)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": torch.ones(64)}, {"a": torch.ones(64, dtype=torch.int32)}),
        ({"a": torch.ones(64)}, {"b": torch.ones(64)}),
        ({"a": torch.ones(64)}, {"a": torch.ones(8, 8)}),
        ({"a": torch.ones(64)}, {"a": torch.ones(65)}),
        ({"a": torch.ones(65), "b": torch.ones(64)}, {"a": torch.ones(64), "b": torch.ones(65)}),
        ({"a": torch.ones(9), "text": "x"}, {"a": torch.ones(9), "text": "x" * 100}),
        ({"a": torch.ones(9), "text": "x" * 100}, {"a": torch.ones(9), "text": "y"}),
        ({"a": torch.ones(9)}, {"a": torch.empty(9, device="meta")}),
        ({"a": torch.ones(9), "b": torch.ones(9)}, {"a": torch.ones(9)}),
        ({"a": torch.ones(1 << 17)}, {"a": torch.ones(0)}),
    ],
)
def test_a_changed_shape_is_laid_out_anew(saver, tmp_path, first, second):
    """Back and forth between two structures of state, each file is that of its own state."""
    for number, state in enumerate((first, second, first, first, second)):
        assert_as_torch_saves(commit(saver, tmp_path, state, f"{number}.ckpt"), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2, torch.complex64])
def test_large_tensors_are_copied_by_several_threads(saver, tmp_path, monkeypatch, dtype):
    """A large tensor, with views of it and small ones around it, has the right bytes and the right digest."""
    monkeypatch.setattr(copying, "_MANY", 1 << 23)
    count = BIG // torch.empty(0, dtype=dtype).element_size() + 3
    whole = torch.randint(0, 256, (count * torch.empty(0, dtype=dtype).element_size(),), dtype=torch.uint8).view(dtype)
    state = collections.OrderedDict(
        small=torch.ones(3), big=whole, part=whole[5:-7], strided=whole[: count // 2 * 2].view(2, -1).t(), other=BASE
    )
    for name in ("0.ckpt", "1.ckpt"):
        assert_as_torch_saves(commit(saver, tmp_path, state, name), state)


@examples(10)
@given(st.lists(st.integers(0, 3 << 20), min_size=1, max_size=12))
def test_every_size_has_its_digest(saver, tmp_path, sizes):
    """Storages of any size, below and above what a thread takes on at a time, are whole in the file."""
    state = {str(number): torch.full((size,), number, dtype=torch.uint8) for number, size in enumerate(sizes)}
    assert_as_torch_saves(commit(saver, tmp_path, state), state)
