"""Overlapped saves of a state that is changed at a given moment: what was saved, or nothing, and that aloud."""

from __future__ import annotations

import pytest
import torch

from tests.engine.conftest import PATIENCE
from tests.engine.moments import HARMLESS, IN_PLACE, UNSEEN, Subject, outcome, write_data
from tests.support.lightning_cases import run_script
from tests.support.states import same


@pytest.fixture
def subject(saver, slow_copies, tmp_path):
    one = Subject(saver, tmp_path)
    one.rehearse()
    yield one
    slow_copies.go.set()


@pytest.mark.parametrize("moment", ["before", "halfway"])
@pytest.mark.parametrize("change", IN_PLACE)
def test_what_is_changed_before_it_is_copied_is_given_up(subject, slow_copies, change, moment):
    """A write into a parameter or a moment, before or amid its copy, costs the save, aloud, and nothing is torn."""
    slow_copies.moment = moment
    given = subject.submit()
    assert slow_copies.overlapped == 1
    change(subject)
    assert outcome(subject.saver, *given) == "given up"
    assert given[0].stats.given_up == 1


@pytest.mark.parametrize("moment", ["before", "halfway"])
@pytest.mark.parametrize("change", HARMLESS)
def test_what_leaves_the_old_memory_alone_costs_nothing(subject, slow_copies, change, moment):
    """New memory behind a parameter, a write to a buffer, a backward: the save has the state of its moment."""
    slow_copies.moment = moment
    given = subject.submit()
    change(subject)
    assert outcome(subject.saver, *given) == "committed"
    assert slow_copies.overlapped == 1


@pytest.mark.parametrize("change", [*IN_PLACE, *HARMLESS, *UNSEEN])
def test_a_change_between_copy_and_fence_tears_nothing(subject, slow_copies, change):
    """Once the copy is made, any write leaves the save whole, or costs it."""
    slow_copies.moment = ""
    given = subject.submit()
    assert given[0]._read.wait(PATIENCE)
    change(subject)
    assert outcome(subject.saver, *given) in ("committed", "given up")


@pytest.mark.parametrize("change", [*IN_PLACE, *HARMLESS, *UNSEEN])
def test_behind_the_fence_everything_may_change(subject, slow_copies, change):
    """What is changed after the fence, by whatever means, is not in the save, and the save is committed."""
    given = subject.submit()
    subject.saver.fence()
    change(subject)
    assert outcome(subject.saver, *given) == "committed"
    assert slow_copies.overlapped == 1


@pytest.mark.parametrize("moment", ["before", "halfway"])
def test_an_optimizer_step_waits(subject, slow_copies, moment):
    """A step while the copy stands still is made after it: the save has the state before the step."""
    slow_copies.moment = moment
    given = subject.submit()
    subject.step()
    assert outcome(subject.saver, *given) == "committed"
    assert slow_copies.overlapped == 1
    assert not same(subject.state(), given[2])


@pytest.mark.parametrize("change", IN_PLACE)
def test_what_has_changed_once_is_copied_at_once(subject, slow_copies, change):
    """After a save was given up, the next one takes the same tensor at once, and the same write costs nothing."""
    slow_copies.moment = "before"
    given = subject.submit()
    change(subject)
    assert outcome(subject.saver, *given) == "given up"
    again = subject.submit()
    change(subject)
    assert outcome(subject.saver, *again) == "committed"


@pytest.mark.parametrize("change", IN_PLACE)
def test_a_rehearsal_learns_what_changes(saver, slow_copies, tmp_path, change):
    """The first save of a shape is whole whatever changes; what did is copied at once by the next ones."""
    one = Subject(saver, tmp_path)
    slow_copies.moment = "before"
    first = one.submit()
    change(one)
    one.step()
    assert outcome(saver, *first) == "committed"
    assert slow_copies.overlapped == 0
    second = one.submit()
    change(one)
    assert outcome(saver, *second) == "committed"
    assert slow_copies.overlapped == 1


@pytest.mark.parametrize("change", UNSEEN)
def test_a_rehearsal_notices_what_torch_does_not_count(saver, slow_copies, tmp_path, change):
    """A write through ``.data`` before the first fence turns overlapping off, with a warning that names the tensor."""
    one = Subject(saver, tmp_path)
    first = one.submit()
    first[0]._done.wait(PATIENCE)  # however late the write comes
    change(one)
    with pytest.warns(UserWarning, match="model.weight was changed .* does not count"):
        one.step()
    assert outcome(saver, *first) == "committed"
    for _ in range(3):
        later = one.submit()
        change(one)
        one.step()
        assert outcome(saver, *later) == "committed"
    assert slow_copies.overlapped == 0


def test_a_rehearsal_without_a_step_teaches_nothing(saver, slow_copies, tmp_path):
    """A first save that is waited for before any step is followed by another rehearsal."""
    one = Subject(saver, tmp_path)
    for _ in range(3):
        assert outcome(saver, *one.submit()) == "committed"
    assert slow_copies.overlapped == 0
    one.rehearse()
    last = one.submit()
    one.step()
    assert outcome(saver, *last) == "committed"
    assert slow_copies.overlapped == 1


def test_a_new_shape_is_rehearsed(subject, slow_copies):
    """When the state grows, what changes is learned anew before anything is left for later."""
    subject.model.register_parameter("more", torch.nn.Parameter(torch.rand(128, 160)))
    for expected in (0, 1):
        given = subject.submit()
        assert slow_copies.overlapped == expected
        subject.step()
        assert outcome(subject.saver, *given) == "committed"


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="torch counts no writes through `.data`: those that begin late are not seen",
)
@pytest.mark.parametrize("moment", ["before", "halfway"])
@pytest.mark.parametrize("change", UNSEEN)
def test_hidden_writes_that_begin_after_the_rehearsal(subject, slow_copies, change, moment):
    """A limit that is known: a write through ``.data`` that no rehearsal has seen, amid the copy, tears the save."""
    slow_copies.moment = moment
    given = subject.submit()
    change(subject)
    outcome(subject.saver, *given)


def test_hidden_writes_are_found_out_in_the_end(subject, slow_copies, monkeypatch):
    """Rehearsals are repeated, so that ``.data`` writes that began late turn overlapping off before long."""
    monkeypatch.setattr("holdfast.engine.rehearsals._EVERY", 3)
    slow_copies.moment = ""

    def train():
        for _ in range(4):
            subject.submit()[0]._read.wait(PATIENCE)
            write_data(subject)
            subject.step()
            subject.saver.wait()

    with pytest.warns(UserWarning, match="does not count"):
        train()
    overlapped = slow_copies.overlapped
    given = subject.submit()
    write_data(subject)
    assert outcome(subject.saver, *given) == "committed"
    assert slow_copies.overlapped == overlapped


def test_tensors_made_under_inference_mode_are_saved(saver, slow_copies, tmp_path):
    """A frozen parameter that was made under ``inference_mode``, which counts no versions, is saved with the rest."""
    one = Subject(saver, tmp_path)
    with torch.inference_mode():
        one.model.frozen = torch.nn.Linear(160, 128)
    assert one.model.frozen.weight.is_inference()
    for _ in range(3):
        given = one.submit()
        one.step()
        assert outcome(saver, *given) == "committed"
    assert slow_copies.overlapped >= 1


def test_an_alias_of_its_own_count_is_watched_too(subject, slow_copies):
    """A buffer that shares a parameter's memory, but not its version, costs the save when it is written."""
    subject.model.register_buffer("alias", subject.weight.data)
    subject.rehearse()
    slow_copies.moment = "halfway"
    given = subject.submit()
    subject.model.alias.mul_(2.0)
    assert outcome(subject.saver, *given) == "given up"


SHARED = """
import ctypes, sys, threading, time, torch
from holdfast.engine import Order, Saver
from holdfast.records import Facts
from holdfast.snapshot import copying, stepped
from holdfast.storage import open_store

halfway, go = threading.Event(), threading.Event()

class Slow:
    def memmove(self, target, source, size):
        half = size // 2
        ctypes.memmove(target, source, half)
        if threading.current_thread() is not threading.main_thread():
            halfway.set()
            go.wait(20)
        ctypes.memmove(target + half, source + half, size - half)

    def __getattr__(self, name):
        return getattr(ctypes, name)

copying.ctypes = Slow()
model = torch.nn.Linear(2000, 2000)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
saver, store = Saver(), open_store(sys.argv[1])

def submit(name):
    return saver.submit(Order(store, name, model.state_dict(), Facts(), stepped=stepped(model, [optimizer])))

submit("1.ckpt")
model(torch.rand(1, 2000)).sum().backward()
optimizer.step()
saver.wait()
expected = model.weight.detach().clone()
flight = submit("2.ckpt")
halfway.wait(20)
model.share_memory()
go.set()
flight.wait()
same = flight.committed and torch.equal(torch.load(store.path("2.ckpt"))["weight"], expected)
print("whole" if same else "torn" if flight.committed else "given up")
"""


def test_memory_that_is_taken_away_amid_the_copy(tmp_path):
    """``share_memory()``, which replaces the memory of parameters in place, costs the save, or nothing."""
    done = run_script(SHARED, tmp_path, timeout=60)
    assert done.stdout.strip() in ("whole", "given up"), done.stderr


def test_tied_weights_are_copied_once(subject, slow_copies):
    """A tied weight and a view of it, left for later, are whole and still tied in the file."""
    subject.model.tied = subject.model.weight
    subject.rehearse()
    before = slow_copies.overlapped
    given = subject.submit()
    assert slow_copies.overlapped == before + 1
    subject.step()
    assert outcome(subject.saver, *given) == "committed"
    loaded = torch.load(given[1])["model"]
    assert loaded["tied"].data_ptr() == loaded["weight"].data_ptr()
