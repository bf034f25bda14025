"""Plain loops of several ranks that come apart, for ``test_loop_apart``."""

from __future__ import annotations

import os
import time
import warnings

import pytest
import torch

from holdfast import Checkpointer, verify
from holdfast.errors import HoldfastError, RankError
from holdfast.ranks import ranks_here


def parts():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(checkpointer, model, optimizer, steps, at_step=lambda step: None):
    for step in range(1, steps + 1):
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        at_step(step)
        checkpointer.step()


def whole(folder):
    """The checkpoints of a folder, each verified."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".ckpt"))
    for name in names:
        verify(os.path.join(folder, name))
    return names


def one_fails(folder, who, async_save):
    """One rank's own code fails at step 5; the others go on until they learn of it."""
    ranks = ranks_here()
    model, optimizer = parts()

    def at_step(step):
        if step == 5 and ranks.rank == who:
            msg = "no room on this GPU"
            raise MemoryError(msg)

    begun = time.monotonic()
    try:
        with Checkpointer(
            folder,
            model=model,
            optimizer=optimizer,
            every_n_train_steps=2,
            save_top_k=-1,
            save_on_exception=True,
            async_save=async_save,
        ) as checkpointer:
            train(checkpointer, model, optimizer, 1000, at_step)
    except (MemoryError, RankError) as error:
        rank = getattr(error, "rank", None)
        return type(error).__name__, rank, str(error), time.monotonic() - begun
    return None


def all_fail(folder):
    """Every rank fails at the same step, is saved once, and a second Checkpointer goes on from there."""
    model, optimizer = parts()

    def at_step(step):
        if step == 5:
            msg = "the same bug on every rank"
            raise ValueError(msg)

    saving = Checkpointer(folder, model=model, optimizer=optimizer, every_n_train_steps=3, save_on_exception=True)
    with pytest.raises(ValueError, match="the same bug"), saving as one:
        train(one, model, optimizer, 10, at_step)
    names = whole(folder)
    with Checkpointer(folder, model=model, optimizer=optimizer, every_n_train_steps=3) as again:
        step = again.resume().step
    return names, step


def uneven(folder, longer):
    """One rank has more data than the others: they close while it is at step 100."""
    ranks = ranks_here()
    model, optimizer = parts()
    try:
        with Checkpointer(folder, model=model, optimizer=optimizer, every_n_train_steps=100) as checkpointer:
            train(checkpointer, model, optimizer, 100 if ranks.rank == longer else 99)
    except RankError as error:
        return str(error)
    return None


def uneven_epochs(folder):
    """The ranks have an epoch of different lengths, and do the same at its end."""
    model, optimizer = parts()
    with Checkpointer(folder, model=model, optimizer=optimizer, every_n_epochs=1, save_on_signal=False) as checkpointer:
        train(checkpointer, model, optimizer, 5 + ranks_here().rank)
        checkpointer.end_epoch()
    return whole(folder)


def measuring(folder, values):
    """Each rank has values of its own at the end of each epoch; None: it measures nothing."""
    ranks = ranks_here()
    model, optimizer = parts()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with Checkpointer(
            folder, model=model, optimizer=optimizer, every_n_epochs=1, monitor="loss", save_top_k=2, mode="min"
        ) as checkpointer:
            error = None
            for value in values[ranks.rank]:
                train(checkpointer, model, optimizer, 2)
                try:
                    checkpointer.end_epoch({} if value is None else {"loss": value})
                except HoldfastError as caught:
                    error = type(caught).__name__
        score = checkpointer.best_model_score
    best = None if score is None else float(score)
    return [str(one.message) for one in told if "measured different" in str(one.message)], best, error, whole(folder)
