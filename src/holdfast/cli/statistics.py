"""What tensors of a checkpoint are like, for ``holdfast show --tensor``."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cli.output import print_json, print_table
from holdfast.cli.text import number
from holdfast.front.sizes import amount


def show_tensors(path: str, names: Sequence[str], *, as_json: bool) -> None:
    """Print the statistics of the tensors of these names or patterns, one below the other."""
    from holdfast.front.tensors import statistics  # noqa: PLC0415 - imports torch

    found = statistics(path, names)
    if as_json:
        print_json({"path": path, "tensors": [item.as_dict() for item in found]})
        return
    rows = [
        (
            item.name,
            item.dtype,
            shape_text(item.shape),
            amount(item.bytes),
            number(item.minimum),
            number(item.maximum),
            _mean(item.mean),
            number(item.norm),
            "" if item.nans is None else str(item.nans),
            "" if item.infinities is None else str(item.infinities),
        )
        for item in found
    ]
    print_table(("name", "dtype", "shape", "size", "min", "max", "mean", "norm", "NaN", "inf"), rows)


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as ``3x4``."""
    return "x".join(map(str, shape)) or "scalar"


def _mean(mean: complex | None) -> str:
    return f"{mean:.5g}" if isinstance(mean, complex) else number(mean)
