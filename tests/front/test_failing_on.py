"""Saves that fail again and again: warned of, tried again, and raised once there were too many in a row."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import shutil
import subprocess

import pytest
import torch

from holdfast import ChangedStateError, Checkpointer, ConfigurationError, SaveError, verify
from holdfast.front.failures import Failures
from holdfast.storage import local
from tests.front.loops import names, step_of
from tests.support.lightning_cases import quietly

SIZE = 3 << 20  # bytes of the disks that fill up


@pytest.fixture(autouse=True)
def _way_of_saving():
    """As it is for users."""


@pytest.fixture
def disk(monkeypatch):
    """A switch: while it is off, every fsync fails as on a full disk."""
    state = {"works": True}
    real = os.fsync

    def fsync(descriptor):
        if not state["works"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(local.os, "fsync", fsync)
    return state


def opened(folder, **words):
    return Checkpointer(folder, model=torch.nn.Linear(2, 2), **({"every_n_train_steps": 1, "save_top_k": -1} | words))


def landed(ckpt):
    """Take a step and have its save decided on."""
    ckpt.step()
    ckpt._settle(wait=True)


def test_too_many_in_a_row(tmp_path, disk, caplog):
    """The first two failures are warned of and logged, each with its count; the third is raised."""
    ckpt = opened(tmp_path)
    landed(ckpt)
    disk["works"] = False
    for count in (1, 2):
        _, said = quietly(landed, ckpt)
        (text,) = said
        assert f"step={count + 1}.ckpt was not saved: No space left" in text
        assert f"try again at the next trigger; failure {count} of 3 in a row" in text
        assert text in [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    with pytest.raises(SaveError, match=r"failure 3 in a row.*max_failures=3") as caught:
        landed(ckpt)
    assert (caught.value.errno, caught.value.path) == (errno.ENOSPC, str(tmp_path / "epoch=0-step=4.ckpt"))
    assert names(tmp_path) == ["epoch=0-step=1.ckpt"]
    with pytest.raises(SaveError, match="failure 4 in a row"):
        landed(ckpt)


def test_a_commit_in_between_begins_anew(tmp_path, disk):
    """Only failures with no commit in between count: two, a commit, and two more go by."""
    ckpt = opened(tmp_path)
    for works in (False, False, True, False, False, True):
        disk["works"] = works
        quietly(landed, ckpt)
    assert names(tmp_path) == ["epoch=0-step=3.ckpt", "epoch=0-step=6.ckpt"]
    assert ckpt.stats.committed == 2


@pytest.mark.parametrize("bound", [1, 2, 5])
def test_the_bound_is_a_word(tmp_path, disk, bound):
    """``max_failures`` says which failure in a row is raised."""
    ckpt = opened(tmp_path, max_failures=bound)
    disk["works"] = False
    for _ in range(bound - 1):
        quietly(landed, ckpt)
    with pytest.raises(SaveError, match=f"max_failures={bound}"):
        landed(ckpt)


def test_what_was_asked_for_by_name_is_raised(tmp_path, disk):
    """``save_checkpoint()`` and ``wait()`` raise at the first failure, whatever ``on_error`` says."""
    ckpt = opened(tmp_path, every_n_train_steps=None, every_n_epochs=0)
    disk["works"] = False
    ckpt.step()
    with pytest.raises(SaveError, match=r"step=1\.ckpt was not saved"):
        ckpt.save_checkpoint()


def test_waiting_raises(tmp_path, disk):
    """``wait()`` raises for the save that was on its way; the failure counts, and the next one is warned of again."""
    ckpt = opened(tmp_path)
    landed(ckpt)
    disk["works"] = False
    ckpt.step()
    with pytest.raises(SaveError, match=r"step=2\.ckpt was not saved"):
        ckpt.wait()
    _, said = quietly(landed, ckpt)
    assert "failure 2 of 3" in said[0]
    disk["works"] = True
    landed(ckpt)
    ckpt.wait()


def test_the_end_warns(tmp_path, disk):
    """A last save that fails is a warning that says that there is no other; at the bound it is raised."""
    ckpt = opened(tmp_path / "a", every_n_train_steps=None, every_n_epochs=0, save_last=True)
    ckpt.step()
    disk["works"] = False
    _, said = quietly(ckpt.close)
    assert "Training has ended, and this state is not saved (failure 1 of 3 in a row)" in said[0]
    bound = opened(tmp_path / "b", every_n_train_steps=None, every_n_epochs=0, save_last=True, max_failures=1)
    bound.step()
    with pytest.raises(SaveError, match="max_failures=1"):
        bound.close()


def test_a_state_that_changed_is_no_failure():
    """A ChangedStateError is a warning at any bound, and does not count."""
    failures = Failures("raise", 1)
    error = ChangedStateError("x.ckpt", ("weight",))
    assert failures.judge(error, spared=False) == str(error)
    assert failures.in_a_row == 0


def test_the_older_name(tmp_path, disk):
    """``on_save_error`` means the same; both may be given, if they agree."""
    ckpt = opened(tmp_path, on_save_error="raise")
    assert (ckpt.on_error, ckpt.on_save_error, ckpt.max_failures) == ("raise", "raise", 3)
    assert opened(tmp_path, on_error="warn", on_save_error="warn").on_error == opened(tmp_path).on_error == "warn"
    disk["works"] = False
    with pytest.raises(SaveError, match=r"step=1\.ckpt was not saved"):
        landed(ckpt)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"on_error": "ignore"}, "`on_error` can be"),
        ({"on_save_error": True}, "`on_save_error` can be"),
        ({"on_error": "warn", "on_save_error": "raise"}, "older name of `on_error`='warn'"),
        ({"max_failures": 0}, "at least 1"),
        ({"max_failures": True}, "max_failures"),
        ({"max_failures": 2.0}, "max_failures"),
    ],
)
def test_wrong_words(tmp_path, words, named):
    """What cannot be meant is an error that names the word and the value."""
    with pytest.raises(ConfigurationError, match=named):
        Checkpointer(tmp_path, **words)


def mounted(place, *source):
    """Mount a filesystem, or skip."""
    place.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount") or not shutil.which("umount"):
        pytest.skip("only root can mount a filesystem")
    done = subprocess.run([shutil.which("mount"), *source, str(place)], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip("no filesystem can be mounted here")


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request, tmp_path):
    """A small filesystem, of memory or a real one in a file; skips where it cannot be mounted."""
    place, image = tmp_path / "disk", tmp_path / "image"
    if request.param == "tmpfs":
        mounted(place, "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs")
    else:
        maker = shutil.which("mkfs.ext4")
        if maker is None:
            pytest.skip("no mkfs.ext4")
        with open(image, "wb") as file:
            file.truncate(SIZE)
        subprocess.run([maker, "-q", "-O", "^has_journal", "-m", "0", str(image)], check=True)
        mounted(place, "-o", "loop", str(image))
    yield place
    subprocess.run([shutil.which("umount"), str(place)], check=True)


def fill(path):
    """Write until there is no room left."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * (1 << 12))


def ballasted(folder):
    """A checkpointer of a state of half a megabyte."""
    model = torch.nn.Linear(256, 512)
    return Checkpointer(folder, model=model, every_n_train_steps=1, save_top_k=1, save_last=True)


def test_a_full_disk_that_is_freed(small_disk):
    """A disk that is full is warned of, the old checkpoint stays whole; freed, the next trigger commits."""
    ckpt = ballasted(small_disk / "d")
    landed(ckpt)
    fill(small_disk / "full")
    for _ in range(2):
        _, said = quietly(landed, ckpt)
        assert any("No space left on device" in text and "in a row" in text for text in said)
        assert names(small_disk / "d") == ["epoch=0-step=1.ckpt", "last.ckpt"]
        assert verify(ckpt.best_model_path).facts.step == verify(ckpt.last_model_path).facts.step == 1
    os.unlink(small_disk / "full")
    _, said = quietly(landed, ckpt)
    assert said == []
    ckpt.close()  # and the blocks of what was dropped are given back
    assert names(small_disk / "d") == ["epoch=0-step=4.ckpt", "last.ckpt"]
    assert step_of(ckpt.best_model_path) == step_of(ckpt.last_model_path) == 4


def test_a_limit_that_is_lifted(tmp_path):
    """EFBIG is warned of, and leaves nothing; with the limit gone the next trigger commits."""
    ckpt = ballasted(tmp_path)
    landed(ckpt)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, hard))
    try:
        _, said = quietly(landed, ckpt)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert any("File too large" in text and "failure 1 of 3 in a row" in text for text in said)
    assert names(tmp_path) == ["epoch=0-step=1.ckpt", "last.ckpt"]
    landed(ckpt)
    ckpt.close()
    assert names(tmp_path) == ["epoch=0-step=3.ckpt", "last.ckpt"]
    assert step_of(ckpt.last_model_path) == 3
