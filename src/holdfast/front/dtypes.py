"""torch's dtypes: as people write them, and as safetensors files name them."""

from __future__ import annotations

from typing import Any

import torch

from holdfast.errors import ConfigurationError

SAFETENSORS: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
TORCH = {name: dtype for dtype, name in SAFETENSORS.items()}

_SHORT = {"fp64": "float64", "double": "float64", "fp32": "float32", "float": "float32"}
_SHORT |= {"fp16": "float16", "half": "float16", "bf16": "bfloat16"}


def parse_dtype(value: Any) -> torch.dtype | None:
    """Return the floating-point dtype that is meant; None for None.

    Raises:
        ConfigurationError: if it is none.

    """
    if value is None:
        return None
    found = getattr(torch, _SHORT.get(value, value), None) if isinstance(value, str) else value
    if not isinstance(found, torch.dtype) or not found.is_floating_point or found not in SAFETENSORS:
        floats = ", ".join(str(dtype).removeprefix("torch.") for dtype in SAFETENSORS if dtype.is_floating_point)
        msg = f"`dtype` can be one of {floats}, but got {value!r}"
        raise ConfigurationError(msg)
    return found


class Cast:
    """Casts floating-point tensors, piece by piece, and remembers those whose values it could not hold.

    Attributes:
        dtype: what to cast to; None leaves every tensor as it is.
        overflowed: the names of those that had finite values which became infinite or NaN.

    """

    def __init__(self, dtype: torch.dtype | None) -> None:
        """Cast nothing yet."""
        self.dtype = dtype
        self.overflowed: list[str] = []

    def result(self, tensor: torch.Tensor) -> torch.dtype:
        """Return the dtype that a tensor will have."""
        return self.dtype if self.dtype is not None and tensor.is_floating_point() else tensor.dtype

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor, or a piece of it, in its dtype."""
        dtype = self.result(tensor)
        if dtype == tensor.dtype:
            return tensor
        made = tensor.to(dtype)
        if name not in self.overflowed and not _finite(made) and (_finite_places(tensor) & ~_finite_places(made)).any():
            self.overflowed.append(name)
        return made


def _finite(tensor: torch.Tensor) -> bool:
    return bool(_finite_places(tensor).all())


def _finite_places(tensor: torch.Tensor) -> torch.Tensor:
    """Tell, element by element; float8 has no such operation of its own."""
    return torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor)
