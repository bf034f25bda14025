"""Ways of saving a state of which each rank has a part: the bare disk, holdfast, torch.distributed.checkpoint.

Every method is called on every rank. ``dcp.save`` and ``dcp.async_save`` are there as they come (one thread,
a fresh copy for each save) and with all that their documentation offers: two threads, plans that are kept, a
stager that keeps its memory. Their directory is not fsynced, their ``.metadata`` fsynced while it is empty.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from benchmarks.limits import Buffer, write
from benchmarks.states import GPT, Size
from holdfast.engine import Order, ShardedSaver
from holdfast.ranks import ranks_here
from holdfast.records import Facts
from holdfast.storage import open_store

THREADS = 2


class Sharded:
    """This rank's part of a model under FSDP2, and of its optimizer with moments that are there from the start."""

    def __init__(self, size: Size, device: str = "cpu") -> None:
        torch.manual_seed(0)
        mesh = init_device_mesh(device, (dist.get_world_size(),))
        model = GPT(size).to(device)
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        self.model = fully_shard(model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        for parameter in self.model.parameters():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(1.0),
                "exp_avg": torch.randn_like(parameter) * 1e-3,
                "exp_avg_sq": torch.rand_like(parameter) * 1e-3,
            }

    def state(self) -> dict[str, Any]:
        """Return the living tensors, nested."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    @property
    def nbytes(self) -> int:
        """Bytes of this rank's part."""
        tensors = [*self.model.state_dict().values()]
        tensors += [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(value.to_local().nbytes if isinstance(value, DTensor) else value.nbytes for value in tensors)


class Way:
    """One way of saving; ``folder`` is the same on every rank."""

    def __init__(self, training: Sharded, folder: str) -> None:
        self.training = training
        self.folder = folder
        self.number = 0

    def next_path(self) -> str:
        self.number += 1
        return os.path.join(self.folder, f"{self.number}.ckpt")

    def save(self) -> None:
        """Save; on return, training may go on."""
        raise NotImplementedError

    def wait(self) -> None:
        """Wait until it is complete, as far as this rank knows."""

    def close(self) -> None:
        """Give back what is held."""


class Bare(Way):
    """Each rank writes as many warm bytes as its part has, directly, and makes them durable: the disk's limit."""

    def __init__(self, training: Sharded, folder: str) -> None:
        super().__init__(training, folder)
        self._buffer = Buffer(training.nbytes)

    def save(self) -> None:
        path = self.next_path()
        os.makedirs(path, exist_ok=True)
        write(self._buffer, os.path.join(path, f"__{dist.get_rank()}_0.distcp"))

    def close(self) -> None:
        self._buffer.close()


class Holdfast(Way):
    """``holdfast``: as ``Checkpointer`` saves a sharded state, its deciding left out."""

    def __init__(self, training: Sharded, folder: str) -> None:
        super().__init__(training, folder)
        self._saver = ShardedSaver(ranks_here())
        self._flight: Any = None

    def save(self) -> None:
        name = os.path.basename(self.next_path())
        order = Order(open_store(self.folder), name, self.training.state(), Facts(step=self.number))
        self._flight = self._saver.submit(order)

    def wait(self) -> None:
        self._flight.wait()
        if self._flight.error is not None:
            raise self._flight.error

    def close(self) -> None:
        self._saver.close()


class Dcp(Way):
    """``dcp.save`` as it comes."""

    threads = 1
    cached = False

    def save(self) -> None:
        dcp.save(self.training.state(), **self._words())

    def _words(self) -> dict[str, Any]:
        writer = dcp.FileSystemWriter(self.next_path(), thread_count=self.threads)
        return {"storage_writer": writer, "planner": dcp.DefaultSavePlanner(enable_plan_caching=self.cached)}


class DcpBest(Dcp):
    """``dcp.save`` with two threads and plans that are kept."""

    threads = THREADS
    cached = True


class DcpAsync(Dcp):
    """``dcp.async_save`` as it comes, on a process group of its own; a save waits for the one before."""

    def __init__(self, training: Sharded, folder: str) -> None:
        super().__init__(training, folder)
        self._group = dist.new_group(backend="gloo")
        self._pending: Future[Any] | None = None

    def save(self) -> None:
        words = {**self._words(), "process_group": self._group, **self._staging()}
        self._pending = self._taken(dcp.async_save(self.training.state(), **words))

    def _staging(self) -> dict[str, Any]:
        # What `async_save` itself makes if it is given just a path; given a writer, it would stage by the writer.
        self._stager = DefaultStager(StagingOptions(False, False, False, False))  # noqa: FBT003
        return {"async_stager": self._stager}

    def _taken(self, response: Any) -> Future[Any]:
        taken: Future[Any] = response if isinstance(response, Future) else response.upload_completion
        return taken

    def wait(self) -> None:
        assert self._pending is not None  # noqa: S101 - after a save
        self._pending.result()
        self._end()

    def _end(self) -> None:
        self._stager.close()


class DcpAsyncBest(DcpAsync):
    """``dcp.async_save`` with two threads, kept plans, and a stager that keeps its memory (pinned on a GPU)."""

    threads = THREADS
    cached = True

    def __init__(self, training: Sharded, folder: str) -> None:
        super().__init__(training, folder)
        gpu = next(training.model.parameters()).device.type == "cuda"
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=gpu, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=gpu
            )
        )

    def _staging(self) -> dict[str, Any]:
        return {"async_stager": self._stager}

    def _end(self) -> None:
        """Keep it."""

    def close(self) -> None:
        self._stager.close()


LIMIT = "limit: O_DIRECT, every rank"
WAYS: dict[str, tuple[type[Way], str]] = {
    LIMIT: (Bare, "yes"),
    "holdfast": (Holdfast, "yes"),
    "dcp.save": (Dcp, "nearly"),
    "dcp.save, 2 threads, kept plans": (DcpBest, "nearly"),
    "dcp.async_save": (DcpAsync, "nearly"),
    "dcp.async_save, 2 threads, kept plans and memory": (DcpAsyncBest, "nearly"),
}
