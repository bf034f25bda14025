"""Trainings that end, wait or fork while saves are on their way: what the child of ``training`` does on order."""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
from importlib import import_module

import torch

from holdfast import Checkpointer, SaveError
from tests.crash.training import BATCHES, BEHIND, batches, digest, learn, loss_at, parts, width_of

LIMIT = 5  # seconds after which a forked child is taken to hang


def _opened(folder, words, **more):
    model, optimizer, schedule = parts(width_of(words))
    options = BEHIND[words] | more
    ckpt = Checkpointer(folder, model=model, optimizer=optimizer, lr_scheduler=schedule, **options)
    return ckpt, lambda batch: learn(model, optimizer, schedule, batch), model


def _path(ckpt, step):
    return os.path.join(ckpt.dirpath, f"epoch=0-step={step}.ckpt")


def leave(folder, tell, words, steps, how):
    """Take some steps and end without closing anything, the last save on its way."""
    ckpt, step, _ = _opened(folder, words, save_top_k=-1)
    for number, batch in enumerate(batches(0)[:steps], 1):
        step(batch)
        ckpt.step({"loss": loss_at(number)})
    tell({"left": steps, "there": os.path.exists(_path(ckpt, steps))})
    if how == "exit":
        sys.exit(5)
    if how == "raise":
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the end of the process
        raise RuntimeError("nobody catches this")


def die_after_waiting(folder, tell, words, steps):
    """Take some steps, wait for the last one's save, and be killed right then."""
    ckpt, step, _ = _opened(folder, words, save_top_k=-1)
    for number, batch in enumerate(batches(0)[:steps], 1):
        step(batch)
        ckpt.step({"loss": loss_at(number)})
    ckpt.wait()
    os.kill(os.getpid(), signal.SIGKILL)


def _end_at_once(ckpt):
    os._exit(0)


def _end_after_looking(ckpt):
    """What a child may do without harm: look, collect garbage, have threads of its own."""
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()
    alone = threading.active_count() == 1
    os._exit(0 if alone and not ckpt._saver.busy and ckpt.stats.saves else 1)


def _end_properly(ckpt):
    sys.exit(0)


def _end_out_of_a_block(ckpt):
    with contextlib.suppress(SystemExit), ckpt:
        sys.exit(0)
    os._exit(0)


def _end_by_closing(ckpt):
    with contextlib.suppress(SaveError):  # what is on its way is not the child's
        ckpt.close()
    os._exit(0)


ENDS = {
    "at once": _end_at_once,
    "looking": _end_after_looking,
    "properly": _end_properly,
    "with": _end_out_of_a_block,
    "close": _end_by_closing,
}


def fork(folder, tell, words, how):
    """Fork a child after each step, its save on its way; say how the children ended."""
    ckpt, step, _ = _opened(folder, words, save_top_k=-1)
    for number, batch in enumerate(batches(0)[:2], 1):
        step(batch)
        ckpt.step({"loss": loss_at(number)})
        there = os.path.exists(_path(ckpt, number))
        child = os.fork()
        if not child:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIMIT)
            ENDS[how](ckpt)
        tell({"forked": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "there": there})
    ckpt.close()


class _Batches(torch.utils.data.Dataset):
    """The batches of all epochs."""

    def __len__(self):
        return 3 * BATCHES

    def __getitem__(self, index):
        return batches(index // BATCHES)[index % BATCHES]


def load(folder, tell, words, method):
    """Train on what worker processes load, with a save after each step."""
    ckpt, step, model = _opened(folder, words)
    workers = {"num_workers": 2, "multiprocessing_context": method, "batch_size": None}
    for lap in range(2):
        for number, batch in enumerate(torch.utils.data.DataLoader(_Batches(), **workers), 1):
            step(batch)
            ckpt.step({"loss": loss_at(lap * 12 + number)})
    process = multiprocessing.get_context(method).Process(target=json.dumps, args=({},))
    process.start()
    process.join()
    saves = ckpt.stats.saves
    ckpt.close()
    tell({"digest": digest(model), "process": process.exitcode, "saves": saves})


def load_without(folder, tell, words):
    """The same without any checkpoint or worker."""
    model, optimizer, schedule = parts(width_of(words))
    for _ in range(2):
        for batch in torch.utils.data.DataLoader(_Batches(), batch_size=None):
            learn(model, optimizer, schedule, batch)
    tell({"digest": digest(model)})


def fit(folder, tell, **words):
    """Train under Lightning."""
    fitting = import_module("tests.crash.fitting")
    fitting.fit(folder, tell, **words)


ACTS = {
    "fit": fit,
    "leave": leave,
    "die after waiting": die_after_waiting,
    "fork": fork,
    "load": load,
    "load without": load_without,
}
