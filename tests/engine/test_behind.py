"""What a loop sees of saves that are made behind its back: order, errors, memory, and what is told when."""

from __future__ import annotations

import errno
import os
import threading
import warnings

import pytest
import torch

from holdfast import Checkpointer, SaveError, newest, verify
from holdfast.engine import Order, Saver
from holdfast.records import Facts
from holdfast.storage import open_store
from holdfast.storage.local import LocalStore
from tests.front.loops import names, step_of
from tests.support.lightning_cases import run_script

PATIENCE = 20  # seconds after which what hangs fails


class Disk:
    """A disk that writes a file when it is let, and fails when it is told.

    Attributes:
        order: the names of the files, as they were committed.

    """

    def __init__(self):
        self.closed = False
        self.failing = set()
        self.order = []
        self._permits = threading.Semaphore(0)

    def let(self, count=1):
        self._permits.release(count)

    def open(self):
        self.closed = False
        self._permits.release(1000)

    def put(self, original, store, name, chunks, **words):
        if self.closed:
            assert self._permits.acquire(timeout=PATIENCE)
        size = original(store, name, full(chunks) if name in self.failing else chunks, **words)
        self.order.append(name)
        return size


def full(chunks):
    """Hand on the first of the bytes, and then no more."""
    yield next(iter(chunks))
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def disk(monkeypatch):
    """Have the local store's writes wait, or fail, as the test says."""
    one = Disk()
    original = LocalStore.put
    monkeypatch.setattr(LocalStore, "put", lambda *given, **words: one.put(original, *given, **words))
    yield one
    one.open()


def checkpointer(folder, **words):
    model = torch.nn.Linear(2, 2)
    return Checkpointer(folder, **{"model": model, "every_n_train_steps": 1, "filename": "{step}", **words})


def landed(ckpt):
    """Wait until what was let to the disk is done, without telling the checkpointer of it."""
    for flight in ckpt._flights:
        assert flight._done.wait(PATIENCE)


def test_nothing_is_told_before_the_commit(disk, tmp_path):
    """While a better checkpoint is on its way, the old one is the best, is there, and ``last`` still is it."""
    ckpt = checkpointer(tmp_path, monitor="v", save_last="link")
    ckpt.step({"v": 2.0})
    ckpt.wait()
    first = str(tmp_path / "step=1.ckpt")
    disk.closed = True
    ckpt.step({"v": 1.0})
    for _ in range(3):
        assert (ckpt.best_model_path, ckpt.best_model_score) == (first, 2.0)
        assert names(tmp_path)[-2:] == ["last.ckpt", "step=1.ckpt"]
        assert step_of(tmp_path / "last.ckpt") == 1
        ckpt.stats  # noqa: B018 - looking changes nothing
    disk.open()
    ckpt.wait()
    assert (step_of(ckpt.best_model_path), ckpt.best_model_score) == (2, 1.0)
    assert names(tmp_path) == ["last.ckpt", "step=2.ckpt"]
    assert step_of(ckpt.last_model_path) == 2
    ckpt.close()


def test_a_commit_is_noticed_at_the_next_call(disk, tmp_path):
    """What was committed meanwhile is told by the next step, without anyone waiting."""
    ckpt = checkpointer(tmp_path, every_n_train_steps=2)
    disk.closed = True
    ckpt.step()
    ckpt.step()
    assert (ckpt.best_model_path, names(tmp_path)) == ("", [])
    disk.open()
    landed(ckpt)
    assert ckpt.best_model_path == ""
    ckpt.step()
    assert step_of(ckpt.best_model_path) == 2
    ckpt.close()


def test_a_busy_disk_is_waited_for_and_that_is_counted(disk, tmp_path):
    """With ``on_busy="wait"`` every save is made, in its order, and the waits are counted."""
    ckpt = checkpointer(tmp_path, save_top_k=-1)
    disk.closed = True
    for _ in range(4):
        timer = threading.Timer(0.05, disk.let)
        timer.start()
        ckpt.step()
    disk.open()
    ckpt.wait()
    assert disk.order == [f"step={step}.ckpt" for step in range(1, 5)]
    assert ckpt.stats.saves == 4
    assert ckpt.stats.skipped == 0
    ckpt.close()


def test_waits_for_a_busy_disk_are_counted(disk, tmp_path):
    """A save that had to wait for the one before is counted as one that waited, with the time it took."""
    ckpt = checkpointer(tmp_path, save_top_k=-1)
    disk.closed = True
    ckpt.step()
    timer = threading.Timer(0.1, disk.open)
    timer.start()
    ckpt.step()
    ckpt.wait()
    stats = ckpt.stats
    ckpt.close()
    assert stats.waited == 1
    assert stats.wait_seconds > 0.05


def test_a_busy_disk_is_skipped_and_that_is_told(disk, tmp_path, caplog):
    """With ``on_busy="skip"`` what comes meanwhile is left out, counted and logged; what comes later is saved."""
    caplog.set_level("INFO", "holdfast")
    ckpt = checkpointer(tmp_path, save_top_k=-1, on_busy="skip")
    disk.closed = True
    for _ in range(4):
        ckpt.step()
    assert ckpt.stats.skipped == 3
    assert caplog.text.count("skipped the save of") == 3
    assert "step=2.ckpt" in caplog.text
    disk.open()
    ckpt.wait()
    ckpt.step()
    ckpt.wait()
    assert names(tmp_path) == ["step=1.ckpt", "step=5.ckpt"]
    ckpt.close()


def test_a_skipped_save_is_not_ranked(disk, tmp_path):
    """A score whose save was left out takes no place: a worse one that was saved is the best."""
    ckpt = checkpointer(tmp_path, monitor="v", on_busy="skip")
    disk.closed = True
    ckpt.step({"v": 3.0})
    ckpt.step({"v": 1.0})
    disk.open()
    ckpt.wait()
    ckpt.step({"v": 2.0})
    ckpt.close()
    assert (step_of(ckpt.best_model_path), ckpt.best_model_score) == (3, 2.0)


def test_final_saves_are_never_skipped(disk, tmp_path):
    """What is asked for, and what is saved at the end, waits for a busy disk even with ``on_busy="skip"``."""
    ckpt = checkpointer(tmp_path, on_busy="skip", save_top_k=-1, save_last=True, every_n_train_steps=3)
    disk.closed = True
    for _ in range(4):
        ckpt.step()
    threading.Timer(0.05, disk.open).start()
    ckpt.save_checkpoint()
    disk.closed = False
    ckpt.step()
    ckpt.close()
    assert {"step=3.ckpt", "step=4.ckpt", "last.ckpt"} <= set(names(tmp_path))
    assert step_of(tmp_path / "last.ckpt") == 5


def _train_and_raise(ckpt, count, error):
    for _ in range(count):
        ckpt.step()
    raise error


def test_an_exception_is_saved_behind_a_busy_disk(disk, tmp_path):
    """After an exception with a save on its way, that one and the interrupted state are both committed."""
    disk.closed = True
    threading.Timer(0.1, disk.open).start()
    words = {"on_busy": "skip", "save_top_k": -1, "save_on_exception": True, "every_n_train_steps": 2}
    with pytest.raises(ZeroDivisionError), checkpointer(tmp_path, **words) as ckpt:
        _train_and_raise(ckpt, 3, ZeroDivisionError)
    steps = {step_of(tmp_path / name) for name in names(tmp_path)}
    assert steps == {2, 3}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_is_on_its_way_survives_an_interruption(disk, tmp_path, error):
    """Ctrl-C, an exit or an error with a save in flight: it is committed, ranked, and the exception goes on."""
    disk.closed = True
    threading.Timer(0.1, disk.open).start()
    with pytest.raises(error), checkpointer(tmp_path) as ckpt:
        _train_and_raise(ckpt, 1, error)
    assert names(tmp_path) == ["step=1.ckpt"]
    assert step_of(ckpt.best_model_path) == 1


@pytest.mark.parametrize("call", ["step", "wait", "end_epoch", "save_checkpoint", "close", "resume"])
def test_an_error_comes_back_at_the_next_call(disk, tmp_path, call):
    """A save that failed behind the training's back is raised, once, by whatever is called next."""
    ckpt = checkpointer(tmp_path, every_n_train_steps=2, on_error="raise")
    disk.failing.add("step=2.ckpt")
    ckpt.step()
    ckpt.step()
    landed(ckpt)
    assert names(tmp_path) == []
    with pytest.raises(SaveError, match=r"step=2\.ckpt was not saved: No space left") as raised:
        getattr(ckpt, call)()
    assert raised.value.errno == errno.ENOSPC
    ckpt.wait()
    ckpt.close()


def test_an_error_leaves_the_old_ones_alone(disk, tmp_path):
    """A save that fails changes neither files nor attributes, and the next one is made as ever."""
    ckpt = checkpointer(tmp_path, monitor="v", save_last=True)
    disk.failing.add("step=2.ckpt")
    ckpt.step({"v": 2.0})
    ckpt.wait()
    ckpt.step({"v": 1.0})
    with pytest.warns(UserWarning, match=r"step=2\.ckpt was not saved"):
        ckpt._settle(wait=True)
    assert (step_of(ckpt.best_model_path), step_of(ckpt.last_model_path)) == (1, 1)
    ckpt.step({"v": 1.5})
    ckpt.wait()
    assert (step_of(ckpt.best_model_path), step_of(ckpt.last_model_path)) == (3, 3)
    assert names(tmp_path) == ["last.ckpt", "step=3.ckpt"]
    ckpt.close()


def test_an_earlier_error_does_not_cost_the_final_state(disk, tmp_path):
    """When the last save before ``close`` has failed, ``close`` still brings ``last`` up, and then raises."""
    ckpt = checkpointer(tmp_path, every_n_train_steps=2, save_last=True, on_error="raise")
    disk.failing.add("step=2.ckpt")
    for _ in range(2):
        ckpt.step()
    landed(ckpt)
    with pytest.raises(SaveError):
        ckpt.close()
    assert step_of(tmp_path / "last.ckpt") == 2


def test_an_earlier_error_does_not_hide_the_next_save(disk, tmp_path):
    """Of two saves on their way the first fails: the second is committed, ranked and named after ``close``."""
    ckpt = checkpointer(tmp_path, images=2, on_error="raise")
    disk.failing.add("step=1.ckpt")
    disk.closed = True
    ckpt.step()
    ckpt.step()
    threading.Timer(0.05, disk.open).start()
    with pytest.raises(SaveError, match=r"step=1\.ckpt"):
        ckpt.close()
    assert names(tmp_path) == ["step=2.ckpt"]
    assert step_of(ckpt.best_model_path) == 2


def test_the_cost_is_known_after_the_end(tmp_path):
    """``stats`` still tell what saving has cost when the checkpointer is closed."""
    with checkpointer(tmp_path) as ckpt:
        ckpt.step()
        assert ckpt.stats.saves == 1
    assert ckpt.stats.saves == 1


def test_what_cannot_be_pickled_is_an_error_at_once(tmp_path):
    """A state that cannot be taken is an error of the step that asked for it, and leaves nothing behind."""

    class Stuck:
        def state_dict(self):
            return {"lock": threading.Lock()}

        def load_state_dict(self, state):
            """Take nothing."""

    ckpt = checkpointer(tmp_path, stateful={"stuck": Stuck()}, on_error="raise")
    with pytest.raises(SaveError, match="cannot pickle"):
        ckpt.step()
    ckpt.close()
    assert names(tmp_path) == []


def test_recycled_blocks_are_not_left_behind(disk, tmp_path):
    """With ``recycle_blocks``, whether saves succeed or fail, no hidden file outlives ``close``."""
    ckpt = checkpointer(tmp_path, recycle_blocks=True)
    disk.failing.update({"step=3.ckpt", "step=6.ckpt"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(7):
            ckpt.step()
            ckpt._settle(wait=True)
        ckpt.close()
    assert names(tmp_path) == ["step=7.ckpt"]
    verify(tmp_path / "step=7.ckpt")


def test_recycled_blocks_survive_a_state_that_cannot_be_taken(tmp_path):
    """With ``recycle_blocks``, a state that cannot be pickled does not leave a dropped file's blocks behind."""

    class Sometimes:
        stuck = False

        def state_dict(self):
            return {"value": threading.Lock() if self.stuck else 1}

        def load_state_dict(self, state):
            """Take nothing."""

    part = Sometimes()
    ckpt = checkpointer(tmp_path, recycle_blocks=True, stateful={"part": part})
    for _ in range(3):
        ckpt.step()
        ckpt.wait()
    part.stuck = True
    with pytest.warns(UserWarning, match="cannot pickle"):
        ckpt.step()
    part.stuck = False
    ckpt.close()
    assert names(tmp_path) == ["step=3.ckpt"]


def test_two_images_commit_in_order(disk, tmp_path, monkeypatch):
    """With ``images=2`` two saves are on their way, the third waits, and each is committed after the one before."""
    ckpt = checkpointer(tmp_path, save_top_k=-1, images=2)
    disk.closed = True
    ckpt.step()
    ckpt.step()
    assert len(ckpt._flights) == 2
    assert ckpt.stats.waited == 0
    threading.Timer(0.05, disk.open).start()
    for _ in range(6):
        ckpt.step()
    ckpt.wait()
    assert disk.order == [f"step={step}.ckpt" for step in range(1, 9)]
    ckpt.close()


@pytest.mark.parametrize("words", [{}, {"images": 2}, {"overlap": True}, {"zero_copy": True}], ids=str)
def test_memory_is_bounded(tmp_path, words):
    """The hundredth save holds not one byte more of host memory than the second."""
    model = torch.nn.Linear(300, 300)
    optimizer = torch.optim.Adam(model.parameters())
    ckpt = checkpointer(tmp_path, model=model, optimizer=optimizer, **words)
    held = []
    for _ in range(100):
        model(torch.rand(1, 300)).sum().backward()
        optimizer.step()
        ckpt.step()
        held.append(ckpt._saver.memory)
    ckpt.wait()
    settled = held[4]  # both images are there, and the rehearsals are over
    assert held[-1] == settled
    assert settled <= words.get("images", 1) * (4 * 3 * 300 * 301 + (1 << 18))
    saver = ckpt._saver
    ckpt.close()
    assert saver.memory == 0


RESIDENT = """
import sys, torch
from holdfast import Checkpointer

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

model = torch.nn.Linear(600, 600)
optimizer = torch.optim.Adam(model.parameters())
words = {"every_n_train_steps": 1, "images": int(sys.argv[2])}
with Checkpointer(sys.argv[1], model=model, optimizer=optimizer, **words) as ckpt:
    seen = []
    model(torch.rand(1, 600)).sum().backward()
    optimizer.step()
    for _ in range(120):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        ckpt.step()
        ckpt.wait()
        seen.append(resident())
    print(min(seen[-30:]) - min(seen[10:40]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system does not tell")
@pytest.mark.parametrize("images", [1, 2])
def test_the_process_does_not_grow(tmp_path, images):
    """The memory of a process after a hundred more saves is larger by less than half a state."""
    done = run_script(RESIDENT, tmp_path, images)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2000  # KiB, of a state of 4300


@pytest.mark.parametrize("overlap", [False, True])
def test_side_by_side(disk, tmp_path, overlap):
    """Three checkpointers share one image: each has its files, and the memory is that of one state."""
    model = torch.nn.Linear(200, 200)
    optimizer = torch.optim.Adam(model.parameters())
    made = [
        checkpointer(tmp_path, model=model, optimizer=optimizer, filename=f"{name}-{{step}}", overlap=overlap, **words)
        for name, words in (("a", {"save_top_k": -1}), ("b", {"monitor": "v"}), ("c", {"save_weights_only": True}))
    ]
    for number in range(6):
        model(torch.rand(1, 200)).sum().backward()
        optimizer.step()
        for each in made:
            each.step({"v": float(abs(number - 3))})
    assert len({id(each._saver) for each in made}) == 1
    assert made[0]._saver.memory < 2 * 12 * 200 * 201
    for each in made:
        each.close()
    expected = {f"a-step={step}.ckpt" for step in range(1, 7)} | {"b-step=4.ckpt", "c-step=6.ckpt"}
    assert set(names(tmp_path)) == expected
    for name in expected:
        verify(tmp_path / name)
        assert step_of(tmp_path / name) == int(name[len("a-step=") : -len(".ckpt")])


def test_one_that_closes_does_not_end_the_others(disk, tmp_path):
    """A checkpointer that is closed while another's save is on its way leaves that alone."""
    one, other = (checkpointer(tmp_path, filename=f"{name}-{{step}}") for name in "ab")
    other.step()
    one.close()
    disk.closed = True
    other.wait()
    other.step()
    disk.open()
    other.close()
    assert names(tmp_path) == ["b-step=2.ckpt"]


def test_a_resume_waits_for_what_is_on_its_way(disk, tmp_path):
    """``resume`` right after a save gives back just that save."""
    ckpt = checkpointer(tmp_path)
    ckpt.step()
    ckpt.wait()
    disk.closed = True
    ckpt.step()
    threading.Timer(0.05, disk.open).start()
    start = ckpt.resume()
    assert (start.step, os.path.basename(start.path)) == (2, "step=2.ckpt")
    ckpt.close()


def test_the_file_resumed_from_is_never_removed(disk, tmp_path):
    """Retention behind the commit leaves the checkpoint that the run resumed from."""
    with checkpointer(tmp_path) as ckpt:
        ckpt.step()
    again = checkpointer(tmp_path)
    assert again.resume().step == 1
    for _ in range(3):
        again.step()
    again.close()
    assert names(tmp_path) == ["step=1.ckpt", "step=4.ckpt"]


def test_others_see_only_what_is_committed(disk, tmp_path):
    """``newest`` passes over a save that is on its way, and finds it once it is committed."""
    ckpt = checkpointer(tmp_path)
    ckpt.step()
    ckpt.wait()
    disk.closed = True
    ckpt.step()
    assert step_of(newest(tmp_path)) == 1
    disk.open()
    ckpt.wait()
    assert step_of(newest(tmp_path)) == 2
    ckpt.close()


ENDS = """
import sys, threading, torch
from holdfast import Checkpointer
model = torch.nn.Linear(200, 200)
optimizer = torch.optim.Adam(model.parameters())
ckpt = Checkpointer(sys.argv[1], model=model, optimizer=optimizer, every_n_train_steps=1, save_top_k=-1,
                    filename="{step}", overlap=sys.argv[2] == "overlap")
for _ in range(4):
    model(torch.rand(1, 200)).sum().backward()
    optimizer.step()
    ckpt.step()
if sys.argv[3] == "raise":
    raise ValueError
"""


@pytest.mark.parametrize(("mode", "end"), [("copy", "raise"), ("overlap", "return")])
def test_the_interpreter_waits_at_its_exit(tmp_path, mode, end):
    """A script that ends, or fails, without ``close``: what was on its way is committed before it is gone."""
    done = run_script(ENDS, tmp_path, mode, end, timeout=60)
    assert done.returncode == (end == "raise"), done.stderr
    assert names(tmp_path) == [f"step={step}.ckpt" for step in range(1, 5)]
    verify(tmp_path / "step=4.ckpt")


def test_a_child_that_is_forked_amid_a_save_writes_nothing(disk, tmp_path):
    """A forked child with a save on its way neither waits for it nor writes it, and the parent commits it once."""
    ckpt = checkpointer(tmp_path)
    disk.closed = True
    ckpt.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        ckpt._saver.wait()
        os._exit(len(names(tmp_path)) > 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    disk.open()
    ckpt.close()
    assert disk.order == ["step=1.ckpt"]


ONE_THREAD = """
import sys, threading, torch
from holdfast.engine import Order, Saver
from holdfast.records import Facts
from holdfast.snapshot import stepped
from holdfast.storage import open_store

model = torch.nn.Linear(200, 200)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
saver, store = Saver(), open_store(sys.argv[1])

def submit(name):
    saver.submit(Order(store, name, {"model": model.state_dict()}, Facts(), stepped=stepped(model, [optimizer])))

def step():
    model(torch.rand(1, 200)).sum().backward()
    optimizer.step()

submit("1.ckpt")
step()
saver.wait()
start = threading.Thread.start
def fail(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = fail
submit("2.ckpt")
step()
saver.wait()
print("committed")
"""


def test_without_threads_an_overlapped_save_does_not_hang(tmp_path):
    """Where the system starts no more threads, an overlapped save is made at once, and committed."""
    import subprocess

    try:
        done = run_script(ONE_THREAD, tmp_path, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.fail("it hangs")
    assert done.stdout.strip() == "committed", done.stderr
    assert names(tmp_path) == ["1.ckpt", "2.ckpt"]


def test_a_saver_can_be_used_again(tmp_path):
    """A saver that was closed takes the next state as a new one does."""
    saver, store = Saver(), open_store(str(tmp_path))
    for number in range(3):
        saver.submit(Order(store, f"{number}.ckpt", {"a": torch.full((9,), number)}, Facts()))
        saver.close()
        assert saver.memory == 0
    assert [torch.load(tmp_path / f"{number}.ckpt")["a"][0].item() for number in range(3)] == [0, 1, 2]
