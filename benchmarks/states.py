"""The states that are saved: GPT-style models with AdamW, in fp32, on the CPU or on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

State = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """The shape of a model; its state is three times its parameters, of 4 bytes each."""

    label: str
    width: int
    layers: int
    words: int
    context: int


LARGE = Size("1.49 GB", width=768, layers=12, words=50257, context=1024)  # 124 M parameters: GPT-2
SMALL = Size("127 MB", width=384, layers=4, words=8768, context=256)  # 10.6 M parameters
TINY = Size("1 MB", width=64, layers=1, words=512, context=64)  # 87 thousand parameters
HEAD = 64
SEQUENCE = 64


class Block(torch.nn.Module):
    """Attention and a perceptron, each behind a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.attention_norm = torch.nn.LayerNorm(width)
        self.attention_in = torch.nn.Linear(width, 3 * width)
        self.attention_out = torch.nn.Linear(width, width)
        self.norm = torch.nn.LayerNorm(width)
        self.up = torch.nn.Linear(width, 4 * width)
        self.down = torch.nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, time, width) to the same."""
        batch, length, width = x.shape
        parts = self.attention_in(self.attention_norm(x)).view(batch, length, 3, self.heads, HEAD)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.gelu(self.up(self.norm(x))))


class GPT(torch.nn.Module):
    """A language model whose last layer is its embedding."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(size.words, size.width)
        self.places = torch.nn.Embedding(size.context, size.width)
        self.blocks = torch.nn.ModuleList([Block(size.width) for _ in range(size.layers)])
        self.norm = torch.nn.LayerNorm(size.width)
        torch.nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Map (batch, time) of numbers of words to (batch, time, words)."""
        places = torch.arange(words.shape[1], device=words.device)
        x = self.words(words) + self.places(places)
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.words.weight)


class Training:
    """A model, its optimizer with moments that are there from the start, and the work of a step.

    Args:
        size: the shape of the model.
        device: where it lives.
        sequences: the batch.

    """

    def __init__(self, size: Size, device: str = "cpu", sequences: int = 1) -> None:
        self.size = size
        self.device = torch.device(device)
        self.model = GPT(size).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        for parameter in self.model.parameters():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(1.0),
                "exp_avg": torch.randn_like(parameter) * 1e-3,
                "exp_avg_sq": torch.rand_like(parameter) * 1e-3,
            }
        self.set_batch(sequences)

    def set_batch(self, sequences: int) -> None:
        """Work on this many sequences at each step."""
        shape = (sequences, min(SEQUENCE, self.size.context))
        self.batch = torch.randint(self.size.words, shape, device=self.device)

    def forward_backward(self) -> None:
        """Do all of a step but the optimizer's part."""
        scores = self.model(self.batch)
        loss = functional.cross_entropy(scores[:, :-1].flatten(0, 1), self.batch[:, 1:].flatten())
        loss.backward()

    def optimizer_step(self) -> None:
        """Change the parameters and moments."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Do a whole step."""
        self.forward_backward()
        self.optimizer_step()

    def state(self) -> State:
        """Return the state the way Lightning lays it out; the tensors are the living ones."""
        return {
            "epoch": 0,
            "global_step": 1,
            "pytorch-lightning_version": "2.6.6",
            "state_dict": self.model.state_dict(),
            "optimizer_states": [self.optimizer.state_dict()],
        }

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor of the state with a name of its own: what a file of plain tensors holds."""
        for name, tensor in self.model.state_dict().items():
            yield f"model.{name}", tensor
        for number, state in self.optimizer.state_dict()["state"].items():
            for name, tensor in state.items():
                yield f"optimizer.{number}.{name}", tensor

    @property
    def nbytes(self) -> int:
        """Bytes in the state's tensors."""
        return sum(tensor.nbytes for _, tensor in self.tensors())

    def synchronize(self) -> None:
        """Wait until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def calibrate(training: Training, work: Callable[[], None], seconds: float) -> float:
    """Choose the batch with which ``work`` takes about this long; return how long it takes."""

    def timed() -> float:
        times = []
        for _ in range(4):
            start = time.perf_counter()
            work()
            training.synchronize()
            times.append(time.perf_counter() - start)
        training.optimizer.zero_grad()
        return sorted(times[1:])[1]

    training.set_batch(1)
    one = timed()
    training.set_batch(5)
    each = max((timed() - one) / 4, 1e-6)
    training.set_batch(max(1, round(1 + (seconds - one) / each)))
    if len(training.batch) > 1:  # two points are not quite a line: from close by, once more
        training.set_batch(max(1, round(len(training.batch) * seconds / timed())))
    return timed()
