"""What is killed: copies, and what they are of."""

from __future__ import annotations

import os

import torch

import holdfast
from holdfast.storage import partial
from tests.support.files import content, save


def make_run(folder):
    """A small directory of runs: a last that is a second name, and a file that is no checkpoint."""
    os.makedirs(os.path.join(folder, "deep"))
    save(os.path.join(folder, "a.ckpt"), step=1, sequence=1)
    save(os.path.join(folder, "deep", "b.ckpt"), big_state(), step=2, sequence=2)
    os.link(os.path.join(folder, "a.ckpt"), os.path.join(folder, "last.ckpt"))
    with open(os.path.join(folder, "config.yaml"), "w") as file:
        file.write("lr: 0.1\n")


def big_state():
    """A state of several blocks of a copy."""
    return {"state_dict": {"w": torch.arange(3 << 20, dtype=torch.float32), "v": torch.ones(7)}}


def copy_run(tell, source, target):
    """Copy a directory, by parts however small its files are."""
    del tell
    partial.LARGE = 1 << 20
    holdfast.copy(source, target)


def warm():
    """Import what is imported at the first use."""
    holdfast.copy  # noqa: B018


def tree(folder):
    """Every file below a folder, by its name, with its bytes; without temporaries."""
    found = {}
    for where, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(where, name)
            if not name.endswith(".tmp"):
                found[os.path.relpath(path, folder)] = content(path)
    return found
