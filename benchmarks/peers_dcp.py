"""torch.distributed.checkpoint, configured as its documentation has it for one process.

``thread_count=2``, as many as the machine of the tables has cores; ``sync_files`` is its default. Its
directory is not fsynced, and its rename not ordered: nearly durable. Asynchronous saves are waited for
before the next, as its tutorial does.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

from benchmarks.saver import Saver, Variant, remove
from benchmarks.states import Training

THREADS = 2
warnings.filterwarnings("ignore", "torch.distributed is disabled")


class DcpSave(Saver):
    """``dcp.save``."""

    def save(self) -> None:
        """Save."""
        dcp.save(dcp_state(self.training), storage_writer=self._writer(), no_dist=True)
        self.retire()

    def _writer(self) -> dcp.FileSystemWriter:
        return dcp.FileSystemWriter(self.next_path(), thread_count=THREADS, sync_files=True)


class DcpAsync(DcpSave):
    """``dcp.async_save`` as it comes, but for the number of threads.

    The stager is the one that ``async_save`` itself makes for each save if it is given just a path;
    given a writer, it would use the writer's older, blocking one.
    """

    kind = AsyncCheckpointerType.THREAD

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:
        super().__init__(training, folder, retain=retain)
        self._pending: Future[Any] | None = None
        self._over = threading.Event()
        self._stager = self._make_stager()

    def _make_stager(self) -> DefaultStager | None:
        return None

    def save(self) -> None:
        """Wait for the save before, stage, hand over."""
        self.wait()
        # The stager of one save is closed after it, by this class, as `async_save` closes its own.
        stager = self._stager or DefaultStager(StagingOptions(False, False, False, False))  # noqa: FBT003
        response = dcp.async_save(
            dcp_state(self.training),
            storage_writer=self._writer(),
            async_stager=stager,
            async_checkpointer_type=self.kind,
            no_dist=self.kind is AsyncCheckpointerType.THREAD,
        )
        self._pending = self._take(response)
        self._over.clear()
        self._pending.add_done_callback(lambda _: self._end(stager))

    def _end(self, stager: DefaultStager) -> None:
        """In the thread of the save, after it: close its stager, drop the checkpoint before."""
        if self._stager is None:
            stager.close()
        self.retire()
        self._over.set()

    def _take(self, response: Any) -> Future[Any]:
        return response

    def wait(self) -> None:
        """Wait for the thread or the process."""
        if self._pending is not None:
            self._pending.result()
            self._over.wait()
            self._pending = None

    def close(self) -> None:
        """Give back the staged memory."""
        if self._stager is not None:
            self._stager.close()


class DcpReused(DcpAsync):
    """One stager for all saves: it keeps its memory, pinned where there is a GPU."""

    def _make_stager(self) -> DefaultStager:
        gpu = self.training.device.type == "cuda"
        return DefaultStager(
            StagingOptions(
                use_pinned_memory=gpu, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=gpu
            )
        )


class DcpOverlapped(DcpReused):
    """The same, and the staging itself in a thread; its documentation asks for CUDA, it works without."""

    _staging: Future[Any] | None = None

    def _make_stager(self) -> DefaultStager:
        gpu = self.training.device.type == "cuda"
        return DefaultStager(
            StagingOptions(
                use_pinned_memory=gpu, use_shared_memory=False, use_async_staging=True, use_non_blocking_copy=gpu
            )
        )

    def _take(self, response: Any) -> Future[Any]:
        self._staging = response.staging_completion
        return response.upload_completion

    def fence(self) -> None:
        """Wait until all is staged."""
        if self._staging is not None:
            self._staging.result()
            self._staging = None


class DcpProcess(DcpReused):
    """A process writes what is staged in shared memory. It needs a process group, of this one process."""

    kind = AsyncCheckpointerType.PROCESS

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:
        if not dist.is_initialized():
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
            self._start_process(os.path.join(folder, "first"))
        super().__init__(training, folder, retain=retain)

    def _start_process(self, path: str) -> None:
        """Start it by a save of next to nothing; it logs each of its steps to its standard error."""
        with _silenced():
            saved: Any = dcp.async_save(
                {"nothing": torch.zeros(1)}, checkpoint_id=path, async_checkpointer_type=self.kind
            )
            saved.result()
        remove(path)

    def _make_stager(self) -> DefaultStager:
        gpu = self.training.device.type == "cuda"
        return DefaultStager(
            StagingOptions(
                use_pinned_memory=gpu, use_shared_memory=True, use_async_staging=False, use_non_blocking_copy=gpu
            )
        )


def dcp_state(training: Training) -> dict[str, Any]:
    """Return the state as nested dictionaries, the living tensors in them."""
    return {"model": training.model.state_dict(), "optimizer": training.optimizer.state_dict()}


def dcp_load(training: Training, path: str) -> None:
    """Load into the tensors that are there."""
    state = dcp_state(training)
    with torch.no_grad():
        dcp.load(state, storage_reader=dcp.FileSystemReader(path), no_dist=True)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Let processes that are started here write their standard error nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


DCP_SAVE = Variant("dcp.save", DcpSave, durable="nearly")
DCP_ASYNC = Variant("dcp.async_save, default", DcpAsync, durable="nearly")
DCP_REUSED = Variant("dcp.async_save, reused stager", DcpReused, durable="nearly")
DCP_OVERLAPPED = Variant("dcp.async_save, staged in a thread", DcpOverlapped, overlapped=True, durable="nearly")
DCP_PROCESS = Variant("dcp.async_save, process, shared memory", DcpProcess, durable="nearly")
