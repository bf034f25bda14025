"""Where the processes that tests start find the code, and what lies in a folder in which runs are alive."""

from __future__ import annotations

import os

from holdfast.storage import run_lock

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHONPATH = os.pathsep.join([REPOSITORY, os.path.join(REPOSITORY, "src")])


def everything(folder):
    """Every file below a folder, sorted, hidden ones included, but for the lock of a run that is alive here."""
    held = {item.path for item in run_lock._held.values()}
    found = [os.path.join(where, name) for where, _, files in os.walk(folder) for name in files]
    return sorted(os.path.relpath(path, folder) for path in found if os.path.realpath(path) not in held)
