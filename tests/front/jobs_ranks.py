"""What the ranks of the tests of the plain loop do; each returns what it knows in the end."""

from __future__ import annotations

import errno
import os
import warnings

import torch
import torch.distributed as dist

from holdfast import Best, Checkpointer, EverySteps, FakeClock, HoldfastError, Latest, Newer, OnImprovement, SaveError
from holdfast.storage.local import LocalStore

VALUES = (5.0, 4.0, 6.0, 3.0, 7.0, 3.5)


def with_metrics(folder, differs, words):
    """Train with metrics that differ between the ranks, or that only rank 0 has; tell a failure, if there is one."""
    warnings.simplefilter("ignore")
    try:
        return _with_metrics(folder, differs, words)
    except HoldfastError as error:
        return {"error": type(error).__name__, "message": str(error)}


def _with_metrics(folder, differs, words):
    rank = dist.get_rank()
    torch.manual_seed(rank)  # what only this rank draws must not matter
    model = torch.nn.Linear(2, 1)
    words = {"monitor": "v", "save_top_k": 2, "save_last": True, "filename": "m", "on_error": "raise", **words}
    with Checkpointer(folder, model=model, **words) as ckpt:
        start = ckpt.resume()
        for epoch in range(start.epoch, 3):
            ckpt.step()
            alone = differs == "missing" and rank > 0
            ckpt.end_epoch({} if alone else {"v": epoch + 10.0 * rank})
    return {
        "start": start.epoch,
        "best": os.path.basename(ckpt.best_model_path),
        "scores": {os.path.basename(path): float(score) for path, score in ckpt.best_k_models.items()},
    }


def with_rules(folder):
    """Train with rules, on ranks that disagree about the time and the metrics."""
    warnings.simplefilter("ignore")
    rank = dist.get_rank()
    clock = FakeClock(1e9 * rank)  # to rank 1 all that rank 0 has saved is thirty years old
    model = torch.nn.Linear(2, 1)
    words = {
        "save_when": EverySteps(4) | OnImprovement("v"),
        "keep": Latest(1) | Best(1, "bleu", mode="max") | Newer("1h"),
        "filename": "{step}",
        "auto_insert_metric_name": False,
    }
    with Checkpointer(folder, model=model, clock=clock, on_error="raise", **words) as ckpt:
        start = ckpt.resume()
        for value in VALUES[start.step :]:
            clock.advance(1800 * (1 + rank))
            ckpt.step({"v": value} if rank == 0 else None)  # only rank 0 has measured anything
            if ckpt.global_step == 2:
                ckpt.wait()
                ckpt.add_metrics(os.path.join(folder, "2.ckpt"), {"bleu": 20.0})
        ckpt.wait()
        return {
            "start": start.step,
            "best": os.path.basename(ckpt.best_model_path),
            "scores": sorted(os.path.basename(path) for path in ckpt.best_k_models),
            "kept": [entry.name for entry in ckpt._ledger.entries],
        }


def _opened(folder):
    model = torch.nn.Linear(2, 1)
    return Checkpointer(folder, model=model, every_n_train_steps=1, save_top_k=-1, async_save=False)


def _full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def on_a_failing_disk(folder):
    """Commit three saves, damage the newest so that a resume passes it over; then every save fails on rank 0's disk."""
    warnings.simplefilter("ignore")
    with _opened(folder) as first:
        for _ in range(3):
            first.step()
    if dist.get_rank() == 0:
        os.truncate(os.path.join(folder, "epoch=0-step=3.ckpt"), 100)
    dist.barrier()
    ckpt = _opened(folder)
    start = ckpt.resume()
    LocalStore.put = _full
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
