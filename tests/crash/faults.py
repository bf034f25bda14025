"""Calls to the system that kill the process, fail, or take their time: counted over all of its threads."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time


def install(folder, call, do, at=0, seconds=0.0):
    """Let the call of this name, the ``at``-th of those that touch the folder, or each, do something else.

    ``do`` is ``"kill"``, ``"wait"`` for some seconds before it is made, or the name of an error.
    """
    real, lock, counted = getattr(os, call), threading.Lock(), []

    def faulty(*arguments, **words):
        if _touches(folder, arguments):
            with lock:
                counted.append(1)
                reached = at in (0, len(counted))
            if reached:
                _act(do, seconds, arguments)
        return real(*arguments, **words)

    setattr(os, call, faulty)


def _act(do, seconds, arguments):
    if do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "wait":
        time.sleep(seconds)
        return
    number = getattr(errno, do)
    raise OSError(number, os.strerror(number), *[item for item in arguments[:1] if isinstance(item, str)])


def _touches(folder, arguments):
    for argument in arguments[:2]:
        path = os.readlink(f"/proc/self/fd/{argument}") if type(argument) is int else argument
        if isinstance(path, str) and path.startswith(folder):
            return True
    return False
