"""A warning names the line of whoever called the library."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch

from holdfast import Checkpointer, newest
from holdfast.telling import warn


def damaged_checkpoint(folder):
    model = torch.nn.Linear(2, 2)
    with Checkpointer(folder, model=model, every_n_train_steps=1) as ckpt:
        ckpt.step()
    path = ckpt.best_model_path
    with open(path, "r+b") as file:
        file.truncate(100)


def test_it_is_the_users_own_line(tmp_path):
    """However deep in the library it arises, a warning is of this file, and so a user's filters find it."""
    damaged_checkpoint(tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        newest(tmp_path)
        Checkpointer(tmp_path, model=torch.nn.Linear(2, 2)).resume()
    assert [item.filename for item in told if "passed over" in str(item.message)] == [__file__] * 2


def test_a_thread_that_is_the_librarys_alone_can_warn():
    """Where no line is the user's, the warning is told all the same."""
    thread = threading.Thread(target=warn, args=("from a thread",))
    with pytest.warns(UserWarning, match="from a thread"):
        _run(thread)


def _run(thread):
    thread.start()
    thread.join()
