"""Numbers about tensors, block by block: a block and its copies stay in the processor's cache.

Blocks are as small as torch works on with one thread, and several of our own threads work on different ones:
torch's own wait for each other after each operation, which beside any other load of the machine takes many times
as long as the operation.

Sums are kept in float64. What is not finite is counted and left out of the others, so that one NaN does
not hide what the rest of a tensor is like.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from holdfast.storage.direct_read import in_threads

T = TypeVar("T")

_CHUNK = 1 << 20  # elements that one thread works on
_BLOCK = 1 << 15  # elements of one operation: of more, torch would have its own threads take part
_WORKERS = min(4, os.cpu_count() or 1)
_TINY = 1e-140  # a norm below which squares may have been rounded to nothing
_NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Summary:
    """What one tensor's values are like.

    Attributes:
        minimum, maximum: of the finite values; of complex ones, of their absolute values. None if there are none.
        mean: of the finite values.
        norm: the square root of the sum of their squares.
        nans, infinities: how many values are no number, and how many infinite.

    """

    minimum: float | None
    maximum: float | None
    mean: float | complex | None
    norm: float
    nans: int
    infinities: int


@dataclass(frozen=True)
class Change:
    """How far two tensors of one shape are apart.

    Attributes:
        difference: the norm of the difference; infinite or NaN where that of a single element is.
        norm: that of the first one's finite values.
        largest: the largest absolute difference of an element.

    """

    difference: float
    norm: float
    largest: float

    @property
    def relative(self) -> float:
        """The difference in units of the first one's norm: 0 for equal ones, infinite beside all zeros."""
        if self.difference == 0 or math.isnan(self.difference):
            return self.difference
        return self.difference / self.norm if self.norm else math.inf


def has_values(tensor: torch.Tensor) -> bool:
    """Tell whether there is anything to measure: not on the ``meta`` device, nor in a type that torch only stores."""
    if tensor.device.type == "meta":
        return False
    try:
        torch.zeros(1, dtype=tensor.dtype).to(torch.complex128)
    except (RuntimeError, NotImplementedError):
        return tensor.is_quantized
    return True


def stored_values(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values as a strided tensor: the stored ones of a sparse tensor, what those of a quantized one mean."""
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.layout is torch.sparse_coo:
        return tensor._values()  # noqa: SLF001 - the public one wants a coalesced tensor
    if tensor.layout is not torch.strided:
        return tensor.values()
    if tensor.is_nested:
        return torch.cat([part.reshape(-1) for part in tensor.unbind()])
    return tensor


def _chunks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield tensors of one shape in flat chunks that belong together; views of them where that can be."""
    first = tensors[0]
    if first.numel() <= _CHUNK:
        if first.numel():
            yield tuple(tensor.reshape(-1) for tensor in tensors)
        return
    if all(tensor.is_contiguous() for tensor in tensors):
        yield from zip(*(torch.split(tensor.view(-1), _CHUNK) for tensor in tensors), strict=True)
        return
    along = next(place for place, size in enumerate(first.shape) if size > 1)
    half = first.shape[along] // 2
    yield from _chunks(*(tensor.narrow(along, 0, half) for tensor in tensors))
    yield from _chunks(*(tensor.narrow(along, half, first.shape[along] - half) for tensor in tensors))


def _blocks(chunk: tuple[torch.Tensor, ...]) -> Iterator[tuple[torch.Tensor, ...]]:
    return zip(*(torch.split(part, _BLOCK) for part in chunk), strict=True)


def _each(measure: Callable[[tuple[torch.Tensor, ...]], T], *tensors: torch.Tensor) -> list[T]:
    """Measure each chunk; return the results in the chunks' order, so that sums of them are always the same."""
    results: dict[int, T] = {}

    def work(item: tuple[int, tuple[torch.Tensor, ...]]) -> None:
        results[item[0]] = measure(item[1])

    in_threads(work, enumerate(_chunks(*tensors)), _WORKERS)
    return [results[place] for place in sorted(results)]


def summarize(tensor: torch.Tensor) -> Summary:
    """Measure a tensor; its values are read once."""
    tensor = stored_values(tensor).detach()
    exact = not (tensor.is_floating_point() or tensor.is_complex())
    parts = _each(_summarize_chunk, tensor)
    count = sum(part.count for part in parts)
    total = sum(part.total for part in parts)
    low = min((part.lowest for part in parts if part.count), default=None)
    high = max((part.highest for part in parts if part.count), default=None)
    return Summary(
        low if low is None or not exact else int(low),
        high if high is None or not exact else int(high),
        total / count if count else None,
        math.hypot(*(part.norm for part in parts)),
        sum(part.nans for part in parts),
        sum(part.infinities for part in parts),
    )


def _summarize_chunk(chunk: tuple[torch.Tensor, ...]) -> _Totals:
    totals = _Totals()
    for (block,) in _blocks(chunk):
        totals.add(_wide(block))
    return totals


@dataclass
class _Totals:
    count: int = 0
    total: complex | float = 0.0
    norm: float = 0.0
    nans: int = 0
    infinities: int = 0
    lowest: float = math.inf
    highest: float = -math.inf

    def add(self, block: torch.Tensor) -> None:
        """Count a block in; its type is one that torch computes with."""
        total = block.sum(dtype=_double(block))
        if not bool(torch.isfinite(total)):
            nan = torch.isnan(block)
            infinite = torch.isinf(block) & ~nan
            self.nans += int(nan.sum())
            self.infinities += int(infinite.sum())
            block = block[~(nan | infinite)]
            total = block.sum(dtype=_double(block))
        if not block.numel():
            return
        self.count += block.numel()
        self.total += total.item()
        self.norm = math.hypot(self.norm, _norm(block))
        low, high = torch.aminmax(block.abs() if block.is_complex() else block)
        self.lowest = min(self.lowest, low.item())
        self.highest = max(self.highest, high.item())


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two tensors of one shape and type have the same bytes: for types that torch only stores."""
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def compare(one: torch.Tensor, other: torch.Tensor) -> Change:
    """Measure how far two tensors of one shape are apart.

    Elements that are equal, or both NaN, are no change.
    """
    wide = _common(one, other)

    def measure(chunk: tuple[torch.Tensor, ...]) -> Change:
        return _together([_compare_blocks(left.to(wide), right.to(wide)) for left, right in _blocks(chunk)])

    return _together(_each(measure, one, other))


def _together(parts: Sequence[Change]) -> Change:
    """Return the change of what consists of parts. NaN in one is NaN in all."""
    if any(math.isnan(part.difference) for part in parts):
        return Change(math.nan, math.hypot(*(part.norm for part in parts)), math.nan)
    return Change(
        math.hypot(*(part.difference for part in parts)),
        math.hypot(*(part.norm for part in parts)),
        max((part.largest for part in parts), default=0.0),
    )


def _compare_blocks(left: torch.Tensor, right: torch.Tensor) -> Change:
    apart = torch.sub(right, left)
    difference, norm = _norm(apart), _norm(left)
    if not (math.isfinite(difference) and math.isfinite(norm)):
        double = _double(left)
        left, right = left.to(double), right.to(double)
        same = (left == right) | (torch.isnan(left) & torch.isnan(right))
        zero = torch.zeros((), dtype=double)
        apart = torch.where(same, zero, right - left)
        difference, norm = _norm(apart), _norm(torch.where(torch.isfinite(left), left, zero))
    largest = apart.abs().max() if apart.is_complex() else torch.linalg.vector_norm(apart, math.inf)
    return Change(difference, norm, float(largest))


def _norm(block: torch.Tensor) -> float:
    values = torch.view_as_real(block.resolve_conj()) if block.is_complex() else block
    if not values.is_floating_point():
        values = values.to(torch.float64)
    norm = float(torch.linalg.vector_norm(values, dtype=torch.float64))
    if _TINY < norm < math.inf or math.isnan(norm):
        return norm
    scale = float(torch.linalg.vector_norm(values, math.inf))  # squares of such values may not be numbers any more
    if not math.isfinite(scale) or scale == 0:
        return scale
    return float(torch.linalg.vector_norm(values.to(torch.float64) / scale)) * scale


def _double(block: torch.Tensor) -> torch.dtype:
    if block.is_complex():
        return torch.complex128
    return torch.float64


def _wide(block: torch.Tensor) -> torch.Tensor:
    """Return a real block in a type in which torch has all functions, values unchanged."""
    if block.dtype in (torch.float32, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        return block
    if block.is_complex():
        return block.resolve_conj().to(torch.promote_types(block.dtype, torch.complex64))
    if block.is_floating_point():
        return block.to(torch.float32)
    return block.to(torch.float64 if block.dtype is torch.uint64 else torch.int64)


def _common(one: torch.Tensor, other: torch.Tensor) -> torch.dtype:
    """Return a type in which the difference of two tensors' values is as exact as it has to be."""
    if one.is_complex() or other.is_complex():
        return torch.complex64 if one.dtype == other.dtype == torch.complex64 else torch.complex128
    if one.dtype == other.dtype and one.dtype in (torch.float32, *_NARROW):
        return torch.float32
    return torch.float64
