"""One rank's file of a sharded checkpoint as one reusable piece of host memory, laid out as it will be on the disk.

The tensors come first, in the order of the plan, so that they keep their places from save to save; what is
pickled, whose length changes, stands behind them.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import torch

from holdfast.format.digest import crc32
from holdfast.format.framing import Frame, aligned
from holdfast.format.shards import Region, encode
from holdfast.memory import PAGE, address_of, allocate, keep_from_children, touch
from holdfast.snapshot import capture
from holdfast.snapshot.copying import Copy, Target, copy_all
from holdfast.snapshot.devices import Crossing, unpin
from holdfast.snapshot.image import Taken

BLOCK = 1 << 24  # bytes handed on at a time
_LARGE = 1 << 16  # bytes of a tensor whose data begin at a page
_TAIL = 1 << 16  # bytes left behind the data, so that a state that grows a little needs no new memory
_HOST = torch.device("cpu")


@dataclass(frozen=True)
class Part:
    """An item to write: a dense tensor, or bytes.

    Attributes:
        name: the item's fully qualified name.
        at: where in the whole tensor it begins; None for what is no tensor.
        data: the tensor or the bytes.

    """

    name: str
    at: tuple[int, ...] | None
    data: torch.Tensor | bytes


@dataclass
class Staged:
    """A rank's items on their way into an image.

    Attributes:
        parts: the items, in the order of the file: tensors first.
        taken: the copies of the tensors: those that are made, those that are left for later.
        watched: the copies of what was asked to be copied later, whenever they are made.
        spans: where each part lies in the file: its offset and length, in the order of the parts.
        size: the bytes of the file, once it is sealed.
        crc32: of its table and footer.

    """

    parts: list[Part]
    taken: Taken
    watched: list[Copy] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    size: int = 0
    crc32: int = 0


class ShardImage:
    """Memory for one file. Used by one save at a time."""

    def __init__(self) -> None:
        """Allocate nothing yet."""
        self._memory: mmap.mmap | None = None
        self._whole = torch.empty(0, dtype=torch.uint8)
        self._base = 0
        self._frames: list[Frame] = []
        self._offsets: list[int] = []
        self._end = 0  # of the tensors

    @property
    def size(self) -> int:
        """The bytes that the image occupies."""
        return len(self._memory) if self._memory is not None else 0

    def reserve(self, size: int) -> None:
        """Have at least this much memory, its pages given by the system already."""
        if size > self.size:
            touch(self._grow(size))

    def stage(self, parts: Sequence[Part], later: Collection[int] = (), watch: Collection[int] = ()) -> Staged:
        """Copy the parts to their places; on return the tensors may change. Copies from CUDA devices have begun.

        Args:
            parts: what the file has, as ``ordered`` returns it.
            later: the places of tensors among them that ``copy_rest`` will copy: they may not change until then.
            watch: the places of those that are to be compared with their copies some time.

        """
        tensors = [part for part in parts if isinstance(part.data, torch.Tensor)]
        others = [part for part in parts if isinstance(part.data, bytes)]
        self._fit([frame_of(part.data) for part in tensors], sum(len(part.data) for part in others))  # type: ignore[arg-type]
        staged = Staged([*tensors, *others], Taken(Crossing(self._whole)))
        self._divide(tensors, staged, later, watch)
        self._copy(staged.taken.now, staged.taken)
        image, at = memoryview(self._memory), self._end  # type: ignore[arg-type]
        staged.spans = [(at, frame.length) for at, frame in zip(self._offsets, self._frames, strict=True)]
        for part in others:
            length = len(part.data)
            image[at : at + length] = part.data  # type: ignore[assignment]
            staged.spans.append((at, length))
            at += length
        return staged

    def copy_rest(self, taken: Taken) -> None:
        """Make the copies that were left for later, beside the training."""
        self._copy(taken.later, taken, beside=True)

    def _copy(self, copies: list[Copy], taken: Taken, *, beside: bool = False) -> None:
        try:
            copy_all(copies, self._target, taken.progress, beside=beside)
        except BaseException as error:
            taken.progress.fail(error)  # or the thread that writes would wait for ever
            raise

    def differing(self, copies: list[Copy]) -> list[int]:
        """Return the places of those tensors of the host that hold something else than the image does."""
        return [copy.place for copy in copies if not copy.matches(self._base)]

    def seal(self, staged: Staged) -> Iterator[memoryview | bytes]:
        """Yield the bytes of the file, block by block, each as soon as its digests are known; then the table."""
        staged.taken.crossing.wait()
        image = memoryview(self._memory)  # type: ignore[arg-type]
        regions: list[Region] = []
        start = end = 0
        for number, (part, (at, length)) in enumerate(zip(staged.parts, staged.spans, strict=True)):
            if at > end:
                regions.append(Region("", None, end, at - end, zeros_crc(at - end)))
            end = at + length
            if number >= len(self._frames):
                regions.append(Region(part.name, part.at, at, length, crc32(image[at:end])))
            else:
                frame = self._frames[number]
                begin = at + len(frame.head)
                crc = staged.taken.progress.digest(number)
                if crc is None:
                    crc = 0
                    for step in range(begin, begin + frame.size, BLOCK):
                        stop = min(step + BLOCK, begin + frame.size)
                        crc = crc32(image[step:stop], crc)
                        while stop >= start + BLOCK:
                            yield image[start : start + BLOCK]
                            start += BLOCK
                tail, whole = frame.tail(crc)
                image[begin + frame.size : end] = tail
                regions.append(Region(part.name, part.at, at, length, whole, len(frame.head), frame.size))
            while end >= start + BLOCK:
                yield image[start : start + BLOCK]
                start += BLOCK
        yield image[start:end]
        table = encode(regions)
        staged.size, staged.crc32 = end + len(table), crc32(table)
        yield table

    def free(self) -> None:
        """Give the memory back."""
        unpin(self._whole)
        self._memory, self._frames, self._offsets, self._end = None, [], [], 0
        self._whole = torch.empty(0, dtype=torch.uint8)

    @property
    def _target(self) -> Target:
        return Target(memoryview(self._memory), self._base)  # type: ignore[arg-type]

    def _divide(self, tensors: Sequence[Part], staged: Staged, later: Collection[int], watch: Collection[int]) -> None:
        """Say which copies from dense memory of the host are made now, and which later; make, or begin, all others."""
        taken = staged.taken
        for place, (part, frame, offset) in enumerate(zip(tensors, self._frames, self._offsets, strict=True)):
            if not frame.size:
                continue
            tensor, begin = part.data, offset + len(frame.head)
            assert isinstance(tensor, torch.Tensor)  # noqa: S101 - those that are not stand behind
            plain = not tensor.is_conj() and not tensor.is_neg()
            if tensor.device != _HOST:
                dense = tensor.resolve_conj().resolve_neg().contiguous()
                taken.crossing.begin(_bytes_of(dense), begin, later=place in later)
            elif plain and tensor.is_contiguous():
                source = cast("torch.UntypedStorage", tensor)  # what a copy asks of it, its address, both have
                copy = Copy(place, source, begin, frame.size)
                (taken.later if place in later else taken.now).append(copy)
                if place in watch:
                    staged.watched.append(copy)
            else:
                home = self._whole[begin : begin + frame.size].view(tensor.dtype).view(tensor.shape)
                home.copy_(tensor)
        taken.progress.expect(copy.place for copy in (*taken.now, *taken.later))

    def _fit(self, frames: list[Frame], others: int) -> None:
        """Lay the tensors out, unless they lie so already; have room for so many bytes behind them."""
        same = len(frames) == len(self._frames) and all(map(_is, frames, self._frames))
        if not same:
            self._offsets, self._end = lay_out(frames)
            self._frames = frames
        if self._end + others > self.size:
            offsets, end = self._offsets, self._end
            self.reserve(self._end + others + _TAIL)
            self._frames, self._offsets, self._end, same = frames, offsets, end, False
        if same:
            return
        image, end = memoryview(self._memory), 0  # type: ignore[arg-type]
        for frame, at in zip(frames, self._offsets, strict=True):
            image[end:at] = bytes(at - end)
            image[at : at + len(frame.head)] = frame.head
            end = at + frame.length

    def _grow(self, size: int) -> mmap.mmap:
        self.free()  # before the new memory is there: never two images at once
        self._memory = allocate(size)
        keep_from_children(self._memory)
        self._whole = torch.frombuffer(self._memory, dtype=torch.uint8)
        self._base = address_of(memoryview(self._memory))
        return self._memory


def lay_out(frames: Sequence[Frame]) -> tuple[list[int], int]:
    """Return where each archive begins, and where the last one ends."""
    offsets, end = [], 0
    for frame in frames:
        offsets.append(aligned(end, frame, PAGE if frame.size >= _LARGE else 64))
        end = offsets[-1] + frame.length
    return offsets, end


def _is(one: object, other: object) -> bool:
    return one is other


def ordered(parts: Sequence[Part]) -> list[Part]:
    """Return the parts in the order in which the file has them: tensors first."""
    return sorted(parts, key=lambda part: isinstance(part.data, bytes))


def frame_of(tensor: torch.Tensor) -> Frame:
    """Return the archive around a tensor: the same object for all of its dtype and shape."""
    return _frame(tensor.dtype, tensor.shape)


@lru_cache(maxsize=1 << 14)
def _frame(dtype: torch.dtype, shape: torch.Size) -> Frame:
    """Return the archive around a tensor of this kind: that of one whose memory nobody touches."""
    stand_in = torch.empty(shape, dtype=dtype, device="cpu")
    taken = capture(stand_in)
    return Frame(taken.leaders, stand_in.numel() * stand_in.element_size(), taken.trailer)


@lru_cache(maxsize=PAGE)
def zeros_crc(length: int) -> int:
    """Return the CRC-32 of so many zeros."""
    return crc32(bytes(length))


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    size = tensor.numel() * tensor.element_size()
    start = tensor.storage_offset() * tensor.element_size()
    flat = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return flat.set_(tensor.untyped_storage(), start, (size,), (1,))
