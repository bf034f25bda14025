"""Saves to an object store, loads from one, mirrors, syncs, a server on this machine: python -m benchmarks.remote.

The limit is the fastest, round by round, of other clients with the same bytes: obstore from memory and to memory,
rclone from a file and to one; they check nothing. Lightning's own way is ``TorchCheckpointIO`` with the URL, through
fsspec. Each sample has a process of its own: its peak is what it takes beside what the process had before.
``HOLDFAST_BENCH_S3=http://127.0.0.1:9002`` measures another server than rclone's, with the same keys.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec.config

from benchmarks import measure, report
from benchmarks.options import Options, parse
from benchmarks.remote_mirror import EVERY, SYNCS, TRAININGS, clean
from benchmarks.remote_ways import KEY, SECRET, WAYS, Place, rclone
from benchmarks.report import Column, Rows
from benchmarks.states import LARGE, SMALL, Size

COLUMNS = (
    Column("stall", "training waits ms", 1, 1e3, quartiles=True),
    Column("total", "until it is there ms", 1, 1e3, quartiles=True),
    Column("of_limit", "x limit", 2, quartiles=True),
    Column("cpu", "processor s", 2),
    Column("peak", "memory beside MB", 0, 1e-6),
)
STEPS = (
    Column("step", "a step ms", 1, 1e3, quartiles=True),
    Column("of_none", "x no saves", 2, quartiles=True),
    Column("stall", "waits for a save ms", 1, 1e3),
    Column("there", "behind the last step ms", 0, 1e3),
)
BOTH = {**WAYS, **SYNCS}


def main(options: Options) -> None:
    """Measure both sizes, or the small one."""
    sizes = [SMALL] if options.quick else [SMALL, LARGE]
    groups: dict[str, Any] = {}
    with measure.workplace(options.folder) as folder, _server(folder) as endpoint:
        place = Place(endpoint, folder)
        for size in sizes:
            for what in ("save", "load", "sync to", "sync from"):
                groups[f"{what}, {size.label}"] = {"rows": _table(what, size, options.rounds, place)}
            groups[f"mirror, {size.label}"] = {"rows": _steps(size, options.rounds, place)}
    report.write(options, "remote", groups, rounds={size.label: options.rounds for size in sizes})


@contextmanager
def _server(folder: str) -> Iterator[str]:
    """Run rclone's S3 server on a folder, or take the one that the environment names."""
    named = os.environ.get("HOLDFAST_BENCH_S3")
    if named:
        _tell_fsspec(Place(named, folder))
        fsspec.filesystem("s3").mkdirs("bucket", exist_ok=True)
        yield named
        return
    data = os.path.join(folder, "served")
    os.makedirs(os.path.join(data, "bucket"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", "--config", os.devnull]
    server = subprocess.Popen([rclone(), *words, data], stdout=-3, stderr=-3)  # noqa: S603 - ours
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _table(what: str, size: Size, rounds: int, place: Place) -> Rows:
    names = [name for name in BOTH if name.startswith(what)]
    samples: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    if what == "load":
        _in_process(sample, "save holdfast", size, place)
        _in_process(sample, "save Lightning", size, place)
    for number in range(rounds):
        for name in measure.turn(names, number):
            samples[name].append(_in_process(sample, name, size, place))
    limits = [[one[1] for one in samples[name]] for name in names if "limit" in name]
    limit = [min(totals) for totals in zip(*limits, strict=True)]
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


def _steps(size: Size, rounds: int, place: Place) -> Rows:
    """Measure what saves, and a mirror, cost the steps of a training."""
    samples: dict[str, list[tuple[float, ...]]] = {name: [] for name in TRAININGS}
    for number in range(rounds):
        for name in measure.turn([*TRAININGS], number):
            samples[name].append(_in_process(training, name, size, place))
    none = [one[0] for one in samples["no saves"]]
    rows: Rows = {}
    for name, found in samples.items():
        step, stall, there = (list(column) for column in zip(*found, strict=True))
        rows[name] = {
            "step": measure.summary(step),
            "of_none": measure.ratios(step, none),
            "stall": measure.summary(stall),
            "there": measure.summary(there),
        }
    report.show(f"mirror, a save every {EVERY} steps, {size.label}, {rounds} rounds", rows, STEPS)
    return rows


def _in_process(work: Any, name: str, size: Size, place: Place) -> tuple[float, ...]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: tuple[float, ...] = pool.apply(work, (name, size, place))
        return found


def training(name: str, size: Size, place: Place) -> tuple[float, ...]:
    """Train in this process; return what ``remote_mirror.steps`` does."""
    _tell_fsspec(place)
    try:
        return TRAININGS[name](size, place)
    finally:
        clean(place)


def _tell_fsspec(place: Place) -> None:
    fsspec.config.conf["s3"] = {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": place.endpoint}}


def sample(name: str, size: Size, place: Place) -> tuple[float, ...]:
    """Do it once in this process; return seconds waited and in all, seconds of processor, bytes of memory beside.

    The processor's seconds, and the memory, are also those of a program that it ran.
    """
    _tell_fsspec(place)
    way = BOTH[name](size, place)
    before = _memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    cpu, start = _cpu(), time.perf_counter()
    rest = way()
    stall = time.perf_counter() - start
    if rest is not None:
        rest()
    total = time.perf_counter() - start
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    used, peak = _cpu() - cpu, max(_memory("VmHWM") - before, children)
    clean(place)
    return stall, total, used, peak


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _memory(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(key))


if __name__ == "__main__":
    main(parse(__doc__))
