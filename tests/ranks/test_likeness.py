"""Fingerprints of states: the same for the same values, others for others."""

from __future__ import annotations

import copy

import pytest
import torch

from holdfast.snapshot import fingerprint, on_host

STATE = {"at": 3, "of": [torch.arange(5), ("x", None)], "large": torch.zeros(1 << 19), "none": torch.empty(0)}


def changed(change):
    state = copy.deepcopy(STATE)
    change(state)
    return state


def test_the_same_values_have_the_same_fingerprint():
    """A copy of a state, and what is sent of it to another rank, have the fingerprint of the state."""
    assert fingerprint(copy.deepcopy(STATE)) == fingerprint(on_host(STATE)) == fingerprint(STATE)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(at=4),
        lambda state: state["of"][0].add_(1),
        lambda state: state["large"][-1].fill_(1),
        lambda state: state.update(large=state["large"].double()),
        lambda state: state.update(none=torch.empty(0, 1)),
        lambda state: state["of"].pop(),
        lambda state: state.pop("at"),
    ],
)
def test_any_difference_shows(change):
    """A value, a tensor's element, dtype or shape, an item more or less: each gives another fingerprint."""
    assert fingerprint(changed(change)) != fingerprint(STATE)


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.complex64, torch.float64, torch.uint8])
def test_tensors_of_every_kind_have_one(dtype):
    """Tensors of each dtype, in a transposed view and of no dimension, tell one value from another."""
    ones = torch.ones(3, 2).to(dtype)
    assert (
        fingerprint(ones.T)
        == fingerprint(ones.T.contiguous())
        != fingerprint((ones - ones).T if dtype != torch.bool else ~ones.T)
    )
    assert fingerprint(torch.tensor(1).to(dtype)) != fingerprint(torch.tensor(0).to(dtype))
