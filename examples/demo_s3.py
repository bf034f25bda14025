"""Train to a real S3 server; kill the training, and the server, in mid-upload; lose nothing: ``make demo-s3``.

The server is rclone's, on this machine and for this demo alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import holdfast
from holdfast import Checkpointer

EPOCHS, BATCH, WIDTH = 6, 150, 1500
KEY, SECRET = "demo-access-key", "demo-secret-key"  # of a server that nobody else reaches
PATIENCE = 240.0  # seconds after which what the demo waits for does not come


class Digits:
    """A network that learns the handwritten digits: 28 MB with its optimizer, so that an upload has several parts."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(64, WIDTH), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(WIDTH, WIDTH),
            torch.nn.ReLU(), torch.nn.Linear(WIDTH, 10),
        )  # fmt: skip
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        pixels, labels = load_digits(return_X_y=True)
        self.pixels, self.labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)

    def batches(self, epoch: int) -> list[torch.Tensor]:
        """The first 1500 digits, in an order that the epoch alone decides."""
        return list(torch.randperm(1500, generator=torch.Generator().manual_seed(epoch)).split(BATCH))

    def learn(self, batch: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        cross_entropy(self.model(self.pixels[batch]), self.labels[batch]).backward()
        self.optimizer.step()

    def loss(self) -> float:
        """On the digits that it has not seen."""
        self.model.eval()
        with torch.no_grad():
            found = cross_entropy(self.model(self.pixels[1500:]), self.labels[1500:]).item()
        self.model.train()
        return found

    def digest(self) -> str:
        """A name for the weights, to the bit."""
        data = b"".join(value.numpy().tobytes() for value in self.model.state_dict().values())
        return hashlib.sha256(data).hexdigest()[:16]


def train(place: str, mirror: str | None) -> None:
    """Train to the end, from wherever the place, or its mirror, says; print the weights' name."""
    warnings.showwarning = lambda message, *_, **__: print(f"   | warning: {_short(str(message))}", flush=True)
    warnings.simplefilter("always", UserWarning)
    log = logging.getLogger("holdfast")
    log.setLevel(logging.INFO)
    log.addHandler(_Aborted())
    net = Digits()
    words = {"mirror": mirror, "mirror_bandwidth": "20MB/s"} if mirror else {}
    with Checkpointer(
        place, model=net.model, optimizer=net.optimizer, monitor="val_loss", save_top_k=2, save_last=True, **words
    ) as ckpt:
        start = ckpt.resume()
        print(f"   | starts at step {start.step}, from {start.path or 'scratch'}", flush=True)
        for epoch in range(start.epoch, EPOCHS):
            for batch in start.remaining(net.batches(epoch), epoch):
                net.learn(batch)
                ckpt.step()
            ckpt.end_epoch({"val_loss": net.loss()})
    print(f"   | trained to step {ckpt.global_step}: the weights are {net.digest()}", flush=True)


class _Aborted(logging.Handler):
    """Shows what is said of uploads that died."""

    def emit(self, record: logging.LogRecord) -> None:
        if "upload" in record.getMessage() and record.levelno == logging.INFO:
            print(f"   | {record.getMessage()}", flush=True)


def _short(text: str) -> str:
    return text if len(text) < 400 else f"{text[:400]} ..."


class Server:
    """rclone's S3 server on a folder; ``kill`` is ``kill -9``."""

    def __init__(self, folder: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        os.makedirs(f"{folder}/bucket")
        self.folder = folder
        options = {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{self.port}"}}
        os.environ["FSSPEC_S3"] = json.dumps(options)  # how fsspec is told, in this process and those that it starts
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        beside = Path(sys.executable).with_name("rclone")
        command = [str(beside) if beside.exists() else "rclone", "serve", "s3", "--addr", f"127.0.0.1:{self.port}"]
        command += ["--auth-key", f"{KEY},{SECRET}", "--config", os.devnull, self.folder]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own server
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.02)
        return self.process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


_begun: list[subprocess.Popen[str]] = []


def begin(place: str, mirror: str | None = None) -> subprocess.Popen[str]:
    """Start a training in a process of its own."""
    command = [sys.executable, __file__, place, *([mirror] if mirror else [])]
    _begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))  # noqa: S603 - our own script
    return _begun[-1]


def end(training: subprocess.Popen[str]) -> list[str]:
    """Wait for a training, and print what it said."""
    said = training.communicate(timeout=PATIENCE)[0]
    print(said, end="")
    code = training.returncode
    print(f"   it ended with {code} ({signal.Signals(-code).name if code < 0 else 'no signal'})")
    return said.splitlines()


def amid_an_upload(training: subprocess.Popen[str], url: str, beyond: int) -> str:
    """Return when more than so many steps are committed there, and the next upload is under way: its name."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and training.poll() is None:
        if newest(url) > beyond:
            for name in holdfast.catalog(url).leftovers:
                if "?uploadId=" in name:
                    return name.rpartition("/")[2].partition("?")[0]
        time.sleep(0.02)
    training.kill()
    sys.exit("   no upload was seen under way: the demo did not show what it should")


def newest(url: str) -> int:
    """The newest step that is committed there; 0 for none."""
    try:
        return max((item.step for item in holdfast.catalog(url)), default=0)
    except holdfast.CheckpointNotFoundError:  # nothing is there yet
        return 0


def verify(*places: str) -> bool:
    """Have every byte of all checkpoints compared with what was saved."""
    whole = True
    for place in places:
        results = list(holdfast.verify_all(place))
        for item in results:
            print(f"   {item.path}: {item.problem or 'whole'}")
        whole &= bool(results) and not any(item.problem for item in results)
    return whole


def left(url: str) -> list[str]:
    """What died in upload there, and was not cleared away yet."""
    return [name for name in holdfast.catalog(url).leftovers if "?uploadId=" in name]


def act(title: str, place: str, url: str, server: Server, expected: str) -> bool:
    """Kill the training, then the server, both in mid-upload; go on to the end; compare."""
    mirror = None if place == url else url
    print(f"\n{title}")
    training = begin(place, mirror)
    name = amid_an_upload(training, url, 0)
    training.kill()
    end(training)
    before, died = newest(url), left(url)
    print(f"   killed in the middle of the upload of {name}. Committed in the bucket: step {before}.")
    print(f"   Invisible there: {', '.join(died) or 'nothing'}")
    if mirror:
        print(f"   And the machine is gone: {place} is removed.")
        shutil.rmtree(place)

    print("\n   The same script again; this time the server is killed in the middle of an upload, and started again.")
    training = begin(place, mirror)
    name = amid_an_upload(training, url, before)
    safe = newest(url)
    server.kill()
    time.sleep(1)
    server.start()
    after = newest(url)
    print(f"   the server died in the middle of the upload of {name}; committed before: step {safe}, after: {after}")
    said = end(training)
    print("\n   Is every byte in the bucket as it was saved?")
    whole = verify(*([place] if mirror else []), url)
    same, undone = any(expected in line for line in said), left(url)
    print(f"   the weights are {'' if same else 'NOT '}those of the training that nothing happened to")
    print(f"   uploads that died and are still there: {len(undone)}")
    return all((whole, same, not undone, safe >= before > 0, after >= safe, training.returncode == 0))


def main() -> int:
    """Tell the story, in a folder that is removed also if this is interrupted or told to end."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] - what it tells comes as it happens
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-", ignore_cleanup_errors=True) as folder:
        well = story(folder)
    print("\nNothing that was committed was lost or wrong." if well else "\nThe demo did not show what it should.")
    return 0 if well else 1


def story(folder: str) -> bool:
    """Tell it in a folder; tell whether it went well."""
    net = Digits()
    for epoch in range(EPOCHS):
        for batch in net.batches(epoch):
            net.learn(batch)
    expected = net.digest()
    print(f"A network learns the digits, undisturbed and without checkpoints: its weights are {expected}.")
    server = Server(f"{folder}/server")
    print(f"An S3 server runs on port {server.port}.")
    try:
        url = "s3://bucket/straight"
        well = act(f"1. The same, straight to {url}. It is killed.", url, url, server, expected)
        url = "s3://bucket/mirrored"
        title = f"2. The same, to a folder whose mirror is {url}. It is killed, and its machine vanishes."
        well &= act(title, f"{folder}/run", url, server, expected)
    finally:
        for training in _begun:  # one that an error here has left
            training.kill()
            training.wait()
        server.kill()
    return well


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    else:
        sys.exit(main())
