"""One tensor of a checkpoint, or what many are like, without loading the rest."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from holdfast.engine.measuring import Summary, has_values, summarize
from holdfast.engine.peeking import Peek, peek
from holdfast.errors import ConfigurationError, printable
from holdfast.storage import use_options

_WEIGHTS = "state_dict."  # where the weights are in most checkpoints: their names may be given without it


@dataclass(frozen=True)
class TensorStatistics:
    """What one tensor of a checkpoint is like.

    Attributes:
        name: the keys and places on the way to it, such as ``state_dict.head.weight``.
        dtype: such as ``"float32"``.
        shape: its sizes.
        bytes: of its elements; a view's storage may have more.
        record: the record of the file that holds it; "" where that is not known. Tensors of one record share memory.
        minimum, maximum, mean, norm: of the finite values, in float64; of integers the first two are exact, of complex
            values they are those of the absolute values. None where there are none, or no values.
        nans, infinities: how many values are no number, and how many infinite. None where there are no values
            to look at: on the device ``meta``, or of a type that torch only stores.

    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    record: str
    minimum: float | None
    maximum: float | None
    mean: float | complex | None
    norm: float | None
    nans: int | None
    infinities: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; the keys are stable. A complex mean is a list of its two parts."""
        mean = self.mean
        return {**asdict(self), "mean": [mean.real, mean.imag] if isinstance(mean, complex) else mean}


def statistics(
    path: str | os.PathLike[str],
    names: str | Collection[str] | None = None,
    *,
    allow: Sequence[Any] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> list[TensorStatistics]:
    """Return what tensors of a checkpoint are like, in the order of the file, in memory of about one of them.

    Only the records that hold them are read, and checked; of a remote file, only these are fetched.

    Args:
        path: file or fsspec URL; any file that ``torch.save`` writes will do.
        names: which tensors: names as in the manifest, with or without ``state_dict.``, or patterns such as
            ``"*.weight"``. None: all of them.
        allow: further classes and functions that the safe loader may use.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        ConfigurationError: if a name or pattern fits no tensor.
        LoadError: as ``load``.

    """
    use_options(storage_options, path)
    with peek(path, allow=allow) as look:
        chosen = look.tensors if names is None else _chosen(look, [names] if isinstance(names, str) else names)
        return [_statistics(look, name, tensor) for name, tensor in chosen.items()]


def tensor(
    path: str | os.PathLike[str],
    name: str,
    *,
    allow: Sequence[Any] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """Return one tensor of a checkpoint, in memory of its own; the record that holds it is read, and checked.

    Args:
        path: file or fsspec URL.
        name: as in the manifest, with or without ``state_dict.``.
        allow: further classes and functions that the safe loader may use.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        ConfigurationError: if there is none of that name.
        LoadError: as ``load``.

    """
    use_options(storage_options, path)
    with peek(path, allow=allow) as look:
        found = _exact(look.tensors, name)
        if found is None:
            raise ConfigurationError(_no_such(look, name))
        value = look.values(look.tensors[found])
        return value if value.device.type == "meta" else value.clone()


def _chosen(look: Peek, names: Collection[str]) -> Mapping[str, torch.Tensor]:
    wanted: set[str] = set()
    for name in names:
        exact = _exact(look.tensors, name)
        found = [exact] if exact is not None else fnmatch.filter(look.tensors, name)
        if not found:
            raise ConfigurationError(_no_such(look, name))
        wanted.update(found)
    return {name: tensor for name, tensor in look.tensors.items() if name in wanted}


def _exact(tensors: Mapping[str, torch.Tensor], name: str) -> str | None:
    return next((full for full in (name, _WEIGHTS + name) if full in tensors), None)


def _no_such(look: Peek, name: str) -> str:
    close = difflib.get_close_matches(name, [*look.tensors, *(full.removeprefix(_WEIGHTS) for full in look.tensors)])
    hint = f"; did you mean {', '.join(close)}?" if close else "; `holdfast show FILE` lists all of them"
    return printable(f"{look.path} has no tensor {name!r}, of {len(look.tensors)}{hint}")


def _statistics(look: Peek, name: str, value: torch.Tensor) -> TensorStatistics:
    empty = Summary(None, None, None, 0.0, 0, 0)
    measured = has_values(value)
    summary = summarize(look.values(value)) if measured else empty
    return TensorStatistics(
        name,
        str(value.dtype).removeprefix("torch."),
        sizes(value),
        value.numel() * value.element_size(),
        look.record(value),
        summary.minimum,
        summary.maximum,
        summary.mean,
        summary.norm if measured else None,
        summary.nans if measured else None,
        summary.infinities if measured else None,
    )


def sizes(value: torch.Tensor) -> tuple[int, ...]:
    """Return the sizes; of a nested tensor only the number of its parts."""
    return (value.size(0),) if value.is_nested else tuple(value.shape)
