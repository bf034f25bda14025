"""What a rank writes, item by item: dense tensors, and bytes of all that is none."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

import torch
from torch.distributed.checkpoint.planner import SavePlanner, WriteItem, WriteItemType
from torch.distributed.tensor import DTensor

from holdfast.engine.sharded.image import Part
from holdfast.errors import printable

_OWN = (torch.Tensor, torch.nn.Parameter)  # subclasses may have no storage, or several
_PLAIN = (int, float, bool, str, bytes, type(None))
_KEPT = 1 << 13  # bytes of a pickle that is worth to be remembered


class Values:
    """The bytes of plain values as ``torch.save`` has them, each kept while the value is as it was."""

    def __init__(self) -> None:
        """Know none yet."""
        self._known: dict[str, tuple[bytes, bytes]] = {}

    def parts(self, planner: SavePlanner, items: Iterable[WriteItem], state: dict[str, Any]) -> list[Part]:
        """Return the items' data as they are now; no tensor is copied.

        Args:
            planner: gives each item's data.
            items: what to write.
            state: the flat state, for values that need not be pickled again; may be empty.

        """
        return [self._part(planner, item, state) for item in items]

    def _part(self, planner: SavePlanner, item: WriteItem, state: dict[str, Any]) -> Part:
        name = item.index.fqn
        if item.type is WriteItemType.BYTE_IO:
            value = state.get(name, planner)
            key = pickle.dumps(value, 2) if _is_plain(value) else b""
            known = self._known.get(name)
            if key and known is not None and known[0] == key:
                return Part(name, None, known[1])
            data: Any = planner.resolve_data(item)
            saved = bytes(data.getbuffer())
            if key and len(key) <= _KEPT:
                self._known[name] = (key, saved)
            return Part(name, None, saved)
        at = tuple(item.index.offset or ())
        value = state.get(name)
        tensor: Any = value._local_tensor if type(value) is DTensor else planner.resolve_data(item)  # noqa: SLF001 - to_local() takes ten times as long
        if tensor.layout is not torch.strided:
            msg = f"{name} is a sparse tensor ({tensor.layout}), which DCP cannot save or load: save it as a dense one"
            raise TypeError(printable(msg))
        return Part(name, at, _dense_or_bytes(tensor))


def _dense_or_bytes(tensor: Any) -> torch.Tensor | bytes:
    if callable(getattr(tensor, "wait", None)) and hasattr(tensor, "elem"):  # the result of a collective under way
        tensor = tensor.wait()
    tensor = tensor.detach()
    plain = type(tensor) in _OWN and not tensor.is_quantized
    if plain and not tensor.is_nested and tensor.device.type != "meta":
        return tensor  # type: ignore[no-any-return]
    file = io.BytesIO()
    torch.save(tensor.cpu(), file)
    return file.getvalue()


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    return type(value) in _PLAIN
