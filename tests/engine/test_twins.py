"""Two models of one shape, whose states both live in images: neither is ever written over the other."""

from __future__ import annotations

import torch

import holdfast


def _train(folder, *, save):
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(200, 200), torch.nn.Linear(200, 200))
        models.append((model, torch.optim.AdamW(model.parameters())))
    words = {"every_n_train_steps": 1, "zero_copy": True}
    made = [
        holdfast.Checkpointer(folder / str(number), model=model, optimizer=optimizer, **words)
        for number, (model, optimizer) in enumerate(models)
        if save
    ]
    for step in range(8):
        for number, (model, optimizer) in enumerate(models):
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(torch.randn(4, 200)).square().sum().backward()
            optimizer.step()
            if save:
                made[number].step()
    for one in made:
        one.close()
    return [model.state_dict() for model, _ in models]


def test_twins_do_not_share_their_memory(tmp_path):
    """Two trainings side by side with ``zero_copy`` end bit-identical to such without, and so do their files."""
    plain, saved = _train(tmp_path, save=False), _train(tmp_path, save=True)
    for number, (one, other) in enumerate(zip(plain, saved, strict=True)):
        file = holdfast.load(holdfast.newest(tmp_path / str(number)))["state_dict"]
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert all(torch.equal(one[name], file[name]) for name in one)
