"""What a mirror costs the training, and what a sync takes, beside rclone with the same bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable

from benchmarks.remote_ways import Place, Rest, Way, closing, file_of, memory_file, run
from benchmarks.states import Size, Training

STEPS, EVERY = 10, 5


def steps(size: Size, place: Place, *, saves: bool, mirror: bool, beside: bool) -> tuple[float, float, float]:
    """Train for some steps; return seconds of a step, of standing still for a save, and until all is at its place.

    The clock of the steps begins when the saves, and what carries them, are in their stride.

    Args:
        size: of the model.
        place: where.
        saves: to the disk, after every ``EVERY`` steps.
        mirror: carry them to the store.
        beside: have rclone send as many bytes at the same times, for what the server itself takes.

    """
    from holdfast import Checkpointer  # noqa: PLC0415 - in the child

    training = Training(size)
    folder = os.path.join(place.folder, f"steps-{os.getpid()}")
    url = f"s3://bucket/steps-{os.getpid()}" if mirror else None
    command = place.rclone(file_of(size, place), "s3:bucket/beside") if beside else None
    copies: list[subprocess.Popen[bytes]] = []
    still, ended = 0.0, 0.0
    with Checkpointer(
        folder,
        model=training.model,
        optimizer=training.optimizer,
        every_n_train_steps=EVERY if saves else 10**9,
        mirror=url,
        save_top_k=1,
        on_error="raise",
    ) as ckpt:
        for number in range(1, 2 * STEPS + 1):
            if number == STEPS + 1:
                begun, still = time.perf_counter(), 0.0
            training.step()
            start = time.perf_counter()
            ckpt.step()
            still += time.perf_counter() - start
            if command is not None and number % EVERY == 0:
                copies.append(subprocess.Popen(command, stdout=-3, stderr=-3))  # noqa: S603 - ours
        ended = time.perf_counter()
        for copy in copies:
            copy.wait()
    there = time.perf_counter() - ended
    return (ended - begun) / STEPS, still * EVERY / STEPS, there


def _no_saves(size: Size, place: Place) -> tuple[float, float, float]:
    return steps(size, place, saves=False, mirror=False, beside=False)


def _saves(size: Size, place: Place) -> tuple[float, float, float]:
    return steps(size, place, saves=True, mirror=False, beside=False)


def _saves_beside(size: Size, place: Place) -> tuple[float, float, float]:
    return steps(size, place, saves=True, mirror=False, beside=True)


def _mirrored(size: Size, place: Place) -> tuple[float, float, float]:
    return steps(size, place, saves=True, mirror=True, beside=False)


def _source(size: Size, place: Place) -> str:
    """Return a folder with one checkpoint."""
    from holdfast import Checkpointer  # noqa: PLC0415 - in the child

    folder = os.path.join(place.folder, f"source-{size.width}")
    if not os.path.isdir(folder):
        training = Training(size)
        words = {"model": training.model, "optimizer": training.optimizer}
        with Checkpointer(folder, **words, every_n_train_steps=1) as ckpt:
            ckpt.step()
    return folder


def _synced(source: str, target: str, *, anew: bool = True) -> None:
    import holdfast  # noqa: PLC0415 - in the child

    if not holdfast.sync(source, target).copied and anew:
        msg = f"nothing was copied from {source} to {target}"
        raise SystemExit(msg)


def _sync_up(size: Size, place: Place) -> Way:
    source, target = _source(size, place), f"s3://bucket/sync-{os.getpid()}"

    def way() -> Rest:
        _synced(source, target)
        return None

    return way


def _sync_down(size: Size, place: Place) -> Way:
    source, target = f"s3://bucket/down-{size.width}", os.path.join(place.folder, f"down-{os.getpid()}")
    _synced(_source(size, place), source, anew=False)

    def way() -> Rest:
        _synced(source, target)
        return None

    return way


def _copy_up(size: Size, place: Place) -> Way:
    command = place.rclone(file_of(size, place), "s3:bucket/limit-sync")

    def way() -> Rest:
        run(command)
        return None

    return way


def _copy_down(size: Size, place: Place) -> Way:
    run(place.rclone(file_of(size, place), "s3:bucket/limit-down"))
    target = os.path.join(place.folder, f"copy-{os.getpid()}")

    def way() -> Rest:
        run(place.rclone("s3:bucket/limit-down", target))
        return None

    return way


def clean(place: Place) -> None:
    """Close what is open, and remove what this process alone has made, here and at the server."""
    import fsspec  # noqa: PLC0415 - in the child

    closing.close()
    fs, number = fsspec.filesystem("s3", use_listings_cache=False), os.getpid()
    for path in (f"bucket/steps-{number}", f"bucket/sync-{number}"):
        with contextlib.suppress(FileNotFoundError):
            fs.rm(path, recursive=True)
    for path in (memory_file(place), os.path.join(place.folder, f"copy-{number}")):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    for name in ("steps", "down"):
        shutil.rmtree(os.path.join(place.folder, f"{name}-{number}"), ignore_errors=True)


TRAININGS: dict[str, Callable[[Size, Place], tuple[float, float, float]]] = {
    "no saves": _no_saves,
    "saves to the disk": _saves,
    "saves to the disk, rclone copyto beside": _saves_beside,
    "saves to the disk and the mirror": _mirrored,
}
SYNCS: dict[str, Callable[[Size, Place], Way]] = {
    "sync to limit: rclone copyto": _copy_up,
    "sync to holdfast": _sync_up,
    "sync from limit: rclone copyto": _copy_down,
    "sync from holdfast": _sync_down,
}
