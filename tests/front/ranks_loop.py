"""A plain loop for ``torchrun``: prints what each rank knows in the end, as one JSON line."""

from __future__ import annotations

import json
import os
import sys
import warnings

import torch
import torch.distributed as dist

from holdfast import Checkpointer, HoldfastError


def train(folder: str, differs: str) -> dict[str, object]:
    rank = dist.get_rank()
    torch.manual_seed(rank)  # what only this rank draws must not matter
    model = torch.nn.Linear(2, 1)
    with Checkpointer(
        folder, model=model, monitor="v", save_top_k=2, save_last=True, filename="m", on_error="raise"
    ) as ckpt:
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


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    try:
        answer = train(*sys.argv[1:])
    except HoldfastError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    sys.stdout.write(f"ANSWER {json.dumps(answer, sort_keys=True)}\n")
    dist.destroy_process_group()
