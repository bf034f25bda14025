"""Which tensors are a dtype, a view of one storage, and nothing else."""

from __future__ import annotations

from typing import Any

import torch

KINDS: dict[torch.dtype, tuple[Any, int]] = {  # the class that a pickle names, and the bytes of an element
    torch.float64: (torch.DoubleStorage, 8),
    torch.float32: (torch.FloatStorage, 4),
    torch.float16: (torch.HalfStorage, 2),
    torch.bfloat16: (torch.BFloat16Storage, 2),
    torch.int64: (torch.LongStorage, 8),
    torch.int32: (torch.IntStorage, 4),
    torch.int16: (torch.ShortStorage, 2),
    torch.int8: (torch.CharStorage, 1),
    torch.uint8: (torch.ByteStorage, 1),
    torch.bool: (torch.BoolStorage, 1),
}


def is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether torch would reduce a tensor of the exact class to a view of its storage alone."""
    return (
        tensor.dtype in KINDS
        and tensor.layout is torch.strided
        and (tensor.is_cpu or tensor.is_cuda)
        and not tensor.__dict__
        and not tensor._backward_hooks  # noqa: SLF001 - torch warns of them
        and not tensor.is_nested
        and not tensor.is_neg()
    )
