"""What a training has promised by its marks, and whether a folder keeps it: after any loss of power."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass, field

import holdfast
from holdfast.front.opening import checkpoints
from tests.crash.harness import DEPTH, leftovers
from tests.crash.power_scenarios import RUN, acknowledged, of_file, opened
from tests.crash.training import batches, digest, learn


@dataclass
class Promises:
    """What must hold when the power goes at one moment.

    ``kept``: files that must be there, with the digests that each may have: one, or two while it is being
    replaced; ``removed``: names and folders that must not come back; ``known``: all bytes that a name may
    have; ``weights``: of each step.
    """

    kept: dict[str, set[str]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    known: set[tuple[str, str]] = field(default_factory=set)
    weights: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, marks):
        """Read the marks that were given by then."""
        made, due = cls(), {}
        for said in map(json.loads, marks):
            made.removed.update(said.get("removed", ()))
            if "step" in said:
                made.weights[said["step"]] = said["weights"]
            elif "begun" in said:
                made.removed = {gone for gone in made.removed if not f"{said['begun']}/".startswith(f"{gone}/")}
            elif "due" in said:
                name, due[said["due"]] = said["due"], said["digest"]
                made.known.add((name, said["digest"]))
                made.kept.get(name, set()).add(said["digest"])
            elif "committed" in said:
                made.kept[said["committed"]] = {due[said["committed"]]}
            elif "dropped" in said:
                made.kept.pop(said["dropped"], None)
            elif "acknowledged" in said:
                early = [name for name in said["acknowledged"] if name not in made.kept]
                assert not early, f"{early} is acknowledged, and was not committed by then"
        return made


def assert_kept(folder, promises, part):
    """Look at the folder, resume, save once more, and look again. Whatever is not as promised is an AssertionError."""
    run = os.path.join(folder, RUN)
    before = assert_there(run, promises)
    newest = max((step for step, _ in before.values()), default=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = _go_on(folder, run, promises, part)
    assert resumed == newest, f"resumed from step {resumed}, but there is {newest}"
    assert leftovers(run) == [], "the next run has left what an unfinished save had left"
    after = listed(run)
    assert max(step for step, _ in after.values()) == resumed + 1, "the next save is not there"
    assert all(after.get(name) == old for name, old in before.items() if name in after and not _moves(name))


def assert_there(run, promises):
    """Look at the folder as it was found; return the step and the digest of each file that is listed."""
    found = listed(run)
    for name, (_, sha) in found.items():
        assert (name, sha) in promises.known, f"{name} has bytes that were never saved under this name"
    for name, shas in promises.kept.items():
        assert found.get(name, (0, ""))[1] in shas, f"{name}, which was committed, is lost or is another"
    back = [name for name in promises.removed if os.path.lexists(os.path.join(run, name))]
    assert not back, f"{back} was removed, and is there again"
    return found


def listed(run):
    """The step and the digest of each file that is listed, all of which have to be whole."""
    found = {}
    for item in checkpoints(run, depth=DEPTH):
        assert not item.problem, f"{item.name} is listed and damaged: {item.problem}"
        assert holdfast.verify(item.path).facts == item.facts
        found[item.name] = (item.facts.step, of_file(item.path))
    return found


def _moves(name):
    return os.path.basename(name).startswith("last")


def _go_on(folder, run, promises, part):
    """Resume as the next run would, to the weights of that step; save once; return the step resumed from."""
    model, optimizer, schedule, several = opened(folder, part["words"], part.get("beside"), part.get("wide", 8))
    starts = [ckpt.resume() for ckpt in several]
    start = starts[0]
    assert not start.missed
    if start.step:
        assert digest(model) == promises.weights[start.step], f"the weights of step {start.step} are others"
    learn(model, optimizer, schedule, batches(0)[0])
    for ckpt in several:
        ckpt.step({"loss": -1.0})
    for ckpt in several:
        ckpt.close()
    for name in acknowledged(several):
        assert os.path.exists(os.path.join(run, name)), f"{name} is called best or last, and is not there"
    return start.step
