"""A plain loop for ``torchrun`` that goes on until a signal ends it; says at which steps it began and is."""

from __future__ import annotations

import os
import signal
import sys
import time

import torch
import torch.distributed as dist

from holdfast import Checkpointer


def main(folder: str, said: str, steps: str) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = torch.nn.Linear(4, 4)
    with Checkpointer(folder, model=model, every_n_train_steps=10**6, grace_period=20) as ckpt:
        start = ckpt.resume()
        ckpt.step()
        with open(os.path.join(said, f"{rank}.{start.step}"), "w") as file:
            file.write(str(os.getpid()))
        while ckpt.global_step < start.step + int(steps):
            time.sleep(0.002)
            dist.all_reduce(torch.ones(1))
            ckpt.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    main(*sys.argv[1:])
