"""What must hold of a folder after any fault: judged from the files, and from what the run had said."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

import holdfast
from holdfast.front.opening import checkpoints
from holdfast.storage import open_store
from tests.crash.harness import DEPTH, contents, leftovers
from tests.crash.scenarios import SCENARIOS
from tests.support.bits import digest_of_file

TRAIN, PREPARE = "tests.crash.scenarios:train", "tests.crash.scenarios:prepare"


@dataclass(frozen=True)
class Expected:
    """What a scenario is when nothing happens.

    Attributes:
        start: a folder as the scenario finds it; to be copied.
        before: the step and the bytes' digest of each file in it, by name.
        digests: of the state after each step.
        final: the steps of the files at the end, by name.
        points: every system call on the folder.

    """

    start: str
    before: dict
    digests: dict
    final: dict
    points: tuple


def learn_what_to_expect(forks, name, place):
    """Run a scenario undisturbed."""
    start, whole = os.path.join(place, "start"), os.path.join(place, "whole")
    prepared = forks.run(PREPARE, start, name)
    assert prepared.code == 0, prepared.said
    copy_folder(start, whole)
    ended = forks.run(TRAIN, whole, name, watch=whole)
    assert ended.code == 0, ended.said
    told = [*prepared.said, *ended.said]
    digests = {item.get("step", item.get("resumed")): item["digest"] for item in told if "digest" in item}
    digests.pop(None, None)
    return Expected(start, _files(start), digests, _steps(whole), ended.points)


def copy_folder(source, target):
    """Copy a folder; names of one file stay names of one file."""
    if os.path.exists(target):
        shutil.rmtree(target)
    made = {}
    for where, _, names in os.walk(source):
        to = os.path.join(target, os.path.relpath(where, source))
        os.makedirs(to, exist_ok=True)
        for name in names:
            origin, goal = os.path.join(where, name), os.path.join(to, name)
            number = os.stat(origin).st_ino
            if number in made:
                os.link(made[number], goal)
            else:
                made[number] = shutil.copy(origin, goal)


def _found(folder):
    return checkpoints(folder, depth=DEPTH) if os.path.isdir(folder) else []


def _steps(folder):
    return {item.name: item.facts.step for item in _found(folder)}


def _files(folder):
    digests = contents(folder) if os.path.isdir(folder) else {}
    return {item.name: (item.facts.step, digests[item.name]) for item in _found(folder)}


def assert_kept(folder, name, ended, expected):
    """Whatever is listed is whole and right; nothing acknowledged is lost; at most one save is unfinished."""
    scenario, found = SCENARIOS[name], _found(folder)
    for item in found:
        assert not item.problem, f"{item.name} is listed and damaged: {item.problem}"
        assert holdfast.verify(item.path).facts == item.facts
        assert digest_of_file(item.path) == expected.digests[item.facts.step], f"{item.name} holds another state"
    now = contents(folder)
    assert set(now) == {item.name for item in found}, "there is a file that is no checkpoint and no temporary"
    assert len(leftovers(folder)) <= scenario.rest, "more is left than what was unfinished"
    steps = {item.facts.step for item in found}
    for known, (step, digest) in expected.before.items():
        if known in now and _steps_of(found)[known] == step:
            assert now[known] == digest, f"{known}, committed before, was changed"
    earlier = {step for step, _ in expected.before.values()}
    acknowledged = {item["acknowledged"] for item in ended.said if item.get("acknowledged")}
    promised = acknowledged | earlier
    assert max(steps, default=0) >= max(promised, default=0), f"of the acknowledged {promised} only {steps} are there"
    must = scenario.best(promised | steps)
    assert must <= steps, f"of those that must be kept, {must}, only {steps} are there"
    _assert_trained_the_same(ended, expected)


def _steps_of(found):
    return {item.name: item.facts.step for item in found}


def _assert_trained_the_same(ended, expected):
    for item in ended.said:
        step = item.get("step", item.get("resumed"))
        if step is not None:
            assert item["digest"] == expected.digests[step], f"the state after step {step} is another"


def assert_finished(folder, name, ended, expected, *, lost=0, left=0):
    """The run came to its end: the state is that of a run that nothing happened to, and so are the files.

    What a save that failed would have kept may be missing, in so many checkpoints: the run had gone on. So many
    temporaries whose removal failed may be left, and the next run's sweep takes them.
    """
    assert ended.code == 0, ended.said[-1:]
    assert ended.said[-1]["digest"] == expected.digests[SCENARIOS[name].steps]
    assert ended.said[0]["missed"] == []
    assert_kept(folder, name, ended, expected)
    assert len(leftovers(folder)) <= left
    open_store(folder).sweep(DEPTH)
    assert leftovers(folder) == []
    final, wanted = _steps(folder), SCENARIOS[name].best(expected.final.values())
    assert max(final.values()) == max(expected.final.values())
    assert len(wanted - set(final.values())) <= lost, f"of {wanted}, only {final} is there"
    # A save whose retention was cut off may leave, at the very end, what no later commit could remove;
    # and a run that has resumed keeps what it has resumed from.
    assert len(final) <= len(expected.final) + 2, f"{final} is more than {expected.final}"


def assert_goes_on(forks, folder, name, expected, lost=0):
    """The next run needs no repair: it resumes from the newest there is, and comes to the same end."""
    newest = max(_steps(folder).values(), default=0)
    ended = forks.run(TRAIN, folder, name)
    assert ended.said, ended
    assert ended.said[0].get("resumed") == newest, ended.said[0]
    assert_finished(folder, name, ended, expected, lost=lost)
