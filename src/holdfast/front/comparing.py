"""What two checkpoints differ in, found in memory of about two tensors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from holdfast.engine.measuring import compare, has_values, same_bytes
from holdfast.engine.peeking import Peek, peek
from holdfast.front.difference import Difference, Relation, Reshaped, TensorChange, TensorOutline, ValueChange
from holdfast.front.leaves import named_values, plain_value, same_value
from holdfast.front.tensors import sizes
from holdfast.records import Facts, Lineage
from holdfast.storage import use_options

_HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters", "hparams")


def diff(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    allow: Sequence[Any] = (),
    advance: Callable[[int], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Difference:
    """Compare two checkpoints, in memory of about two tensors of them.

    Records of the same size and CRC-32 are taken to be the same, and are not read. What is read is checked.

    Args:
        a: file or fsspec URL; any file that ``torch.save`` writes will do.
        b: the other one; changes are from ``a`` to ``b``.
        allow: further classes and functions that the safe loader may use.
        advance: called with the bytes of each record that was read: of at most both files' sizes.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        LoadError: as ``load``, of either.

    """
    use_options(storage_options, a, b)
    with peek(a, allow=allow, advance=advance) as one, peek(b, allow=allow, advance=advance) as other:
        return _Comparison(one, other).result()


class _Comparison:
    def __init__(self, one: Peek, other: Peek) -> None:
        self.one = one
        self.other = other
        self.reshaped: list[Reshaped] = []
        self.changed: list[TensorChange] = []
        self.numbers: list[ValueChange] = []
        self.equal = 0

    def result(self) -> Difference:
        ours, theirs = self.one.tensors, self.other.tensors
        for name in sorted(ours.keys() & theirs.keys(), key=lambda name: self.one.place(ours[name])):
            self._compare(name, ours[name], theirs[name])
        values = _changes(dict(named_values(self.one.state)), dict(named_values(self.other.state)))
        hyper = [change for change in values if change.name.split(".", 1)[0] in _HYPERPARAMETERS]
        known = [look.manifest.facts for look in (self.one, self.other) if look.manifest is not None]
        facts = (
            known if len(known) == len("ab") else [Facts(), Facts()]
        )  # where one tells nothing, there is no difference
        return Difference(
            self.one.path,
            self.other.path,
            _relation(self.one, self.other),
            added=tuple(_outline(name, theirs[name]) for name in theirs if name not in ours),
            removed=tuple(_outline(name, ours[name]) for name in ours if name not in theirs),
            reshaped=tuple(self.reshaped),
            changed=tuple(sorted(self.changed, key=_largest_first)),
            equal=self.equal,
            hyperparameters=tuple(hyper),
            values=tuple(sorted((set(values) - set(hyper)) | set(self.numbers), key=lambda change: change.name)),
            metrics=tuple(_changes(facts[0].metrics, facts[1].metrics)),
            versions=tuple(_changes(_versions(facts[0]), _versions(facts[1]))),
        )

    def _compare(self, name: str, one: torch.Tensor, other: torch.Tensor) -> None:
        dtypes = (_dtype(one), _dtype(other))
        if sizes(one) != sizes(other):
            self.reshaped.append(Reshaped(name, dtypes, (sizes(one), sizes(other))))
            return
        if self._is_known_to_be_same(one, other):
            self.equal += 1
            return
        if not (has_values(one) and has_values(other)):
            if one.device.type == other.device.type == "meta" or (
                one.dtype == other.dtype and same_bytes(self.one.values(one), self.other.values(other))
            ):
                self.equal += 1
            else:
                self.changed.append(TensorChange(name, sizes(one), dtypes, None, None, None))
            return
        left, right = _dense(self.one.values(one)), _dense(self.other.values(other))
        change = compare(left, right)
        if change.difference == 0 and one.dtype == other.dtype:
            self.equal += 1
        elif not one.dim() and one.dtype == other.dtype and not one.is_complex():
            self.numbers.append(ValueChange(name, "changed", left.item(), right.item()))
        else:
            self.changed.append(TensorChange(name, sizes(one), dtypes, change.relative, change.largest, change.norm))

    def _is_known_to_be_same(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        digest = self.one.digest(one)
        return digest is not None and digest == self.other.digest(other) and _view(one) == _view(other)


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _view(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.storage_offset(), tensor.stride(), tensor.is_conj(), tensor.is_neg()


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _outline(name: str, tensor: torch.Tensor) -> TensorOutline:
    return TensorOutline(name, _dtype(tensor), sizes(tensor))


def _largest_first(change: TensorChange) -> tuple[int, float, str]:
    relative = change.relative
    if relative is None:
        return (2, 0.0, change.name)
    return (0, 0.0, change.name) if math.isnan(relative) else (1, -relative, change.name)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[ValueChange]:
    found = []
    for name in dict.fromkeys((*before, *after)):
        if name not in after:
            found.append(ValueChange(name, "removed", plain_value(before[name]), None))
        elif name not in before:
            found.append(ValueChange(name, "added", None, plain_value(after[name])))
        elif not same_value(before[name], after[name]):
            found.append(ValueChange(name, "changed", plain_value(before[name]), plain_value(after[name])))
    return found


def _versions(facts: Facts) -> dict[str, str]:
    commit = {} if facts.git_commit is None else {"git commit": facts.git_commit}
    return {**facts.versions, **commit}


def _relation(a: Peek, b: Peek) -> Relation:
    if a.manifest is None or b.manifest is None:
        return Relation()
    one, other = a.manifest.facts, b.manifest.facts
    steps = other.step - one.step
    same = one.run == other.run if one.run and other.run else None
    texts = []
    if same is not None:
        texts.append("two saves of one run" if same else "of two runs")
    ahead = _is_from(other, a.path, one)
    behind = _is_from(one, b.path, other)
    texts += [ahead.format("b", "a")] if ahead else []
    texts += [behind.format("a", "b")] if behind else []
    if (
        not ahead
        and not behind
        and not same
        and one.resumed_from is not None
        and one.resumed_from == other.resumed_from
    ):
        texts.append(f"both runs resumed from {one.resumed_from.path}")
    unit = "step" if abs(steps) == 1 else "steps"
    texts.append(f"{abs(steps)} {unit} {'later' if steps > 0 else 'earlier'}" if steps else "at the same step")
    return Relation(", ".join(texts), same, bool(ahead or behind), steps)


def _is_from(facts: Facts, path: str, other: Facts) -> str:
    """Return how a checkpoint comes from another one, with places for their names; "" if it does not."""
    if any(_is_that(source, path, other) for source in facts.sources):
        return "{} was computed from {}"
    if facts.resumed_from is not None and _is_that(facts.resumed_from, path, other):
        return "the run of {} resumed from {}"
    return ""


def _is_that(lineage: Lineage, path: str, facts: Facts) -> bool:
    """Tell whether a lineage means a checkpoint: by run and step, or, where a run is not known, by name and step."""
    if lineage.step != facts.step:
        return False
    if lineage.run and facts.run:
        return lineage.run == facts.run
    return os.path.basename(lineage.path) == os.path.basename(path)
