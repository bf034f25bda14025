"""Saves behind a loop's back, and the process around them: its memory, siblings, readers, children and end."""

from __future__ import annotations

import os
import threading
import warnings

import pytest
import torch

from holdfast import newest, verify
from holdfast.engine import Order, Saver
from holdfast.records import Facts
from holdfast.storage import open_store
from tests.engine.disks import checkpointer
from tests.front.loops import names, step_of
from tests.support.lightning_cases import run_script


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
