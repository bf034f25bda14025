"""One life of the training: begun, disturbed by a plan, ended, and what it had said by then."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, field

from tests.soak.trainee import train
from tests.soak.watch import sample

PATIENCE = 90  # seconds over the plan after which a life that does not end is taken to hang
LOOK = 0.25


@dataclass(frozen=True)
class Plan:
    """What happens, at how many seconds of its life: ``fill, empty, kill, strike, term, stop``."""

    kind: str
    events: tuple


@dataclass
class Life:
    """How it went.

    Attributes:
        plan: what was to happen.
        code: its exit code, or minus the signal's number.
        said: what it told, in order.
        samples: what it held.
        seconds: how long it lived.

    """

    plan: Plan
    code: int = 0
    said: list = field(default_factory=list)
    samples: list = field(default_factory=list)
    seconds: float = 0.0

    def all(self, key):
        """Every value it told under this word."""
        return [item[key] for item in self.said if key in item]


def draw(dice, number, every, long):
    """The plan of a life: most are killed after seconds, some with a full disk; some live long and end well."""
    if number % 20 == 10:
        return Plan("long", ((long, "stop"),))
    at = dice.uniform(0.05, 9 * every)
    kind = dice.choices(["kill", "save", "term", "full", "full and kill", "full before"], [6, 8, 2, 2, 2, 1])[0]
    spell = dice.uniform(1.2 * every, 4 * every)
    full = dice.uniform(0.1, 2 * every)
    plans = {
        "kill": ((at, "kill"),),
        "save": ((at, "strike"),),
        "term": ((at, "term"),),
        "full": ((full, "fill"), (full + spell, "empty"), (full + spell + dice.uniform(every, 4 * every), "kill")),
        "full and kill": ((full, "fill"), (full + spell, "kill")),
        "full before": ((0.0, "fill"), (spell, "empty"), (spell + at, "kill")),
    }
    return Plan(kind, plans[kind])


def live(plan, folder, disk, scratch, *, every, leave):
    """Carry a plan out."""
    words = os.path.join(scratch, "said")
    if os.path.exists(words):
        os.unlink(words)
    acts = {"fill": lambda _: disk.fill(leave), "empty": lambda _: disk.empty()}
    acts |= {"kill": lambda pid: os.kill(pid, signal.SIGKILL), "term": lambda pid: os.kill(pid, signal.SIGTERM)}
    acts["strike"] = lambda pid: _strike(pid, folder, 4 * every)
    while plan.events and plan.events[0][0] == 0.0:
        acts[plan.events[0][1]](0)
        plan = Plan(plan.kind, plan.events[1:])
    gate, key = os.pipe()
    child = os.fork()
    if not child:
        os.close(key)
        _child(folder, words, gate, every)
    os.close(gate)
    acts["stop"] = lambda _: os.write(key, b"x")
    life = Life(plan)
    life.code = _see_to_its_end(child, life, acts)
    os.close(key)
    life.said = _read(words)
    return life


def _child(folder, words, gate, every):
    """Be the training, and leave no way back into the parent's code."""
    code = 70
    try:
        said = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.set_blocking(gate, False)
        train(folder, lambda value: os.write(said, json.dumps(value).encode() + b"\n"), lambda: _readable(gate), every)
        code = 0
    except BaseException as error:  # noqa: BLE001 - it is told
        os.write(said, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
    finally:
        os._exit(code)


def _strike(child, folder, patience):
    """Kill it as soon as it has an unfinished file; after some seconds in any case."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if os.path.isdir(folder) and any(name.startswith(".holdfast-") for name in os.listdir(folder)):
            break
        time.sleep(0.0003)
    os.kill(child, signal.SIGKILL)


def _readable(gate):
    try:
        return bool(os.read(gate, 1))
    except BlockingIOError:
        return False


def _see_to_its_end(child, life, acts):
    born = time.monotonic()
    events = list(life.plan.events)
    limit = events[-1][0] + PATIENCE
    looked = 0.0
    while True:
        age = time.monotonic() - born
        life.seconds = age
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if age > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            life.plan = Plan("hung", life.plan.events)
            return -signal.SIGKILL
        while events and events[0][0] <= age:
            acts[events.pop(0)[1]](child)
        if age - looked >= LOOK:
            looked, seen = age, sample(child, age)
            life.samples += [seen] if seen else []
        time.sleep(0.005)


def _read(path):
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file if line.endswith("\n")]
