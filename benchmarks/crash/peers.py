"""Who is struck, and what is found in a folder afterwards. What runs in a forked process is a function here."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.crash import loops, plain
from benchmarks.crash.content import SMALL, state_at, step_of

Tell = Callable[[Any], None]
SCENARIOS = {"overwritten": 3, "top-k": 4, "last": 3}
KEPT = 2


@dataclass(frozen=True)
class Peer:
    """One saver.

    Attributes:
        run: goes through a scenario.
        load: gives a checkpoint back as its users do.
        needs: the package without which there is no such row.
        suffix: of its files.

    """

    run: Callable[..., None]
    load: Callable[[str], dict[str, Any]]
    needs: str = "torch"
    suffix: str = ".ckpt"


PEERS = {
    **{name: Peer(plain.run, saver.load, suffix=saver.suffix) for name, saver in plain.SAVERS.items()},
    "Lightning ModelCheckpoint": Peer(loops.lightning, loops.load, "lightning"),
    "Lightning ModelCheckpoint, AsyncCheckpointIO": Peer(loops.lightning, loops.load, "lightning"),
    "holdfast Checkpointer": Peer(loops.checkpointer, loops.ours),
    "holdfast ModelCheckpoint, under Lightning": Peer(loops.lightning, loops.ours, "lightning"),
}


def present() -> list[str]:
    """Return those whose package is installed."""
    needs = {name: peer.needs for name, peer in PEERS.items()} | {"safetensors save_file": "safetensors"}
    return [name for name in PEERS if importlib.util.find_spec(needs[name]) is not None]


def warm() -> None:
    """Import what the runs use; what they warn of is not the question here."""
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "safetensors.torch"):
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)


def run(tell: Tell, name: str, scenario: str, folder: str) -> None:
    """Go through a scenario."""
    PEERS[name].run(tell, name, scenario, folder, SCENARIOS[scenario])


def save_small(tell: Tell, name: str, folder: str) -> None:
    """Save one small checkpoint, for the flips; tell where it is."""
    peer = PEERS[name]
    if peer.run is plain.run:
        path = os.path.join(folder, f"small{peer.suffix}")
        os.makedirs(folder)
        wait = plain.SAVERS[name].save(state_at(1, SMALL), path)
        if wait is not None:
            wait()
    else:
        peer.run(lambda _: None, name, "overwritten", folder, 1, size=SMALL)
        path = os.path.join(folder, "model.ckpt")
    tell(path)


def inspect(tell: Tell, name: str, folder: str) -> None:
    """Load everything that has a final name; tell each one's step, or None where it cannot be loaded or is wrong."""
    for item in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if item.endswith(PEERS[name].suffix) and not item.startswith("."):
            path = os.path.join(folder, item)
            tell({"path": path, "step": None})  # if the load should end the process
            try:
                step = step_of(PEERS[name].load(path))
            except BaseException:  # noqa: BLE001 - however it is refused; dcp's error is no Exception
                step = None
            tell({"path": path, "step": step})


def flip(tell: Tell, name: str, path: str, count: int) -> None:
    """Flip one bit at each of so many places, evenly over all files, and load: tell how each load ended."""
    files = [path]
    if os.path.isdir(path):
        files = sorted(os.path.join(where, item) for where, _, items in os.walk(path) for item in items)
    sizes = [os.path.getsize(file) for file in files]
    count = min(count, sum(sizes))
    for number in range(count):
        at = number * sum(sizes) // count
        place = 0
        while at >= sizes[place]:
            at -= sizes[place]
            place += 1
        tell(_flipped(name, path, files[place], at, 1 << number % 8))


def _flipped(name: str, path: str, file: str, at: int, bit: int) -> str:
    with open(file, "r+b") as opened:
        opened.seek(at)
        whole = opened.read(1)
        opened.seek(at)
        opened.write(bytes([whole[0] ^ bit]))
    try:
        return "harmless" if step_of(PEERS[name].load(path)) == 1 else "silent"
    except BaseException:  # noqa: BLE001 - however it is refused; dcp's error is no Exception
        return "refused"
    finally:
        with open(file, "r+b") as opened:
            opened.seek(at)
            opened.write(whole)
