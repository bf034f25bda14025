"""Arbitrary histories of a run, against a plain model in memory: what the directory holds is what the model says."""

from __future__ import annotations

import json
import math
import os
import warnings

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import holdfast
from holdfast.clock import FakeClock
from holdfast.notes import identity
from holdfast.records import LAST
from tests.crash import faults
from tests.model.hands import SCORES, Hands, nothing, value_in
from tests.model.homes import LocalHome, MemoryHome
from tests.model.shelf import Shelf
from tests.support.properties import examples

CALLS = ("write", "pwrite", "fsync", "rename", "link", "unlink", "open", "ftruncate")
KILLED, DONE, REFUSED = -9, 0, 7


class Histories(Hands, RuleBasedStateMachine):
    """One run at a time in one directory; ``home`` makes the directory."""

    make_home = None

    def __init__(self):
        super().__init__()
        self.home = self.make_home()
        self.clock = FakeClock(10**6)
        self.ckpt = None
        self.value = self.damages = 0

    @initialize(
        k=st.sampled_from([1, 2, 3, -1]),
        monitored=st.booleans(),
        largest=st.booleans(),
        keeps_last=st.booleans(),
        ahead=st.booleans(),
    )
    def begin(self, k, monitored, largest, keeps_last, ahead):
        """Choose the words of the run."""
        k = k if monitored or k == -1 else 1
        self.shelf = Shelf(k, monitored, largest, keeps_last, self.home.shares_last)
        monitor = "loss" if monitored else None
        self.words = {"save_top_k": k, "save_last": keeps_last, "monitor": monitor, "async_save": ahead}
        self.words |= {"mode": "max" if largest else "min", "max_failures": 10**6}

    # What happens to a run.

    @precondition(lambda self: self.ckpt is None)
    @rule()
    def start(self):
        """A process begins: it resumes from the newest whole checkpoint, and names the damaged ones before it."""
        expected, passed = self.shelf.resume()
        self.model = torch.nn.Linear(1, 1)
        self.ckpt = self._open(self.model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = self.ckpt.resume()
        assert len(start.skipped) == len(passed), (start.skipped, passed)
        assert (start.path is None) == (expected is None)
        assert self.damages or len(self._orphans()) <= self.shelf.pinned_and_gone()
        self.state = (0, 0, 0.0)
        if expected is not None:
            assert (int(self.model.weight), start.step) == (expected.value, expected.step)
            self.state = (expected.value, expected.step, math.nan)  # this process has measured nothing

    @precondition(lambda self: self.ckpt is not None)
    @rule(score=SCORES)
    def save(self, score):
        """An epoch of one step ends."""
        self.value += 1
        self._epoch(self.ckpt, self.model, self.value, score)
        self.ckpt.wait()
        self.state = (self.value, self.ckpt.global_step, score)
        self.shelf.save(*self.state)

    @precondition(lambda self: self.ckpt is not None)
    @rule(score=SCORES)
    def save_on_a_full_disk(self, score):
        """An epoch ends, and nothing can be written: that is said, and nothing is lost; the next save goes through."""
        self.value += 1
        self.state = (self.value, self.ckpt.global_step + 1, score)
        with self.home.full(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self._epoch(self.ckpt, self.model, self.value, score)
            with pytest.raises(holdfast.SaveError) if self._saves(score) and self._is_behind() else nothing():
                self.ckpt.wait()
        assert not self._saves(score) or self._is_behind() or any("not saved" in str(item.message) for item in told)

    @precondition(lambda self: self.ckpt is not None)
    @rule()
    def end(self):
        """The process ends in good order; nothing is left but checkpoints and what is said of them."""
        self._close()
        assert self.home.leftovers() == []

    @precondition(lambda self: self.ckpt is None)
    @rule()
    def move(self):
        """The directory is moved to another place."""
        self.home.move()

    @rule(seconds=st.floats(-(10**6), 10**6))
    def clock_jumps(self, seconds):
        """The clock jumps, backwards too."""
        self.clock.advance(seconds)

    # What must hold all the time.

    @invariant()
    def holds_what_the_model_says(self):
        """The whole checkpoints that are listed are those of the model, and best and last are right."""
        if not hasattr(self, "shelf"):
            return
        listed = self._catalog()
        whole = [(value_in(item.path), item.role == LAST, item) for item in listed]
        ranked = {value for value, is_last, _ in whole if not is_last and value is not None}
        lasts = {value for value, is_last, _ in whole if is_last and value is not None}
        assert ranked == {item.value for item in self.shelf.ranked if not item.damaged}
        last = self.shelf.last
        assert lasts == ({last.value} if last is not None and not last.damaged else set())
        assert len(listed) == len(self.shelf.listed())
        for value, is_last, item in whole:
            assert value is None or self.told(item) == self.expected(value, is_last=is_last)
        assert self._best_of(listed) in (self.shelf.best_listed(), None)
        assert self.home.untouched()
        if self.ckpt is not None and self.ckpt.best_model_path:
            assert os.path.basename(self.ckpt.best_model_path) != "notes.ckpt"
            if self.shelf.monitored and self.shelf.best() is not None:
                assert value_in(self.ckpt.best_model_path) in (self.shelf.best(), None)

    def teardown(self):
        """End what is open, and remove the directory."""
        self._close()
        self.home.close()

    def _catalog(self):
        """What is listed, newest first: the checkpoints that can say what they are."""
        return [item for item in holdfast.catalog(self.home.root) if item.facts is not None]

    def _orphans(self):
        """The saves of which something is said and that are gone: what is not pinned goes when the next run begins."""
        return self.home.said_of() - {identity(item.facts) for item in self._catalog()}

    def _best_of(self, listed):
        """The value of the best that the catalog names; None without one, or if it is damaged."""
        if not any("loss" in item.metrics for item in listed):
            return None
        best = holdfast.catalog(self.home.root).best("loss", "max" if self.shelf.largest else "min")
        assert (best is None) == (self.shelf.best_listed() is None)
        return None if best is None else value_in(best.path)

    def _open(self, model):
        return holdfast.Checkpointer(self.home.root, model=model, clock=self.clock, **self.words)

    def _epoch(self, ckpt, model, value, score):
        with torch.no_grad():
            model.weight.fill_(value)
        ckpt.step()
        ckpt.end_epoch({"loss": score})

    def _saves(self, score):
        return self.shelf.keeps_last or self.shelf.admits(score)

    def _is_behind(self):
        return self.words["async_save"]

    def _close(self):
        if self.ckpt is not None:
            self.ckpt.close()
            self.shelf.end(*self.state)
            self.ckpt = None


class LocalHistories(Histories):
    """With what only a directory of this machine has: kills, damage that is set aside, others that come by mistake."""

    make_home = LocalHome

    @precondition(lambda self: self.ckpt is None and not any(item.damaged for item, _ in self.shelf.candidates()))
    @rule(call=st.sampled_from(CALLS), at=st.integers(1, 40), scores=st.lists(SCORES, min_size=1, max_size=4))
    def killed(self, call, at, scores):
        """A process resumes, trains some epochs, and is killed at a system call, or gets through."""
        base, _ = self.shelf, self.shelf.resume()
        step = self.shelf.candidates()[0][0].step if self.shelf.candidates() else 0
        first, self.value = self.value + 1, self.value + len(scores)
        code, told = in_child(lambda tell: self._train_until_killed(tell, call, at, first, scores))
        assert code in (KILLED, DONE), (code, told)
        done = len(told)
        for number, score in enumerate(scores[:done]):
            base.save(first + number, step + number + 1, score)
        if code == DONE:
            assert done == len(scores)
            return
        after = base.after_save(first + done, step + done + 1, scores[done]) if done < len(scores) else base
        self._settle_between(base, after)

    @precondition(lambda self: self.ckpt is None and self.home.contents())
    @rule(data=st.data())
    def damage(self, data):
        """The bytes of one checkpoint change."""
        path, is_last = data.draw(st.sampled_from(sorted(self.home.contents())))
        value = value_in(path)
        if value is None:
            return  # damaged already
        content = bytearray(self.home.read(path))
        if data.draw(st.booleans()):
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        else:
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        self.home.overwrite(path, bytes(content))
        self.damages += 1
        torn = path not in [listed for listed, _ in self.home.contents()]
        self.shelf.damage(value, is_last=is_last, torn=torn)

    @precondition(lambda self: self.ckpt is not None)
    @rule()
    def another_comes(self):
        """A second process on the same directory is told whose it is, and changes nothing."""

        def come(tell):
            try:
                self._open(torch.nn.Linear(1, 1))
            except holdfast.errors.DirectoryInUseError as error:
                tell(str(error))
                os._exit(REFUSED)

        code, told = in_child(come)
        assert code == REFUSED
        assert str(os.getpid()) in told[0]

    def _train_until_killed(self, tell, call, at, first, scores):
        faults.install(self.home.root, call, "kill", at)
        model = torch.nn.Linear(1, 1)
        ckpt = self._open(model)
        ckpt.resume()
        for number, score in enumerate(scores):
            self._epoch(ckpt, model, first + number, score)
            ckpt.wait()
            tell(first + number)
        ckpt.close()

    def _settle_between(self, before, after):
        """A kill leaves what was there before the save, or after it, or what is to be forgotten beside the new."""
        whole = [(value_in(path), is_last) for path, is_last in self.home.contents()]
        assert all(value is not None for value, _ in whole), "a kill has left a damaged file under a checkpoint's name"
        ranked = {value for value, is_last in whole if not is_last}
        last = next((value for value, is_last in whole if is_last), None)
        (old, old_last), (new, new_last) = before.values(), after.values()
        assert old & new <= ranked <= old | new
        assert ranked == old or new <= ranked, "something was forgotten before the new was there"
        assert last in (old_last, new_last)
        everything = {item.value: item for item in (*before.ranked, *after.ranked)}
        after.ranked = [everything[value] for value in ranked]
        after.ranked.sort(key=lambda item: item.order)
        after.last = after.last if last == new_last else before.last
        self.shelf = after


class MemoryHistories(Histories):
    """On a store that knows nothing but names and bytes."""

    make_home = MemoryHome


def in_child(call):
    """Call in a forked child, with a function that tells us something; return its exit code and what it told."""
    read, write = os.pipe()
    child = os.fork()
    if not child:

        def tell(what):
            os.write(write, (json.dumps(what) + "\n").encode())

        try:
            os.close(read)
            warnings.simplefilter("ignore")
            call(tell)
            os._exit(DONE)
        except BaseException as error:  # noqa: BLE001 - told to the parent, who fails
            tell(f"{type(error).__name__}: {error}")
        finally:
            os._exit(1)
    os.close(write)
    with open(read) as file:
        told = [json.loads(line) for line in file]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


TestLocalHistories = LocalHistories.TestCase
TestLocalHistories.settings = examples(12)
TestMemoryHistories = MemoryHistories.TestCase
TestMemoryHistories.settings = examples(12)
