"""torch's own unpickler, over records that are in memory already.

``torch.load`` can only read a file or a stream. What it does behind its reader of zip files, it does
here too: the same function of torch is handed an object that answers like that reader, with the
records that were read and checked. So the safe unpickler, ``map_location``, tied storages, subclasses
and the order of bytes are torch's business as ever. That function is private to torch; ``works``
tries it, and where it has changed the file is verified and then read by ``torch.load``.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch

from holdfast.engine.filling import TENSORS, Contents, keeps_what_it_has
from holdfast.format.layout import Placed

MapLocation = str | torch.device | dict[str, str] | Callable[[Any, str], Any] | None

_PICKLE = "data.pkl"
_SCRIPT = "constants.pkl"  # by which torch.load knows TorchScript, which is not for the unpickler
_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def suits(names: list[str], map_location: MapLocation, *, weights_only: bool) -> bool:
    """Tell whether a file of these records can be unpickled here; otherwise it is for ``torch.load``."""
    if len(set(names)) < len(names) or _PICKLE not in names or _SCRIPT in names:
        return False
    if isinstance(map_location, (str, torch.device)) and str(map_location).startswith("meta"):
        return False  # needs no data in memory
    if not weights_only and os.environ.get(_FORCED, "0") != "0":
        return False  # torch.load knows what that asks for
    return works()


def unpickle(contents: Contents, placed: list[Placed], map_location: MapLocation, *, weights_only: bool) -> Any:
    """Build what ``torch.load`` would build of a file of these records.

    Large tensors take the contents' memory for their own. Where the map's location is one device, the
    contents are given up one by one, so that what went to another device goes from here.
    """
    module = torch._weights_only_unpickler if weights_only else pickle  # noqa: SLF001
    give_up = isinstance(map_location, (str, torch.device))
    reader = _Reader(contents, {item.record.name: item for item in placed}, give_up=give_up)
    load = cast("Callable[..., Any]", torch.serialization._load)  # noqa: SLF001
    return load(reader, map_location, module, encoding="utf-8")


class _Reader:
    """Answers like ``torch._C.PyTorchFileReader``."""

    def __init__(self, contents: Contents, placed: dict[str, Placed], *, give_up: bool) -> None:
        self._contents = contents
        self._placed = placed
        self._give_up = give_up

    def has_record(self, name: str) -> bool:
        return name in self._contents.others or name in self._contents.tensors

    def get_all_records(self) -> list[str]:
        return list(self._placed)

    def get_record(self, name: str) -> bytes:
        if name not in self._contents.others:
            raise RuntimeError(_missing(name))
        return self._contents.others[name]

    def get_storage_from_record(self, name: str, size: int, kind: object) -> torch.Tensor:
        """Return a tensor over the record's memory; the unpickler takes its storage."""
        del kind
        flat = self._contents.tensors.get(name)
        if flat is None:
            raise RuntimeError(_missing(name))
        if not 0 <= size <= len(flat):
            msg = f"a tensor wants {size} bytes of the record {name}, which has {len(flat)}"
            raise RuntimeError(msg)
        if self._give_up and size:
            del self._contents.tensors[name]  # asked for once: torch keeps what it has
        return flat if size == len(flat) else flat[:size].clone()

    def get_record_offset(self, name: str) -> int:
        if name not in self._placed:
            raise RuntimeError(_missing(name))
        return self._placed[name].data_offset

    def get_record_header_offset(self, name: str) -> int:
        self.get_record_offset(name)
        return self._placed[name].header_offset

    def get_record_offset_no_read(self, cursor: int, name: str, size: int, alignment: int) -> int:
        """Return what would be computed from the places of the records before."""
        del cursor, size, alignment
        return self.get_record_offset(name)

    def serialization_id(self) -> str:
        return self._contents.others.get(".data/serialization_id", b"").decode("latin-1")


def _missing(name: str) -> str:
    return f"there is no record {name} in the file"


@functools.cache
def works() -> bool:
    """Tell whether this torch's unpickler takes records from here, by trying; in a thread, which has no modes on."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_try).result()


def _try() -> bool:
    state = {"x": torch.arange(3.0), "y": [torch.zeros(0), "z"]}
    state["part"] = cast("torch.Tensor", state["x"])[1:]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    contents = Contents()
    with zipfile.ZipFile(buffer) as archive:
        for info in archive.infolist():
            name, data = info.filename.partition("/")[2], archive.read(info)
            contents.others[name] = data
            if name.startswith(TENSORS):
                contents.tensors[name] = torch.tensor(list(data), dtype=torch.uint8)
    try:
        loaded = [unpickle(contents, [], "cpu" if safe else None, weights_only=safe) for safe in (False, True)]
    except Exception:  # noqa: BLE001 - whatever a later torch makes of it, it is not what is needed
        return False
    return keeps_what_it_has() and all(
        one["y"][1] == "z"
        and one["y"][0].shape == (0,)
        and one["x"].tolist() == [0.0, 1.0, 2.0]
        and one["part"].data_ptr() == one["x"][1:].data_ptr()
        for one in loaded
    )
