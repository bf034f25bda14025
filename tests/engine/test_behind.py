"""What a loop sees of saves that are made behind its back: order, errors, memory, and what is told when."""

from __future__ import annotations

import errno
import threading
import warnings

import pytest

from holdfast import SaveError, verify
from tests.engine.disks import checkpointer, landed
from tests.front.loops import names, step_of


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
