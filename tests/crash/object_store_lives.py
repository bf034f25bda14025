"""One life of a training to an object store: begun, struck by a plan at one of its requests, ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import time
import traceback
from dataclasses import dataclass, field

from tests.crash.object_store_training import LETTERS, LOOK, train

LIMIT = 150  # seconds after which a life is taken to hang
CHANGES = "".join(LETTERS.values())
LATE = LETTERS["part"] + LETTERS["complete"]  # in the midst of a large upload
KILLS = ("trainer", "both", "server, then trainer", "trainer while the server is away", "machine")
STOPS = ("server", "server before the start", "disk")  # the life goes on, and is then asked to end
PATIENT = 40.0


@dataclass(frozen=True)
class Plan:
    """What is killed, and when.

    Attributes:
        kind: what: one of ``KILLS`` or ``STOPS``; "" for nothing.
        at: the number of the request at which it happens.
        counted: the letters of the requests that are counted.
        delay: seconds behind that request.
        down: seconds that the server is away.
        later: seconds between two kills.
        patience: seconds for which the training tries a request again.

    """

    kind: str = ""
    at: int = 1
    counted: str = CHANGES
    delay: float = 0.0
    down: float = 0.0
    later: float = 0.0
    patience: float = PATIENT

    @property
    def ends(self):
        """The exit code that is to be expected."""
        return -signal.SIGKILL if self.kind in KILLS else 0


def draw(dice, *, large, mirrored, disk):
    """Draw a plan: in the resume, in a save, or between; for a moment or for seconds."""
    kinds = {"trainer": 6, "server": 4, "both": 4, "server, then trainer": 2, "trainer while the server is away": 2}
    kinds |= {"server before the start": 1} | ({"machine": 4} if mirrored else {}) | ({"disk": 2} if disk else {})
    kind = dice.choices([*kinds], [*kinds.values()])[0]
    counted = dice.choice((CHANGES, CHANGES, CHANGES + LOOK, LATE if large else CHANGES))
    return Plan(
        kind,
        at=dice.randint(1, 50 if LOOK in counted else 10 if counted == LATE else 30),
        counted=counted,
        delay=dice.choice((0.0, dice.uniform(0, 0.004), dice.uniform(0, 0.04))),
        down=dice.choice((0.0, dice.uniform(0, 0.5), dice.uniform(0, 2.0))),
        later=dice.choice((0.0, dice.uniform(0, 0.02), dice.uniform(0, 1.0))),
        patience=dice.choice((0.0, PATIENT, PATIENT)),
    )


@dataclass
class Life:
    """How it went.

    Attributes:
        plan: what was to happen.
        code: its exit code, or minus the signal's number; None if it hung and was ended.
        struck: the letter of the request that it was struck at; "" if it ended before that.
        said: what it told, in order.

    """

    plan: Plan
    code: int | None = 0
    struck: str = ""
    said: list = field(default_factory=list)

    def all(self, key):
        """Every value that it told under this word."""
        return [item[key] for item in self.said if key in item]


def live(plan, order, server):
    """Carry a plan out on a training that an order describes: see ``object_store_training.train``."""
    if os.path.exists(order["said"]):
        os.unlink(order["said"])
    life = Life(plan)
    if plan.kind == "server before the start":
        server.kill()
    child, heard, key = _begin(order)
    try:
        if plan.kind == "server before the start":
            life.struck = LOOK
            time.sleep(plan.down)
            server.start()
        elif plan.kind:
            life.struck = _hear(heard, plan)
        if life.struck:
            time.sleep(plan.delay)
            _strike(plan, child, server, order)
        if plan.kind in STOPS:
            _until_it_goes_on(child, order)
        if plan.kind:
            with contextlib.suppress(BrokenPipeError):  # it has ended
                os.write(key, b"x")
        life.code = _end(child)
    finally:
        os.close(heard)
        os.close(key)
    if plan.kind == "machine" and life.code == -signal.SIGKILL:
        shutil.rmtree(order["place"], ignore_errors=True)
    life.said = told(order["said"])
    return life


def told(path):
    """Return what a life has said so far."""
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def _begin(order):
    gate, key = os.pipe()
    heard, announce = os.pipe()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.close(key)
            os.close(heard)
            code = train(order, announce, gate)
        except BaseException:  # noqa: BLE001 - it is told
            with open(order["said"], "a") as said:
                said.write(json.dumps({"raised": traceback.format_exc()}) + "\n")
        finally:
            os._exit(code)
    os.close(gate)
    os.close(announce)
    return child, heard, key


def _hear(heard, plan):
    """Return the letter of the request that the plan names as soon as it is announced; "" if there is none."""
    left, until = plan.at, time.monotonic() + LIMIT
    while time.monotonic() < until:
        if not select.select([heard], [], [], 1.0)[0]:
            continue
        letter = os.read(heard, 1).decode()
        if not letter:
            break
        left -= letter in plan.counted
        if not left:
            return letter
    return ""


def _strike(plan, child, server, order):
    """Kill what the plan says, and start the server again."""
    if plan.kind in ("trainer", "machine"):
        os.kill(child, signal.SIGKILL)
    elif plan.kind == "disk":
        server.kill_disk()
        time.sleep(plan.down)
        server.start_disk()
    elif plan.kind != "server before the start":
        if plan.kind == "both" and plan.at % 2:
            os.kill(child, signal.SIGKILL)
            time.sleep(plan.later / 20)
        server.kill()
        if plan.kind == "both" and not plan.at % 2:
            time.sleep(plan.later / 20)
            os.kill(child, signal.SIGKILL)
        if plan.kind == "trainer while the server is away":
            time.sleep(plan.later)
            os.kill(child, signal.SIGKILL)
        time.sleep(plan.down)
        server.start()
        if plan.kind == "server, then trainer":
            time.sleep(plan.later)
            os.kill(child, signal.SIGKILL)


def _until_it_goes_on(child, order, patience=60):
    """Wait until two more saves were acknowledged, on the mirror if there is one; or the life has ended."""
    word = "mirrored" if order["words"].get("mirror") else "acknowledged"
    have = lambda: sum(word in item for item in told(order["said"]))  # noqa: E731 - a number that is asked for twice
    before, until = have(), time.monotonic() + patience
    while have() < before + 2 and time.monotonic() < until and not _ended(child):
        time.sleep(0.05)


def _ended(child):
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(child):
    """Return the exit code; None of a child that hung."""
    until = time.monotonic() + LIMIT
    while not _ended(child):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
