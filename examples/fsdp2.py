"""FSDP2 with checkpoints, on any number of ranks: torchrun --nproc-per-node 2 fsdp2.py."""

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from holdfast import Checkpointer, Latest

STEPS, EPOCHS, BATCH = 20, 5, 12


def batches(epoch):
    """Yield this rank's part of each batch of an epoch: any number of ranks sees the same data."""
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(STEPS):
        yield torch.randn(BATCH, 64, generator=generator).tensor_split(dist.get_world_size())[dist.get_rank()]


dist.init_process_group("gloo")  # "nccl" with GPUs
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))
for layer in model:
    fully_shard(layer)
fully_shard(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

with Checkpointer("runs/fsdp2", model=model, optimizer=optimizer, every_n_train_steps=10, keep=Latest(2)) as ckpt:
    start = ckpt.resume()  # on any number of ranks
    if dist.get_rank() == 0:
        print(start)
    for epoch in range(start.epoch, EPOCHS):
        for batch in start.remaining(batches(epoch), epoch):
            loss = (model(batch) - batch).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ckpt.step()
        ckpt.end_epoch()
if dist.get_rank() == 0:
    print(f"trained {ckpt.global_step} steps")
dist.destroy_process_group()
