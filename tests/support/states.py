"""States of every shape that people save, and what it means that two of them are the same."""

from __future__ import annotations

import collections
import math
import warnings

import numpy as np
import torch
from hypothesis import strategies as st

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.uint16,
    torch.uint32,
)
SHAPES = ((), (0,), (1,), (7,), (3, 0, 2), (2, 3), (2, 1, 4), (65,))


@st.composite
def dense(draw):
    """A tensor of any type and shape, filled with arbitrary bytes, sometimes a view of a larger storage."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(SHAPES))
    count = math.prod(shape)
    if dtype is torch.bool:
        return torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count))).bool().reshape(shape)
    width = torch.empty(0, dtype=dtype).element_size()
    data = bytearray(draw(st.binary(min_size=width * (count + 3), max_size=width * (count + 3))))
    whole = torch.frombuffer(data, dtype=torch.uint8).clone().view(dtype)
    start = draw(st.integers(0, 3))
    return whole[start : start + count].reshape(shape)


def quantized(values):
    """An 8-bit tensor with a scale; torch calls the making of one deprecated, and files hold them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(values, 0.1, 3, torch.qint8)


def special():
    """Tensors that are not plain: parameters, sparse, quantized, strided, conjugated, nested."""
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    return st.sampled_from(
        (
            lambda: torch.nn.Parameter(base.clone()),
            lambda: torch.nn.Buffer(base.clone()),
            lambda: base.clone().t(),
            lambda: base.clone()[::2, 1:3],
            lambda: base.clone().expand(2, 3, 4),
            base.to_sparse,
            base.to_sparse_csr,  # a beta to torch, which says so once
            lambda: base.to(torch.complex64).conj(),
            lambda: quantized(base),
            lambda: base.clone().requires_grad_(),
            lambda: torch.empty(3, device="meta"),
        )
    ).map(lambda make: make())


def plain():
    """What hyperparameters are made of."""
    return st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.binary(max_size=8)
    )


def states(*, leaves=None):
    """Nested containers of tensors and plain values, with the same tensor in several places."""
    leaf = leaves if leaves is not None else st.one_of(dense(), special(), plain())
    keys = st.one_of(st.text(max_size=5), st.integers(0, 9))

    def containers(inner):
        return st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(keys, inner, max_size=4),
            st.dictionaries(keys, inner, max_size=3).map(collections.OrderedDict),
            inner.map(tied),
        )

    return st.recursive(leaf, containers, max_leaves=8)


def tied(value):
    """The same object three times, and for a tensor a view of its storage."""
    dense = type(value) is torch.Tensor and value.layout is torch.strided and not value.is_nested
    view = value.reshape(-1)[:1] if dense else value
    return {"one": value, "same": value, "view": view}


def arrays():
    """NumPy arrays and scalars."""
    return st.sampled_from(
        (np.arange(6).reshape(2, 3), np.float32(1.5), np.array([], dtype=np.int8), np.array(["a", "bc"]))
    )


def same(one, two):
    """Tell whether two states are the same to the bit, types included."""
    if type(one) is not type(two):
        return False
    if isinstance(one, torch.Tensor):
        return _same_tensor(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and one.tobytes() == two.tobytes()
    return repr(one) == repr(two)


def _same_tensor(one, two):
    if (one.dtype, one.shape, one.layout, one.requires_grad) != (two.dtype, two.shape, two.layout, two.requires_grad):
        return False
    if one.device.type == "meta":
        return two.device.type == "meta"
    if one.layout is not torch.strided:
        return torch.equal(one.to_dense(), two.to_dense())
    if one.is_quantized:
        return torch.equal(one.int_repr(), two.int_repr())
    if one.stride() != two.stride():
        return False
    raw = (item.detach().resolve_conj().contiguous().reshape(-1) for item in (one, two))
    left, right = (item.view(torch.uint8) if item.numel() else item.byte() for item in raw)
    return torch.equal(left, right)
