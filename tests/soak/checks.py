"""What must hold after each life, and all that was promised by the lives before it."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field

import holdfast
from holdfast.front.opening import checkpoints
from tests.soak.trainee import TOP, loss_at
from tests.support.bits import digest_of_file

REST = 2  # one file that was being written, and one whose name is gone and whose blocks are not
ENDS = {"kill": -signal.SIGKILL, "strike": -signal.SIGKILL, "term": -signal.SIGTERM, "stop": 0}


@dataclass
class Books:
    """All that has been promised so far.

    Attributes:
        digests: of the weights and the optimizer's state after each step.
        acknowledged: the steps whose saves were acknowledged.
        newest: the step that the next life must resume from.
        problems: what was found wrong, in words.

    """

    digests: dict = field(default_factory=dict)
    acknowledged: set = field(default_factory=set)
    newest: int = 0
    problems: list = field(default_factory=list)

    def enter(self, life):
        """Take down what a life has said, and find what contradicts the lives before it."""
        for item in life.said:
            step = item.get("step", item.get("resumed"))
            if step is not None and self.digests.setdefault(step, item["digest"]) != item["digest"]:
                self.problems.append(f"the weights after step {step} are not those of an earlier life")
        if life.all("resumed") not in ([], [self.newest]):
            self.problems.append(f"resumed from step {life.all('resumed')[0]}, not from the newest, {self.newest}")
        if any(life.all("missed")):
            self.problems.append(f"could not restore {life.all('missed')}")
        self.acknowledged.update(life.all("acknowledged"), life.all("closed"))
        self.problems += [f"the training ended with {error}" for error in life.all("error")]
        expected = ENDS[life.plan.events[-1][1]]
        if life.plan.kind == "hung" or (not life.all("error") and life.code != expected):
            self.problems.append(f"a life of the kind {life.plan.kind!r} ended with {life.code}, not with {expected}")

    def judge(self, report):
        """Compare what was found on the disk with what was promised."""
        self.problems += report["problems"]
        found = {int(step) for step in report["steps"]}
        newest, told = max(found, default=0), max(self.acknowledged, default=0)
        if newest < max(told, self.newest):
            self.problems.append(f"step {max(told, self.newest)} was acknowledged, and the newest is {newest}")
        ranked = sorted(self.acknowledged | found, key=loss_at)[:TOP]
        if not set(ranked) <= found:
            self.problems.append(f"of the {TOP} best of all, {ranked}, only {sorted(set(ranked) & found)} are there")
        self.newest = newest
        self.acknowledged = {*ranked, newest}
        if len(self.digests) > 20_000:  # those long gone are not asked for
            keep = {*found, *sorted(self.digests)[-5000:]}
            self.digests = {step: self.digests[step] for step in keep if step in self.digests}


def look(folder, books, scratch):
    """Load and verify every file of a folder in a process of its own; return what was found."""
    answer = os.path.join(scratch, "found")
    if os.path.exists(answer):
        os.unlink(answer)
    child = os.fork()
    if not child:
        try:
            with open(answer, "w") as file:
                json.dump(_look(folder, books), file)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with open(answer) as file:
        return json.load(file)


def _look(folder, books):
    """Every file that is listed, loaded whole and compared with what the training had at that step."""
    problems, steps = [], set()
    found = checkpoints(folder) if os.path.isdir(folder) else []
    for item in found:
        try:
            holdfast.verify(item.path)
            step, same = item.facts.step, digest_of_file(item.path)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            problems.append(f"{item.name} is listed and cannot be loaded: {error}")
            continue
        steps.add(step)
        if books.digests.get(step) != same:
            problems.append(f"{item.name} does not hold the state that the training had after step {step}")
    names = [name for _, _, files in os.walk(folder) for name in files]
    rest = [name for name in names if name.startswith(".holdfast-")]
    strange = set(names) - set(rest) - {item.name for item in found}
    if strange:
        problems.append(f"there are files that are no checkpoints: {sorted(strange)}")
    if len(rest) > REST:
        problems.append(f"more is left than what was unfinished: {rest}")
    return {"problems": problems, "steps": sorted(steps), "files": len(names), "leftovers": len(rest)}
