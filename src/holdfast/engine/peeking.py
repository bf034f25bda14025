"""A look into a checkpoint: its whole state, in which the values of a tensor are read when they are asked for.

The state comes from torch's safe unpickler as ever. The memory that it takes for the tensors is the mirror
of ``ranges``, in which nothing is read yet. So what a look costs is what is looked at: of two checkpoints of
any size, two tensors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, BinaryIO

import torch

from holdfast.engine.filling import TENSORS, Contents
from holdfast.engine.foreign import stored_records
from holdfast.engine.globals import permitting
from holdfast.engine.load import built, load, opened
from holdfast.engine.ranges import Ranges
from holdfast.engine.unpickling import suits, unpickle
from holdfast.errors import CheckpointNotFoundError, UnsafeCheckpointError
from holdfast.format import reading
from holdfast.format.layout import Placed
from holdfast.records import Manifest
from holdfast.snapshot import named_tensors
from holdfast.source import BlobSource, FileSource
from holdfast.storage import open_store, split_path

_PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


class Peek:
    """A checkpoint that stays open.

    Attributes:
        path: as it was given.
        manifest: None if it has none.
        state: what ``load`` would return. The values of its tensors are there only through ``values``.

    """

    def __init__(
        self,
        path: str,
        state: Any,
        manifest: Manifest | None,
        ranges: Ranges | None,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        """Hold no values yet; without ``ranges`` the state has them all."""
        self.path = path
        self.state = state
        self.manifest = manifest
        self._ranges = ranges
        self._held = ""
        self._advance = advance

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors that can be reached by names, by their names, as in the manifest."""
        return dict(named_tensors(self.state))

    def record(self, tensor: torch.Tensor) -> str:
        """Return the name of the record that a tensor is a view of; "" where it is of none, as an empty one."""
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_nested:
            return ""
        return self._record_of(tensor.untyped_storage())

    def _record_of(self, storage: torch.UntypedStorage) -> str:
        address = storage.data_ptr() if self._ranges is not None and storage.device.type == "cpu" else 0
        span = self._ranges.at(address) if self._ranges is not None and address else None
        return "" if span is None else span.name

    def digest(self, tensor: torch.Tensor) -> tuple[int, int] | None:
        """Return the bytes and the CRC-32 of the record that a tensor is a view of; None where there is none."""
        name = self.record(tensor)
        return None if self._ranges is None or not name else self._ranges.digest(name)

    def place(self, tensor: torch.Tensor) -> int:
        """Return where the record of a tensor begins in the file: who reads many goes by it. 0 where it is of none."""
        name = self.record(tensor)
        return self._ranges.spans[name].begin if self._ranges is not None and name else 0

    def values(self, tensor: torch.Tensor) -> torch.Tensor:
        """Read and check the record of a tensor of the state; return the tensor, detached.

        Its values are there until those of a tensor of another record are asked for.

        Raises:
            DamagedCheckpointError: naming the record, if it is not as it was written.

        """
        self._hold(self.record(tensor))
        return tensor.detach()

    def hold(self, storage: torch.UntypedStorage) -> None:
        """Read and check the record of a storage of the state, as ``values`` does.

        Raises:
            DamagedCheckpointError: naming the record, if it is not as it was written.

        """
        self._hold(self._record_of(storage))

    def _hold(self, name: str) -> None:
        if self._ranges is not None and name and name != self._held:
            self.forget()
            self._held = name  # before: what a read that failed has left is given back as well
            self._ranges.fill(name)
            if self._advance is not None:
                self._advance(self._ranges.spans[name].size)

    def forget(self) -> None:
        """Give back the memory of the values that are there."""
        if self._ranges is not None and self._held:
            self._ranges.drop(self._held)
        self._held = ""


@contextmanager
def peek(
    path: str | os.PathLike[str], *, allow: Sequence[Any] = (), advance: Callable[[int], None] | None = None
) -> Iterator[Peek]:
    """Open a checkpoint for a look: a file or fsspec URL, of a remote one with a manifest only what is looked at.

    Its manifest, its skeleton and every record that is looked at are checked. What the safe loader cannot build
    without all values (sparse and quantized tensors, files of torch before 1.6) is loaded whole.

    Args:
        path: any file that ``torch.save`` writes will do.
        allow: further classes and functions that the safe loader may use.
        advance: called with the bytes of each record that was read for its values.

    Raises:
        LoadError: as ``load``.

    """
    text = os.fspath(path)
    with ExitStack() as stack:
        ranges, account, file = _open(text, stack)
        state = None if ranges is None else _hollow(ranges, account, file, allow)
        if ranges is None or state is None:
            manifest = None if account is None else account.manifest
            yield Peek(text, load(text, allow=allow), manifest, None)
            return
        yield Peek(text, state[0], None if account is None else account.manifest, ranges, advance)


def _open(path: str, stack: ExitStack) -> tuple[Ranges | None, reading.Account | None, BinaryIO | None]:
    root, name = split_path(path)
    store = open_store(root)
    if not store.is_local:
        with _not_there(path):
            blob = BlobSource(store, name, store.size(name))
            account = reading.read_account(blob)
        if account is not None:
            return Ranges.of_account(blob, account, stack), account, None
    source, file = stack.enter_context(_open_whole(path))
    account = reading.read_account(source)
    if account is not None:
        return Ranges.of_account(source, account, stack), account, file
    return _foreign(source, file, stack), None, file


@contextmanager
def _open_whole(path: str) -> Iterator[tuple[FileSource, BinaryIO]]:
    """Open a checkpoint; what goes wrong while it is open is no business of its own: it may be of another file."""
    manager = opened(path)
    found = manager.__enter__()
    try:
        yield found
    finally:
        manager.__exit__(None, None, None)


def _foreign(source: FileSource, file: BinaryIO, stack: ExitStack) -> Ranges | None:
    records = stored_records(source, file)
    return None if records is None else Ranges.of_zip(source, records, stack)


@contextmanager
def _not_there(path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        msg = f"there is no checkpoint at {path}"
        raise CheckpointNotFoundError(msg) from error


def _hollow(
    ranges: Ranges, account: reading.Account | None, file: BinaryIO | None, allow: Sequence[Any]
) -> tuple[Any] | None:
    """Build the state over memory in which no tensor is read; None if it cannot be built so."""
    if not ranges.aligned or not suits(list(ranges.spans), "cpu", weights_only=True):
        return None
    contents = Contents()
    for name, span in ranges.spans.items():
        memory = ranges.memory(name)
        if not name.startswith(TENSORS):
            ranges.fill(name)
            contents.others[name] = bytes(memory)
        elif span.size:
            contents.tensors[name] = torch.frombuffer(memory, dtype=torch.uint8)
        else:
            contents.tensors[name] = torch.empty(0, dtype=torch.uint8, device="cpu")
    if contents.others.get("byteorder", sys.byteorder.encode()) != sys.byteorder.encode():
        return None
    placed: list[Placed] = [] if account is None else list(account.placed)

    def build() -> Any:
        return unpickle(contents, placed, "cpu", weights_only=True)

    try:
        with permitting(allow):
            state = build() if file is None else built(build, ranges.path, file, weights_only=True)
    except UnsafeCheckpointError:
        raise
    except Exception:  # noqa: BLE001 - it may be what wants values; if something is wrong, the whole load says so
        return None
    return (state,) if all(_is_in(ranges, tensor) for _, tensor in named_tensors(state)) else None


def _is_in(ranges: Ranges, tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is nothing but a view of memory that mirrors the file, or has no values at all."""
    if type(tensor) not in _PLAIN or tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        return False
    if tensor.device.type == "meta":
        return True
    storage = tensor.untyped_storage()
    return not storage.nbytes() or ranges.at(storage.data_ptr()) is not None
