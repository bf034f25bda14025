"""The state of a plain loop: collected for a save, put back at a resume.

The keys are those of a Lightning checkpoint, so that its tools find the weights.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from holdfast.errors import ConfigurationError, LoadError
from holdfast.records import LIGHTNING, LIGHTNING_FORM
from holdfast.snapshot import named_tensors, restore_rng, rng_state
from holdfast.telling import warn

_SHOWN = 3  # names in a warning
WRAPPED = "module."  # before each name in the state of a wrapper such as DistributedDataParallel


@runtime_checkable
class Stateful(Protocol):
    """Anything with ``state_dict`` and ``load_state_dict``."""

    def state_dict(self) -> Any:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take the state back."""
        ...


@dataclass(frozen=True)
class Parts:
    """The objects whose states make up a checkpoint, by their key in it."""

    model: Stateful | None = None
    optimizers: tuple[Stateful, ...] = ()
    lr_schedulers: tuple[Stateful, ...] = ()
    others: Mapping[str, Stateful] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Any,
        optimizer: Any,
        lr_scheduler: Any,
        others: Mapping[str, Any] | None,
    ) -> Parts:
        """Check that each object has a state.

        Raises:
            ConfigurationError: naming the one that has none.

        """
        parts = cls(model, _several(optimizer), _several(lr_scheduler), dict(others or {}))
        named = {
            "model": model,
            **{f"optimizer {place}": item for place, item in enumerate(parts.optimizers)},
            **{f"lr_scheduler {place}": item for place, item in enumerate(parts.lr_schedulers)},
            **parts.others,
        }
        for name, item in named.items():
            if item is not None and not isinstance(item, Stateful):
                msg = f"`{name}` must have state_dict() and load_state_dict(), but got {item!r}"
                raise ConfigurationError(msg)
        _refuse_flat(model)
        _warn_of_ignored(model)
        return parts


def _refuse_flat(model: Any) -> None:
    """Refuse FSDP1: its optimizer's state is of flat pieces, which have the same names on each rank.

    Raises:
        ConfigurationError: saying what to use.

    """
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    if (
        kind is not None
        and isinstance(model, torch.nn.Module)
        and any(isinstance(part, kind) for part in model.modules())
    ):
        msg = (
            "`model` is sharded by FullyShardedDataParallel (FSDP1), whose plain states cannot be saved part by part: "
            "use torch.distributed.fsdp.fully_shard (FSDP2)"
        )
        raise ConfigurationError(msg)


def _warn_of_ignored(model: Any) -> None:
    """Warn of parameters that DDP was told to ignore and that are trained: each rank may have its own."""
    if bare(model) is model:
        return
    ignored = model.parameters_to_ignore
    trained = [name for name, item in model.module.named_parameters() if name in ignored and item.requires_grad]
    if trained:
        more = " and more" if len(trained) > _SHOWN else ""
        warn(
            f"DistributedDataParallel ignores {', '.join(trained[:_SHOWN])}{more}: only rank 0's are saved. If "
            "those of the other ranks differ, give them and their optimizer by `stateful`"
        )


def _several(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Sequence) else (value,)


def bare(model: Any) -> Any:
    """Return the model inside DistributedDataParallel, which saves and loads as it would alone."""
    inside = isinstance(model, torch.nn.parallel.DistributedDataParallel)
    return model.module if inside else model


def unpacked(value: Any) -> Any:
    """Return what is saved as one piece, in a tuple of one."""
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def collect(
    parts: Parts,
    *,
    weights_only: bool,
    loop: Mapping[str, int | str],
    rng: Mapping[str, Any] | None = None,
    stateful: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the state of everything.

    Args:
        parts: the objects that have a state.
        weights_only: whether the model's is all.
        loop: ``epoch, global_step, next_epoch, batches, deferred``.
        rng: the state of the random number generators, if it was taken already.
        stateful: those of the further objects, if they were.

    """
    state: dict[str, Any] = {LIGHTNING: LIGHTNING_FORM, **loop}  # a LightningModule may be trained in a loop, too
    if parts.model is not None:
        state["state_dict"] = bare(parts.model).state_dict()
    if weights_only:
        return state
    state["optimizer_states"] = [item.state_dict() for item in parts.optimizers]
    state["lr_schedulers"] = [item.state_dict() for item in parts.lr_schedulers]
    state["stateful"] = (
        {name: item.state_dict() for name, item in parts.others.items()} if stateful is None else stateful
    )
    state["rng"] = rng_state() if rng is None else rng
    return state


def living(parts: Parts, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return, by name, those tensors of a collected state that a load may write over.

    That is what ``load_state_dict`` itself would overwrite, or replace: of torch's own modules and optimizers.
    """
    prefixes = []
    if isinstance(parts.model, torch.nn.Module):
        prefixes.append("state_dict.")
    if all(isinstance(item, torch.optim.Optimizer) for item in parts.optimizers):
        prefixes.append("optimizer_states.")
    return {name: tensor for name, tensor in named_tensors(state) if name.startswith(tuple(prefixes))}


@dataclass
class Restored:
    """What was put back, and what could not be, by name."""

    done: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def take(self, name: str, *, there: bool = True) -> None:
        """Note one of them."""
        (self.done if there else self.missed).append(name)


def restore(parts: Parts, state: Mapping[str, Any], path: str) -> Restored:
    """Put back what all ranks have in common; return what was restored and what could not be, by name.

    Raises:
        LoadError: if the checkpoint has no weights for the model, or not those of this model.

    """
    restored = Restored()
    try:
        if parts.model is not None:
            model = bare(parts.model)
            model.load_state_dict(_fitting(state["state_dict"], model))
            restored.take("model")
        _restore_list("optimizer", parts.optimizers, state.get("optimizer_states"), restored)
        _restore_list("lr_scheduler", parts.lr_schedulers, unpacked(state.get("lr_schedulers")), restored)
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        msg = f"{path} does not fit this model and optimizer: {type(error).__name__}: {reason}"
        raise LoadError(msg) from error
    return restored


def _fitting(saved: Any, model: Any) -> Any:
    """Return a model's saved state, without the prefix of a wrapper that this model has not."""
    wrapped = isinstance(saved, Mapping) and bool(saved) and all(str(name).startswith(WRAPPED) for name in saved)
    if not wrapped or not isinstance(model, torch.nn.Module) or hasattr(model, "module"):
        return saved
    plain = type(saved)(saved)
    torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(plain, WRAPPED)
    return plain


def give_back(parts: Parts, rng: Mapping[str, Any] | None, stateful: Mapping[str, Any], why: str) -> Restored:
    """Put back what a rank may have for itself; ``why`` is what to say of what is missing."""
    restored = Restored()
    for name, item in parts.others.items():
        if name in stateful:
            item.load_state_dict(stateful[name])
        restored.take(name if name in stateful else f"{name}{why}", there=name in stateful)
    if rng is not None:
        restored.missed += restore_rng(dict(rng))
        restored.take("random number generators")
    else:
        restored.missed.append(f"the random number generators{why}")
    return restored


def _restore_list(name: str, items: Sequence[Stateful], states: Sequence[Any] | None, restored: Restored) -> None:
    states = states or []
    for item, state in zip(items, states, strict=False):
        item.load_state_dict(state)
    for place in range(len(items)):
        restored.take(f"{name} {place}", there=place < len(states))
