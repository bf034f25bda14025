"""What must hold after each life of a training to an object store, and what was promised by the lives before it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

import holdfast
from holdfast.front.pruning import resumed_from
from holdfast.records import RANKED
from holdfast.scanning import scan
from holdfast.storage import RUN_LOCK, open_store
from holdfast.storage.options import remember
from holdfast.storage.remote import RemoteStore, dead_uploads
from tests.crash.object_store_training import FAILED, TOP, learn, loss_at, parts
from tests.support.bits import digest_of_file, digest_of_parts
from tests.support.s3 import UNNAMED

REST = 2  # hidden files that a killed save may leave in the folder, besides the lock
_digests = {}


def expected(ballast, step):
    """Return the digest after a step of a training that nothing happens to and that saves nothing."""
    import torch

    if ballast not in _digests:
        model, optimizer = parts(ballast)
        _digests[ballast] = (model, optimizer, [digest_of_parts(model, optimizer)], torch.get_rng_state())
    model, optimizer, known, state = _digests[ballast]
    torch.set_rng_state(state)
    while len(known) <= step:
        learn(model, optimizer, len(known))
        known.append(digest_of_parts(model, optimizer))
    _digests[ballast] = (model, optimizer, known, torch.get_rng_state())
    return known[step]


@dataclass
class Books:
    """All that one run has promised so far.

    Attributes:
        ballast: of its model.
        told: the newest step whose save was acknowledged and must be there, or a newer one.
        ranked: the steps of the best saves that must be there, unless better ones are.
        newest: the newest step that was there at the last look, in any tier.
        mirrored: the newest step of which it was said that the mirror has it.
        moved: whether a machine has vanished: what the folder lacks since then is on the mirror alone.
        lost: how many objects the server itself lost while it replaced them.
        problems: what was found wrong, in words.

    """

    ballast: int
    told: int = 0
    ranked: set = field(default_factory=set)
    newest: int = 0
    mirrored: int = 0
    moved: bool = False
    lost: int = 0
    problems: list = field(default_factory=list)

    def enter(self, life):
        """Take down what a life has said, and find what contradicts the lives before it."""
        for item in life.said:
            if "step" in item and item["digest"] != expected(self.ballast, item["step"]):
                self.problems.append(f"the weights after step {item['step']} are not those of an undisturbed run")
        for step in life.all("resumed"):
            if step < self.newest:
                self.problems.append(f"resumed from step {step}, not from the newest, {self.newest}")
        self.problems += [f"could not restore {missed}" for missed in life.all("missed") if missed]
        self.problems += [f"passed over {skipped}" for skipped in life.all("skipped") if skipped]
        self.problems += [f"ended with an error from inside: {text}" for text in life.all("raised")]
        self.problems += life.all("odd")
        self.ranked.update(life.all("acknowledged"))
        self.told = max([self.told, *life.all("acknowledged"), *life.all("final")])
        self.mirrored = max([self.mirrored, *life.all("mirrored")])
        plan = life.plan
        may_fail = plan.kind and "trainer" != plan.kind != "machine" and not plan.patience
        if life.code is None:
            self.problems.append("hung")
        elif life.code != plan.ends and (life.struck or life.code) and not (may_fail and life.code == FAILED):
            self.problems.append(f"ended with {life.code}, not with {plan.ends}: {life.all('error')}")

    def judge(self, found, *, server_lost=0):
        """Compare what was found with what was promised; a machine that vanished has promised what the mirror has.

        A server that was killed while it replaced an object may have lost that: then its run has, at most, no ``last``.
        """
        self.problems += found["problems"]
        there, here = found["there"], found.get("here")
        far = max(there["all"], default=0)
        if here is not None and self.mirrored > far and not self._excused(server_lost):
            self.problems.append(f"the mirror had step {self.mirrored}, and its newest is {far}")
        if found["gone"]:
            self.moved, self.ranked, self.told = True, {*there["ranked"]}, min(self.mirrored, far)
        else:
            self._judge_first(there, here, server_lost)
        if found["over"] and here is not None and not self.moved and here != there:
            self.problems.append(f"the mirror has {there}, and the folder {here}")
        self.mirrored = min(self.mirrored, far)
        self.newest = max([*there["all"], *(here or there)["all"]], default=0)

    def _judge_first(self, there, here, server_lost):
        newest = max((here or there)["all"], default=0)
        if newest < self.told and not (here is None and self._excused(server_lost)):
            self.problems.append(f"step {self.told} was acknowledged, and the newest there is {newest}")
        steps = {*(here or there)["ranked"], *(there["ranked"] if self.moved else ())}
        best = sorted(self.ranked | steps, key=loss_at)[:TOP]
        if not set(best) <= steps:
            self.problems.append(f"of the {TOP} best of all, {best}, only {sorted(set(best) & steps)} are there")
        self.ranked, self.told = {*best}, newest

    def _excused(self, server_lost):
        self.lost += server_lost
        return server_lost > 0


def look(order, books, *, gone=False, over=False):
    """Load and verify all that is listed, in a process of its own; return what was found.

    Args:
        order: what the lives were told.
        books: of this run.
        gone: whether the machine, and its folder with it, has just vanished.
        over: whether a life has just come to its end: then nothing may be left over.

    """
    answer = order["said"] + ".found"
    want = {step: expected(books.ballast, step) for step in range(len(_digests[books.ballast][2]))}
    child = os.fork()
    if not child:
        try:
            with open(answer, "w") as file:
                json.dump(_look(order, want, over=over), file)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with open(answer) as file:
        return {**json.load(file), "gone": gone, "over": over}


def _look(order, want, *, over):
    remember(order["bucket"], {**order["options"], "patience": 40})
    problems, mirror = [], order["words"].get("mirror")
    found = {"problems": problems, "there": _steps(mirror or order["place"], want, problems)}
    if mirror:
        found["here"] = _steps(order["place"], want, problems) if os.path.isdir(order["place"]) else _none()
        if os.path.isdir(order["place"]):
            problems += _strange(order["place"], over=over)
    if over:
        problems += _left(mirror or order["place"])
    return found


def _steps(place, want, problems):
    """Return the steps of all that a place lists, each loaded whole and compared with what the training had then."""
    steps = _none()
    for item in scan(open_store(place)):
        try:
            facts = holdfast.verify(item.path).facts
            same = facts == item.facts and digest_of_file(item.path) == want[facts.step]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            problems.append(f"{item.path} is listed and cannot be loaded: {error}")
            continue
        steps["all"].append(facts.step)
        if item.role == RANKED:
            steps["ranked"].append(facts.step)
        if not same:
            problems.append(f"{item.path} does not hold the state that the training had after step {facts.step}")
    return {key: sorted(value) for key, value in steps.items()}


def _none():
    return {"all": [], "ranked": []}


def _strange(folder, *, over):
    """Say which files of a folder are neither checkpoints nor what a killed save may leave."""
    names = [
        os.path.relpath(os.path.join(where, name), folder) for where, _, files in os.walk(folder) for name in files
    ]
    rest = [name for name in names if name.startswith(".holdfast-") and name != RUN_LOCK]
    others = [name for name in names if name not in rest and name != RUN_LOCK and not name.endswith(".ckpt")]
    most = 0 if over else REST
    mine = [name for name in rest if not name.startswith(".holdfast-mirror")]
    return [f"files that are no checkpoints: {others}"] * bool(others) + [f"left over: {mine}"] * (len(mine) > most)


def _left(url):
    """Say what is in a prefix besides at most so many checkpoints as the run keeps: objects, claims, uploads."""
    store = open_store(url)
    assert isinstance(store, RemoteStore)
    keys = [item.key[len(store.base) + 1 :] for item in store.objects.list(f"{store.base}/")]
    keys = [key for key in keys if UNNAMED not in key]
    others = [key for key in keys if "/" in key or not key.endswith(".ckpt")]
    sources = resumed_from([*holdfast.catalog(url)])
    uploads = [name for name, _ in dead_uploads.unfinished(store.objects, store.base)]
    problems = [f"left over: {others}"] * bool(others) + [f"uploads that were not ended: {uploads}"] * bool(uploads)
    kept = {*keys} - sources
    return problems + [f"kept more than the rules say: {keys}, of which {sources} were resumed from"] * (
        len(kept) > TOP + 1
    )
