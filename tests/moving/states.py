"""States that are hard to move: of Lightning's form, with all that tensors can be."""

from __future__ import annotations

from collections import OrderedDict

import torch


def weights(seed=0):
    """Weights of many dtypes and shapes: tied, empty, scalar, strided and shared ones among them."""
    random = torch.Generator().manual_seed(seed)
    wide = torch.rand(6, 8, generator=random)
    embedding = torch.rand(5, 4, generator=random)
    return OrderedDict(
        {
            "model.embedding.weight": embedding,
            "model.layers.0.weight": wide[:3],
            "model.layers.1.weight": wide[3:],
            "model.layers.2.weight": torch.rand(4, 3, generator=random).T,
            "model.half": torch.rand(7, generator=random).half(),
            "model.brain": torch.rand(7, generator=random).bfloat16(),
            "model.double": torch.rand(3, generator=random).double(),
            "model.count": torch.tensor(3),
            "model.mask": torch.tensor([True, False, True]),
            "model.bytes": torch.arange(5, dtype=torch.uint8),
            "model.empty": torch.empty(0, 3),
            "model.wave": torch.complex(torch.rand(2, generator=random), torch.rand(2, generator=random)),
            "model.eight": torch.rand(4, generator=random).to(torch.float8_e4m3fn),
            "model.nan": torch.tensor([float("nan"), float("inf"), -0.0]),
            "model.head.weight": embedding,
            "loss.weight": torch.rand(2, generator=random),
        }
    )


def lightning_state(seed=0, score=0.25):
    """What Lightning's own ``Trainer.save_checkpoint`` lays out."""
    key = "ModelCheckpoint{'monitor': 'val_acc', 'mode': 'max', 'every_n_train_steps': 0, 'every_n_epochs': 1}"
    return {
        "epoch": 4,
        "global_step": 120,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": weights(seed),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.rand(6, 8)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        "callbacks": {
            key: {
                "monitor": "val_acc",
                "current_score": torch.tensor(score),
                "best_k_models": {"/elsewhere/best.ckpt": torch.tensor(0.75)},
            }
        },
    }


def bits(tensor):
    """The bytes of a tensor's elements in order."""
    plain = tensor.detach().contiguous().clone().reshape(-1)
    return bytes(plain.view(torch.uint8).numpy()) if plain.numel() else b""


def same(left, right):
    """Whether two tensors are of one dtype and shape, and equal bit by bit."""
    return left.dtype == right.dtype and left.shape == right.shape and bits(left) == bits(right)
