"""A loop for ``torchrun`` whose disk fails on rank 0: prints how each rank fared, as one JSON line.

First three saves are committed and the newest is damaged, so that a resume passes it over; then every save fails.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings

import torch
import torch.distributed as dist

from holdfast import Checkpointer, SaveError
from holdfast.storage.local import LocalStore


def open_on(folder: str) -> Checkpointer:
    model = torch.nn.Linear(2, 1)
    return Checkpointer(folder, model=model, every_n_train_steps=1, save_top_k=-1, async_save=False)


def fail(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def train(folder: str) -> dict[str, object]:
    with open_on(folder) as first:
        for _ in range(3):
            first.step()
    if dist.get_rank() == 0:
        os.truncate(os.path.join(folder, "epoch=0-step=3.ckpt"), 100)
    dist.barrier()
    ckpt = open_on(folder)
    start = ckpt.resume()
    LocalStore.put = fail  # type: ignore[assignment,method-assign]
    steps, message = 0, ""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        while not message:
            steps += 1
            try:
                ckpt.step()
            except SaveError as error:
                message = str(error)
    return {
        "resumed": start.step,
        "skipped": [[os.path.basename(item.path), os.path.basename(item.aside)] for item in start.skipped],
        "steps": steps,
        "warned": len(said),
        "bound": "failure 3 in a row" in message,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    sys.stdout.write(f"ANSWER {json.dumps(train(sys.argv[1]), sort_keys=True)}\n")
    dist.destroy_process_group()
