"""Which tensors lie in parts on several ranks."""

from __future__ import annotations

import sys
from itertools import islice

from holdfast.snapshot.naming import named_tensors

_ENOUGH = 1000  # parameters
_KINDS = (("torch.distributed.tensor", "DTensor"), ("torch.distributed._shard.sharded_tensor", "ShardedTensor"))


def has_shards(model: object) -> bool:
    """Tell whether a model's parameters are sharded, without its state; a look at the first thousand."""
    parameters = getattr(model, "parameters", None)
    return callable(parameters) and is_sharded(list(islice(parameters(), _ENOUGH)))


def is_sharded(state: object) -> bool:
    """Tell whether a state, or a tensor, has any part that is a DTensor or a ShardedTensor.

    Where nobody has imported those classes there is none, and that costs nothing.
    """
    modules = ((sys.modules.get(module), name) for module, name in _KINDS)
    kinds = tuple(kind for module, name in modules if isinstance(kind := getattr(module, name, None), type))
    return bool(kinds) and any(isinstance(tensor, kinds) for _, tensor in named_tensors(state))
