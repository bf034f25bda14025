"""A loop with rules for ``torchrun``, whose ranks disagree about the time and the metrics; prints what each knows."""

from __future__ import annotations

import json
import os
import sys
import warnings

import torch
import torch.distributed as dist

from holdfast import Best, Checkpointer, EverySteps, FakeClock, Latest, Newer, OnImprovement

VALUES = (5.0, 4.0, 6.0, 3.0, 7.0, 3.5)


def train(folder: str) -> dict[str, object]:
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


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    answer = train(sys.argv[1])
    sys.stdout.write(f"ANSWER {json.dumps(answer, sort_keys=True)}\n")
    dist.destroy_process_group()
