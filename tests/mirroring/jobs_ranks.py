"""What two ranks do that train with a mirror."""

from __future__ import annotations

import os
import types

import torch
from torch.nn.parallel import DistributedDataParallel

from holdfast import Checkpointer
from holdfast.front import loop_searching
from tests.ranks.jobs_sharded_loop import Trainee

SCORES = [5.0, 2.0, 4.0]


def _be_blind(blind):
    """See nothing of what another rank has fetched, as on another machine."""
    if blind:
        nothing = types.SimpleNamespace(exists=lambda path: False, isdir=os.path.isdir)
        loop_searching.os = types.SimpleNamespace(path=nothing)


def trained(folder, mirror, epochs, blind):
    """Train from wherever there is to go on from; with ``blind`` rank 1 does not see what rank 0 has fetched."""
    rank = torch.distributed.get_rank()
    _be_blind(blind and rank)
    torch.manual_seed(3)
    model = DistributedDataParallel(torch.nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    words = {"monitor": "val_loss", "save_top_k": 2, "save_last": True}
    with Checkpointer(folder, model=model, optimizer=optimizer, mirror=mirror, **words) as ckpt:
        start = ckpt.resume()
        assert (ckpt.mirror is None) == bool(rank or mirror is None)
        for epoch in range(start.epoch, epochs):
            for _ in range(2):
                optimizer.zero_grad()
                model(torch.rand(2, 3)).pow(2).mean().backward()
                optimizer.step()
                ckpt.step()
            ckpt.end_epoch({"val_loss": SCORES[epoch]})
    ranking = {os.path.basename(path): float(score) for path, score in ckpt.best_k_models.items()}
    return start.step, start.tier, ranking, model.module.weight.tolist()


def in_shards(folder, words, stop_at):
    """Train a model that lies in parts on the ranks; at a step the machine is gone, with all on the mirror by then."""
    trainee = Trainee()
    ckpt = trainee.checkpointer(folder, **words)
    trainee.run(ckpt, stop_at=stop_at)
    if ckpt.mirror is not None:
        assert ckpt.mirror.wait(timeout=120)


def on_from_there(folder, words, blind):
    """Go on over a model, generators and positions that are off; tell what from, and what it has come to."""
    _be_blind(blind and torch.distributed.get_rank())
    trainee = Trainee(seed=50)
    trainee.position.at = trainee.shared.at = -1
    with trainee.checkpointer(folder, **words) as ckpt:
        start = ckpt.resume()
        trainee.run(ckpt, start)
    return start.step, start.tier, os.path.basename(start.path), trainee.state()
