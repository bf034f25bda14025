"""The mean of several checkpoints' weights, as a new checkpoint."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from holdfast.clock import Clock, SystemClock
from holdfast.engine.alike import check_alike
from holdfast.engine.averaging import Averaging, Room, Source, averages
from holdfast.engine.measuring import has_values
from holdfast.engine.peeking import Peek, peek
from holdfast.errors import ConfigurationError, printable
from holdfast.front.model_part import model_key, model_of, without_training
from holdfast.front.overwriting import same_file
from holdfast.front.provenance import versions
from holdfast.records import LIGHTNING, Facts, Lineage
from holdfast.storage import open_store, split_path, use_options

_NAMED = 8  # sources whose names are told in the reason


@dataclass(frozen=True)
class Averaged:
    """What an average was made of.

    Attributes:
        path: where it is.
        sources: the checkpoints, from the oldest to the newest.
        weights: how much each of them counts; they add up to 1.
        averaged: the names of the tensors that were averaged.
        taken: the names of the model's other tensors: those of the newest checkpoint, as they are there.
        step: that of the newest.

    """

    path: str
    sources: tuple[str, ...]
    weights: tuple[float, ...]
    averaged: tuple[str, ...]
    taken: tuple[str, ...]
    step: int

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; the keys are stable."""
        return asdict(self)


def average(  # noqa: PLR0913 - two ways of weighing, and how the result is to be
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    weights: Sequence[float] | None = None,
    ema: float | None = None,
    dtype: torch.dtype | str | None = None,
    key: str | None = None,
    overwrite: bool = False,
    allow: Sequence[Any] = (),
    clock: Clock | None = None,
    advance: Callable[[int], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Averaged:
    """Write the mean of several checkpoints' weights as a new checkpoint, in memory of about one tensor of it.

    The model's tensors of real or complex numbers are averaged, summed in float64 and rounded once. All its other
    tensors (counters, indices), and all else that the file holds, are those of the newest checkpoint; what only a
    training that goes on needs (states of optimizers, schedulers, loops, callbacks) is left out. Tied weights stay
    tied. The result is committed as every checkpoint is, loads wherever the newest one does, and its manifest
    names the sources. Every byte that is read is checked.

    Args:
        paths: files or fsspec URLs, in any order: what is older goes by their steps, and, where these are equal or not
            known, by the order given.
        out: the file or URL to write.
        weights: how much each of the paths counts, in the order of the paths; only their ratios matter. None: all
            the same.
        ema: instead, the decay of an exponential moving average over the checkpoints from the oldest to the newest:
            ``mean = ema * mean + (1 - ema) * next``.
        dtype: the type of the averaged real tensors, such as ``"bfloat16"``; None: as in the newest.
        key: the key of the model's state dict in the files, if it is not a usual one (``state_dict``, ``model``, ...).
        overwrite: whether ``out`` may be there already; it is replaced when the new one is whole. It may never be
            one of the sources.
        allow: further classes and functions that the safe loader may use.
        clock: for the time in the manifest.
        advance: called with the bytes of each record that was read: in all about those of the models in the sources.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        ConfigurationError: for a wrong argument; if ``out`` is there; if the checkpoints do not have the same tensors
            in the same shapes, naming the first that differs.
        LoadError: as ``load``, of a source.
        SaveError: if the result cannot be written; nothing has changed then.

    """
    names = [os.fspath(path) for path in paths]
    target = os.fspath(out)
    use_options(storage_options, *names, target)
    shares = _shares(names, weights, ema)
    wanted = _type(dtype)
    gate = _gate(target, names, overwrite=overwrite)
    gate()
    with ExitStack() as stack:
        looks = [stack.enter_context(peek(name, allow=allow, advance=advance)) for name in names]
        order = _oldest_first(looks)
        looks = [looks[place] for place in order]
        if ema is None:
            shares = [shares[place] for place in order]
        averaging, state = _compared(looks, shares, key)
        if wanted is not None:
            averaging = _recast(averaging, state, model_key(looks[-1].state, looks[-1].path, key), wanted)
        root, name = split_path(target)
        facts = _facts(looks[-1], looks, shares, ema, clock or SystemClock())
        averaging.write(open_store(root), name, state, facts, gate)
    targets = tuple(averaging.targets)
    taken = tuple(name for name in averaging.base.tensors if name not in averaging.targets)
    return Averaged(target, tuple(look.path for look in looks), tuple(shares), targets, taken, facts.step)


def _compared(looks: Sequence[Peek], shares: Sequence[float], key: str | None) -> tuple[Averaging, Any]:
    """Return what is to be averaged, found alike in all the checkpoints, and the state to which it goes.

    Raises:
        ConfigurationError: if one of them has other tensors, or others' shapes, than the newest.

    """
    sources = [
        Source(look, share, model_of(look.state, model_key(look.state, look.path, key)))
        for look, share in zip(looks, shares, strict=True)
    ]
    newest = sources[-1]
    targets = {name: item for name, item in newest.tensors.items() if averages(item) and has_values(item)}
    for source in sources[:-1]:
        check_alike(newest, source, targets)
    state = without_training(newest.look.state, model_key(newest.look.state, newest.look.path, key))
    return Averaging(newest, sources, targets), state


def _shares(names: Sequence[str], weights: Sequence[float] | None, ema: float | None) -> list[float]:
    """Return how much each counts: by weights in the order given, by decay from the oldest to the newest."""
    if not names:
        raise ConfigurationError("there is nothing to average: pass at least one checkpoint")
    if weights is not None and ema is not None:
        msg = f"`weights`={weights!r} and `ema`={ema!r} are two ways of weighing: pass one of them"
        raise ConfigurationError(msg)
    if ema is not None:
        if not 0 <= ema < 1:
            msg = f"`ema` must be at least 0 and below 1, but got {ema!r}"
            raise ConfigurationError(msg)
        count = len(names) - 1
        return [ema**count, *((1 - ema) * ema ** (count - place) for place in range(1, count + 1))]
    given = [1.0] * len(names) if weights is None else [float(weight) for weight in weights]
    if len(given) != len(names):
        msg = f"`weights` must be one for each of the {len(names)} checkpoints, but got {len(given)}: {given}"
        raise ConfigurationError(msg)
    total = sum(given)
    if not (math.isfinite(total) and total > 0 and min(given) >= 0):
        msg = f"`weights` must be finite, none below 0 and not all 0, but got {given}"
        raise ConfigurationError(msg)
    return [weight / total for weight in given]


def _type(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None:
        return None
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point or not has_values(torch.empty(0, dtype=found)):
        msg = f"`dtype` must be a type of real numbers, such as 'float32' or 'bfloat16', but got {dtype!r}"
        raise ConfigurationError(msg)
    return found


def _gate(out: str, sources: Sequence[str], *, overwrite: bool) -> Callable[[], None]:
    """Return what refuses to write over a file; it is asked at the beginning, and again before the commit."""
    root, name = split_path(out)
    store = open_store(root)

    def check() -> None:
        if any(same_file(out, source) for source in sources):
            msg = f"`out` is one of the checkpoints to average, {out}: choose another name"
            raise ConfigurationError(printable(msg))
        if not overwrite and store.exists(name):
            msg = f"there is a file {out} already: choose another name, or pass overwrite=True (--force) to replace it"
            raise ConfigurationError(printable(msg))

    if not name:
        msg = f"`out` must be the path of a file, but got {out!r}"
        raise ConfigurationError(msg)
    return check


def _oldest_first(looks: Sequence[Peek]) -> list[int]:
    steps = [_position(look) for look in looks]
    known = [step for step in steps if step is not None]
    if len(known) < len(steps):
        return list(range(len(looks)))
    return sorted(range(len(looks)), key=lambda place: known[place])


def _position(look: Peek) -> tuple[int, int] | None:
    """Return the step, and the number of the save at that step; None if the file does not tell."""
    if look.manifest is not None:
        return look.manifest.facts.step, look.manifest.facts.sequence
    step = look.state.get("global_step") if isinstance(look.state, Mapping) else None
    return (step, 0) if isinstance(step, int) else None


def _recast(averaging: Averaging, state: Any, key: str, dtype: torch.dtype) -> Averaging:
    """Put tensors of another type in the places of the base's in the state: views of new storages, tied as before."""
    model = state[key] if key else state
    targets = dict(averaging.targets)
    real = {name: tensor for name, tensor in targets.items() if not tensor.is_complex() and tensor.dtype != dtype}
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in real.values() if tensor.numel()}
    width = torch.empty(0, dtype=dtype).element_size()
    sizes = {
        address: tensor.untyped_storage().nbytes() // tensor.element_size() * width
        for address, tensor in storages.items()
    }
    room = Room(sum(map(Room.size_of, sizes.values())))
    made = {address: room.take(size) for address, size in sizes.items()}
    for name, tensor in real.items():
        storage = made.get(tensor.untyped_storage().data_ptr())
        new = torch.empty(tensor.shape, dtype=dtype)
        if storage is not None:
            new = torch.empty(0, dtype=dtype).set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
        targets[name] = model[name] = new
    return replace(averaging, targets=targets, room=room)


def _facts(newest: Peek, sources: Sequence[Peek], shares: Sequence[float], ema: float | None, clock: Clock) -> Facts:
    names = [os.path.basename(look.path) for look in sources]
    told = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    how = "the average of " if ema is None else f"the moving average (decay {ema:g}) of "
    if ema is None and len(set(shares)) > 1:
        how = "the weighted average of "
    known = newest.manifest.facts if newest.manifest is not None else Facts()
    state = newest.state if isinstance(newest.state, Mapping) else {}
    position = _position(newest)
    epoch = state.get("epoch")
    return Facts(
        step=0 if position is None else position[0],
        epoch=known.epoch if newest.manifest is not None or not isinstance(epoch, int) else epoch,
        time=clock.now().isoformat(timespec="milliseconds"),
        reason=how + told,
        kind="lightning" if newest.manifest is None and LIGHTNING in state else known.kind,
        weights_only=True,
        sources=tuple(_lineage(look) for look in sources),
        git_commit=known.git_commit,
        versions=versions(),
    )


def _lineage(look: Peek) -> Lineage:
    position = _position(look)
    run = None if look.manifest is None else look.manifest.facts.run or None
    return Lineage(look.path, None if position is None else position[0], run)
