"""One reusable piece of host memory that is the image of the file: tensors are copied straight to their places.

Copying into memory that has been used before runs at the speed of memory; into fresh memory, where the
system has to find and clear each page, at a fourth of it, or at a twentieth in a virtual machine.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import torch

from holdfast.format.digest import crc32
from holdfast.format.image import Plan
from holdfast.format.writing import SLACK_NAME, Finish
from holdfast.memory import address_of, allocate, keep_from_children, show_to_children, touch
from holdfast.snapshot.capture import Snapshot
from holdfast.snapshot.copying import Copy, Target, copy_all
from holdfast.snapshot.devices import Crossing, unpin
from holdfast.snapshot.progress import Progress
from holdfast.snapshot.residence import Home, move_in

_HOST = torch.device("cpu")
_TAIL = 1 << 16  # bytes left behind the data, so that a state that grows a little needs no new image


@dataclass(frozen=True)
class Taken:
    """A state on its way into an image.

    Attributes:
        now: the copies to make before training goes on.
        later: the copies that may be made while it does.
        resident: the places of storages that lie in the image themselves: they are not copied at all.
        crossing: the copies from devices, which have begun.
        progress: which are made.

    """

    crossing: Crossing
    now: list[Copy] = field(default_factory=list)
    later: list[Copy] = field(default_factory=list)
    resident: set[int] = field(default_factory=set)
    progress: Progress = field(default_factory=Progress)


class HostImage:
    """Memory for one file. Used by one save at a time."""

    def __init__(self) -> None:
        """Allocate nothing yet."""
        self._memory: mmap.mmap | None = None
        self._whole: torch.Tensor = torch.empty(0, dtype=torch.uint8)
        self._base = 0
        self._plan: Plan | None = None
        self._homes: dict[int, Home] = {}
        self._tenants: set[int] = set()  # where tensors live
        self._outsiders: set[int] = set()  # addresses of those that cannot

    @property
    def front(self) -> int:
        """Where the first storage's record begins, if the storages' places are to stay; 0 before the first."""
        if self._plan is None:
            return 0
        names = [name for name, _ in self._plan.sizes]
        return self._plan.starts[names.index(SLACK_NAME) + 1] if SLACK_NAME in names else 0

    @property
    def size(self) -> int:
        """The bytes that the image occupies."""
        return len(self._memory) if self._memory is not None else 0

    def reserve(self, size: int) -> None:
        """Have at least this much memory, its pages given by the system already."""
        if size > self.size:
            touch(self._grow(size))

    def take(self, snapshot: Snapshot, later: Collection[int] = (), homes: Collection[int] = ()) -> Taken:
        """Make the image ready for a state, and say what is to be copied; copies from devices begin.

        Args:
            snapshot: the state.
            later: the places of storages that may be copied while training goes on.
            homes: the places that ``move_in`` may give to their tensors.

        """
        plan = self._fit(snapshot.sizes)
        homes = frozenset(homes)
        if self._tenants and not all(self._is_welcome(copy, homes) for copy in self.copies(snapshot)):
            self._grow(plan.end + _TAIL)  # the tenants keep the old memory, as if it were their own
            plan.frame(memoryview(self._memory))  # type: ignore[arg-type]
            self._plan = plan
        self._put(plan.offsets, [part.data for part in snapshot.leaders])
        self._put(plan.offsets[-1:], [snapshot.trailer.data])
        taken = Taken(Crossing(self._whole))
        self._homes = {}
        for copy in self.copies(snapshot):
            place, source, offset, size = copy
            if source.device != _HOST:
                self._take_from_device(copy, taken, later=place in later)
                continue
            address = source.data_ptr()
            if address == self._base + offset:
                taken.resident.add(place)
                continue
            if place in homes and address not in self._outsiders:
                self._homes[address] = Home(offset, size)
            (taken.later if place in later else taken.now).append(copy)
        taken.progress.expect(copy.place for copy in (*taken.now, *taken.later))
        return taken

    def copy_now(self, taken: Taken) -> None:
        """Make the copies for which training stands still."""
        self._copy(taken.now, taken)

    def copy_rest(self, taken: Taken) -> None:
        """Make the copies that were left for later, beside the training."""
        self._copy(taken.later, taken, beside=True)

    def _copy(self, copies: list[Copy], taken: Taken, *, beside: bool = False) -> None:
        try:
            copy_all(copies, Target(memoryview(self._memory), self._base), taken.progress, beside=beside)  # type: ignore[arg-type]
        except BaseException as error:
            taken.progress.fail(error)  # or the thread that writes would wait for ever
            raise

    def _is_welcome(self, copy: Copy, homes: frozenset[int]) -> bool:
        """Tell whether a storage may live, or be copied, where the plan has it."""
        if copy.on_host and copy.source.data_ptr() == self._base + copy.offset:
            return copy.place in homes  # one that is not to stay would change while it is written
        return copy.offset not in self._tenants  # that of another model of the same shape lives there

    def _take_from_device(self, copy: Copy, taken: Taken, *, later: bool) -> None:
        if copy.source.device.type == "meta":
            ctypes.memset(self._base + copy.offset, 0, copy.size)
        else:
            taken.crossing.begin(_bytes_of(copy.source), copy.offset, later=later)

    def digests(self, snapshot: Snapshot, places: Collection[int]) -> dict[int, int]:
        """Return the digests of the storages at these places, as they are in the image now."""
        image = memoryview(self._memory)  # type: ignore[arg-type]
        copies = [copy for copy in self.copies(snapshot) if copy.place in places]
        return {copy.place: crc32(image[copy.offset : copy.offset + copy.size]) for copy in copies}

    def differing(self, copies: list[Copy]) -> list[int]:
        """Return the places of those storages of the host that hold something else than the image does."""
        return [copy.place for copy in copies if copy.on_host and not copy.matches(self._base)]

    def copies(self, snapshot: Snapshot) -> list[Copy]:
        """Return what belongs where of the state that was taken, leaving out what has no bytes."""
        assert self._plan is not None  # noqa: S101 - something was taken
        first = len(snapshot.leaders)
        offsets, sizes = self._plan.offsets[first:-1], self._plan.lengths[first:-1]
        rows = zip(range(len(sizes)), snapshot.storages, offsets, sizes, strict=True)
        return [Copy._make(row) for row in rows if row[-1]]

    def _put(self, offsets: list[int], data: list[bytes | memoryview]) -> None:
        view = memoryview(self._memory)  # type: ignore[arg-type]  # _fit has allocated it
        for offset, item in zip(offsets, data, strict=False):
            view[offset : offset + len(item)] = item

    def seal(self, snapshot: Snapshot, taken: Taken, finish: Finish) -> Iterator[memoryview | bytes]:
        """Yield the file's bytes from the image, digests and manifest added."""
        assert self._plan is not None  # noqa: S101 - something was taken
        first = len(snapshot.leaders)
        taken.crossing.wait()
        return self._plan.seal(
            memoryview(self._memory),  # type: ignore[arg-type]
            finish,
            lambda number: taken.progress.digest(number - first),
        )

    def move_in(self, tensors: Iterable[torch.Tensor]) -> None:
        """Have the tensors of the last state live at their places in the image, where nothing else refers to them."""
        if self._homes and self._memory is not None:
            show_to_children(self._memory)
            moved = move_in(tensors, self._memory, self._homes)
            self._tenants |= moved.tenants
            self._outsiders |= moved.outsiders
            self._homes = {}

    def keep_out(self, addresses: Iterable[int]) -> None:
        """Let ``move_in`` leave out the storages at these addresses."""
        for address in addresses:
            self._homes.pop(address, None)

    def free(self) -> None:
        """Give the memory back; the part that tensors live in stays until they are gone."""
        unpin(self._whole)
        self._memory, self._plan = None, None
        self._whole = torch.empty(0, dtype=torch.uint8)

    def _fit(self, sizes: tuple[tuple[str, int], ...]) -> Plan:
        """Return the plan for these records, framed in the image; it is laid out anew only if they changed."""
        if self._plan is not None and self._plan.sizes == sizes:
            return self._plan
        plan = Plan(sizes)
        if plan.end > self.size or (self._tenants and not plan.agrees(self._plan, SLACK_NAME)):
            self._grow(plan.end + _TAIL)
        plan.frame(memoryview(self._memory))  # type: ignore[arg-type]
        self._plan = plan
        return plan

    def _grow(self, size: int) -> mmap.mmap:
        self.free()  # before the new memory is there: never two images at once, unless tensors live in the old one
        self._tenants = set()
        self._memory = allocate(size)
        keep_from_children(self._memory)
        self._whole = torch.frombuffer(self._memory, dtype=torch.uint8)
        self._base = address_of(memoryview(self._memory))
        return self._memory


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
