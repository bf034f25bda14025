"""The state of a plain loop whose tensors lie in parts on many ranks: how it is laid out, and where a load puts it.

The names are those of the nested state: ``state_dict.<name>``, ``optimizer_states.0.state.0.exp_avg``. What is no
tensor of the training's is saved in one piece each: the schedulers, each of the user's objects, and under
``ranks.<rank>`` what a rank has for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from holdfast.errors import ConfigurationError, LoadError
from holdfast.front.loop_shares import RANKS, Own
from holdfast.front.loop_state import Parts, bare
from holdfast.ranks import Ranks
from holdfast.snapshot import fingerprint, is_sharded

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata

_SHOWN = 3  # names in an error
_OPTIMIZERS, _MODEL = "optimizer_states", "state_dict"


def check_alike(parts: Parts, ranks: Ranks) -> None:
    """See that every rank trains the same parameters: an optimizer's state goes by their places. Every rank calls it.

    Raises:
        ConfigurationError: if they do not, on every rank.

    """
    named = getattr(bare(parts.model), "named_parameters", None)
    names = [name for name, _ in named()] if callable(named) else []
    prints = ranks.exchange(fingerprint(names), at="the parameters' names")
    other = next((rank for rank, mine in enumerate(prints) if mine != prints[0]), None)
    if other is not None and parts.optimizers:
        msg = (
            f"rank {other} trains other parameters than rank 0 (stages of a pipeline, most likely), and an optimizer's "
            "state goes by their places. Pass objects whose state has names, as those of "
            "torch.distributed.checkpoint.state_dict.get_optimizer_state_dict, by `stateful`"
        )
        raise ConfigurationError(msg)


def laid_out(state: Mapping[str, Any], own: Own, ranks: Ranks, *, weights_only: bool) -> dict[str, Any]:
    """Return a collected state as it is saved in shards."""
    laid = {key: value for key, value in state.items() if key not in ("rng", "stateful", "lr_schedulers")}
    if own.buffers and not ranks.leads:  # or DCP takes a mean from one rank, and its variance from another
        laid[_MODEL] = {name: value for name, value in laid[_MODEL].items() if name not in own.buffers}
    if weights_only:
        return laid
    laid["lr_schedulers"] = (state["lr_schedulers"],)
    common = {name: value for name, value in own.stateful.items() if name not in own.differing}
    laid["stateful"] = {name: value if is_sharded(value) else (value,) for name, value in common.items()}
    laid[RANKS] = {str(ranks.rank): (own.share,)}
    return laid


def place_for(parts: Parts, live: Mapping[str, Any], saved: Metadata, ranks: Ranks, *, fresh: bool) -> dict[str, Any]:
    """Return a nested state for a load to fill: of all that is saved, what this rank needs.

    An optimizer that has no state yet is given one, cut like its parameters.

    Args:
        parts: the objects that have a state.
        live: their state as it is, whose tensors are filled in place.
        saved: what the checkpoint has.
        ranks: who else is there.
        fresh: fill new tensors instead.

    Raises:
        LoadError: if the saved weights are not those of this model.

    """
    paths = dict(_paths(saved))
    weights = _weights(live.get(_MODEL), saved, paths) if parts.model is not None else {}
    shares = {path[1] for path in paths.values() if path[0] == RANKS}
    mine = str(ranks.rank) if len(shares) == ranks.size else "0"
    place: dict[str, Any] = {}
    for name, path in paths.items():
        kind: Any = saved.state_dict_metadata[name]
        leaf: Any = None
        if path[0] == _MODEL:
            if parts.model is None:
                continue
            leaf = weights[name]
        elif path[0] == RANKS and path[1] != mine:
            continue
        elif hasattr(kind, "size"):
            leaf = _home(parts, live, path, kind.size, kind.properties.dtype)
        if fresh and isinstance(leaf, torch.Tensor):
            leaf = torch.empty_like(leaf)
        _put(place, path, leaf)
    return place


def filled(place: dict[str, Any], saved: Metadata) -> dict[str, Any]:
    """Return a state that was loaded as its objects take it: parameters and ranks go by number."""
    shares = {path[1] for _, path in _paths(saved) if path[0] == RANKS}
    if shares:
        place[RANKS] = [place[RANKS].get(str(rank)) for rank in range(len(shares))]
    states = place.get(_OPTIMIZERS, [])
    place[_OPTIMIZERS] = [{**state, "state": _numbered(state.get("state", {}))} for state in states]
    return place


def spread(parts: Parts, live: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return a whole state with its tensors cut as the live ones are: each rank takes its parts.

    Raises:
        LoadError: if the weights are not those of this model.

    """
    weights = live.get(_MODEL) or {}
    for name, tensor in weights.items():
        whole = state.get(_MODEL, {}).get(name)
        if is_sharded(tensor) and isinstance(whole, torch.Tensor):
            if whole.shape != tensor.shape:
                msg = f"{name} has the shape {tuple(whole.shape)} there, and {tuple(tensor.shape)} in this model"
                raise LoadError(msg)
            _cut(whole, tensor)
            state[_MODEL][name] = tensor
    for place, saved in enumerate(state.get(_OPTIMIZERS) or []):
        for number, values in _numbered(saved.get("state", {})).items():
            for key, whole in values.items():
                if isinstance(whole, torch.Tensor):
                    path = (_OPTIMIZERS, place, "state", str(number), key)
                    home = _home(parts, live, path, whole.shape, whole.dtype)
                    if is_sharded(home):
                        _cut(whole, home)
                        values[key] = home
    return state


def _paths(saved: Metadata) -> Iterator[tuple[str, tuple[Any, ...]]]:
    known = saved.planner_data if isinstance(saved.planner_data, Mapping) else {}
    for name in saved.state_dict_metadata:
        yield name, tuple(known.get(name) or name.split("."))


def _weights(weights: Any, saved: Metadata, paths: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Return where the model's saved values go, by their names; they have to be just those that it has."""
    if not isinstance(weights, Mapping):
        msg = f"the state of the model is no mapping but {type(weights).__name__}: shards cannot be loaded into it"
        raise LoadError(msg)
    own = {f"{_MODEL}.{name}": value for name, value in weights.items()}
    there = [name for name, path in paths.items() if path[0] == _MODEL]
    problems = [f"{name} is missing" for name in own if name not in paths]
    problems += [f"{name} is not in this model" for name in there if name not in own]
    for name in there:
        size, value = getattr(saved.state_dict_metadata[name], "size", None), own.get(name)
        if isinstance(value, torch.Tensor) and size != value.shape:
            shape = "no tensor" if size is None else f"of the shape {tuple(size)}"
            problems.append(f"{name} is {shape}, and {tuple(value.shape)} in this model")
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        msg = f"the shards do not fit this model: {'; '.join(problems[:_SHOWN])}{more}"
        raise LoadError(msg)
    return own


def _home(parts: Parts, live: Mapping[str, Any], path: tuple[Any, ...], size: Any, dtype: Any) -> torch.Tensor:
    """Return the tensor that is to hold a saved one: the living one of that place, else one cut like its parameter."""
    own = _at(live, path)
    if isinstance(own, torch.Tensor) and own.shape == size and own.dtype == dtype:
        return own
    if path[0] == _OPTIMIZERS and path[2] == "state":
        parameter = _parameter(parts, int(path[1]), str(path[3]))
        if is_sharded(parameter) and parameter is not None and parameter.shape == size:
            return torch.zeros_like(parameter.detach(), dtype=dtype)
    return torch.empty(size, dtype=dtype)


def _parameter(parts: Parts, place: int, number: str) -> torch.Tensor | None:
    groups = getattr(parts.optimizers[place], "param_groups", []) if place < len(parts.optimizers) else []
    parameters = [item for group in groups for item in group["params"]]
    there = number.isdigit() and int(number) < len(parameters)
    return parameters[int(number)] if there else None


def _at(state: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        if isinstance(state, Mapping):
            state = next((state[other] for other in (key, _number(key)) if other in state), None)
        elif isinstance(state, list) and isinstance(key, int) and key < len(state):
            state = state[key]
        else:
            return None
    return state


def _put(place: dict[str, Any], path: tuple[Any, ...], leaf: Any) -> None:
    from torch.distributed.checkpoint._traverse import set_element  # noqa: PLC0415 - for shards only, and slow

    set_element(place, path, leaf)


def _number(key: Any) -> Any:
    return int(key) if isinstance(key, str) and key.isdigit() else key


def _numbered(values: Mapping[Any, Any]) -> dict[Any, Any]:
    return {_number(key): value for key, value in values.items()}


def _cut(whole: torch.Tensor, part: Any) -> None:
    """Copy to a sharded tensor what of a whole one belongs to this rank."""
    from torch.distributed.checkpoint.planner_helpers import _create_chunk_list  # noqa: PLC0415 - as above

    locals_ = [shard.tensor for shard in part.local_shards()] if hasattr(part, "local_shards") else [part.to_local()]
    with torch.no_grad():
        for chunk, local in zip(_create_chunk_list(part), locals_, strict=True):
            where = tuple(slice(begin, begin + size) for begin, size in zip(chunk.offsets, chunk.sizes, strict=True))
            local.copy_(whole[where])
