"""What two checkpoints differ in, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TensorOutline:
    """A tensor that one of the two has alone."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Reshaped:
    """A tensor that has not the same shape in both.

    Attributes:
        name: of the tensor.
        dtypes, shapes: in the first and in the second.

    """

    name: str
    dtypes: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class TensorChange:
    """A tensor whose values, or whose type, are not the same in both.

    Attributes:
        name: of the tensor.
        shape: its sizes.
        dtypes: in the first and in the second.
        relative: the norm of the difference, in units of the first one's norm. 0 if only the types differ; infinite if
            the first is all zeros; NaN if one has a NaN where the other has none. None for types that torch
            only stores, of which no more is known than that the bytes differ.
        largest: the largest absolute difference of an element.
        norm: of the first one's finite values.

    """

    name: str
    shape: tuple[int, ...]
    dtypes: tuple[str, str]
    relative: float | None
    largest: float | None
    norm: float | None


@dataclass(frozen=True)
class ValueChange:
    """A value that is no tensor, or a tensor of one number, and that is not the same in both.

    Attributes:
        name: the keys and places on the way to it, such as ``optimizer_states.0.param_groups.0.lr``.
        what: ``"changed"``, ``"added"`` (the second has it alone) or ``"removed"``.
        before, after: plain values; of others the beginning of what they call themselves. None where there is none.

    """

    name: str
    what: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Relation:
    """How two checkpoints are related, as far as their manifests tell.

    Attributes:
        text: the same in words; "" if nothing is known.
        same_run: whether one run saved both; None if that is not known.
        resumed: whether the run of one resumed from the other, or one was computed from the other.
        steps: how many steps the second is ahead of the first; None if that is not known.

    """

    text: str = ""
    same_run: bool | None = None
    resumed: bool = False
    steps: int | None = None


@dataclass(frozen=True)
class Difference:
    """What two checkpoints differ in.

    Attributes:
        a, b: the two, as given.
        relation: how they are related.
        added, removed: tensors that ``b`` has alone, and those that ``a`` has alone.
        reshaped: tensors that have not the same shape in both.
        changed: tensors whose values or types differ: largest relative change first, before them those with NaN.
        equal: how many tensors are the same in both.
        hyperparameters: those that differ.
        values: all other values in the two states that differ: learning rates, counters of steps.
        metrics, versions: what the manifests know, where it differs; the git commit is among the versions.

    """

    a: str
    b: str
    relation: Relation
    added: tuple[TensorOutline, ...]
    removed: tuple[TensorOutline, ...]
    reshaped: tuple[Reshaped, ...]
    changed: tuple[TensorChange, ...]
    equal: int
    hyperparameters: tuple[ValueChange, ...]
    values: tuple[ValueChange, ...]
    metrics: tuple[ValueChange, ...]
    versions: tuple[ValueChange, ...]

    @property
    def same(self) -> bool:
        """Whether both states are the same: all tensors and all values."""
        tensors = self.added or self.removed or self.reshaped or self.changed
        return not (tensors or self.hyperparameters or self.values)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; the keys are stable."""
        return {**asdict(self), "same": self.same}
