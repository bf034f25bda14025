"""The process that has torch loaded, and forks the ranks of :mod:`tests.support.ranks` when it is told to."""

from __future__ import annotations

import atexit
import ctypes
import datetime as dt
import faulthandler
import gc
import importlib
import os
import pickle
import random
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass

import numpy as np
import torch
import torch._dynamo
import torch.distributed as dist
import torch.distributed.checkpoint
import torch.distributed.fsdp

import holdfast
from tests.support.ranks import receive, send

LINGER = 5.0  # seconds that a rank which is done waits for the others before its process ends
PARENT_DEATH = 1  # prctl's PR_SET_PDEATHSIG
CONTEXT = (holdfast, torch._dynamo)  # imported here once for all ranks; an optimizer's first step needs the latter


@dataclass
class Rank:
    """What a forked process is to do; ``run`` is called at the bottom of its stack: an error ends it as any program."""

    order: dict
    rank: int

    def run(self):
        os.environ.clear()
        os.environ.update(self.order["env"][self.rank], HOLDFAST_TEST_RUN=self.order["folder"])
        sys.path[:] = self.order["path"]
        os.chdir(self.order["cwd"])
        module, _, name = self.order["job"].partition(":")
        job = importlib.import_module(module)
        for part in name.split("."):
            job = getattr(job, part)
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - the one that models draw from
        try:
            self._join()
            self._report(job(*pickle.loads(self.order["args"])))  # noqa: S301 - from the test
        except BaseException as error:
            self._report(None, error, traceback.format_exc())
            raise
        self._linger()
        if dist.is_initialized():
            dist.destroy_process_group()
        # What follows would be half a second of taking torch to pieces.
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    def _join(self):
        """Join the default group, by a store in a file or in rank 0."""
        kind, size = self.order["store"], self.order["size"]
        if kind is None:
            return
        store = (
            dist.FileStore(f"{self.order['folder']}/store", size)
            if kind == "file"
            else dist.TCPStore("127.0.0.1", self.order["port"], size, is_master=self.rank == 0, timeout=_seconds(30))
        )
        timeout = _seconds(self.order["group_timeout"])
        dist.init_process_group("gloo", store=store, rank=self.rank, world_size=size, timeout=timeout)

    def _report(self, value, error=None, text=""):
        path = os.path.join(self.order["folder"], f"{self.rank}.result")
        try:
            data = pickle.dumps((value, error, text))
            pickle.loads(data)  # noqa: S301 - our own; an exception may go in and not come out
        except Exception:  # noqa: BLE001 - whatever it is, its text does
            data = pickle.dumps((None, RuntimeError(text or f"the job's value cannot be pickled: {value!r}"), text))
        with open(f"{path}.new", "wb") as file:
            file.write(data)
        os.rename(f"{path}.new", path)

    def _linger(self):
        """Stay until all are done or gone: who is done first must not look dead to the others."""
        deadline = time.monotonic() + LINGER
        names = [os.path.join(self.order["folder"], str(rank)) for rank in range(self.order["size"])]
        while time.monotonic() < deadline:
            if all(os.path.exists(f"{name}.result") or os.path.exists(f"{name}.gone") for name in names):
                return
            time.sleep(0.002)


class Server:
    """Takes orders from the wire, forks, and tells how each child ended."""

    def __init__(self, wire):
        self.wire = wire
        self.children = {}

    def serve(self):
        """Return None when there is no one left to serve, and in each child the rank that it is."""
        self.bell, ring = os.pipe()
        os.set_blocking(ring, False)
        signal.set_wakeup_fd(ring)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([self.wire, self.bell], [], [], 1.0)
            if self.bell in ready:
                os.read(self.bell, 4096)
            self._reap()
            if self.wire not in ready:
                continue
            try:
                order = receive(self.wire)
            except (EOFError, ConnectionError):
                return None
            if isinstance(order, tuple):
                _, pid, number = order
                if pid in self.children:  # not reaped yet: the number is still its own
                    os.kill(pid, number)
                continue
            rank = self._fork(order)
            if rank is not None:
                os.close(ring)
                return rank

    def _reap(self):
        for pid in list(self.children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                with open(f"{self.children.pop(pid)}.gone", "w"):
                    pass
                send(self.wire, ("ended", (pid, os.waitstatus_to_exitcode(status))))

    def _fork(self, order):
        sys.path[:] = order["path"]
        try:
            importlib.import_module(order["job"].partition(":")[0])
        except Exception:  # noqa: BLE001 - told to the test
            send(self.wire, ("answer", traceback.format_exc()))
            return None
        order["port"] = _free_port()
        gc.collect()
        gc.freeze()
        pids = []
        for rank in range(order["size"]):
            pid = os.fork()
            if not pid:
                self._become(order, rank)
                return Rank(order, rank)
            pids.append(pid)
            self.children[pid] = os.path.join(order["folder"], str(rank))
        send(self.wire, ("answer", pids))
        return None

    def _become(self, order, rank):
        """Cut what ties a child to its parent; what it prints goes to a file."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self.wire.close()
        os.close(self.bell)
        output = os.open(os.path.join(order["folder"], f"{rank}.out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        faulthandler.enable()


def _seconds(number):
    return dt.timedelta(seconds=number)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    """Serve until the other end of the wire is closed."""
    torch.set_num_threads(1)
    rank = Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if rank is not None:
        rank.run()


if __name__ == "__main__":
    main()
