"""One process that has torch loaded, for all the trainings that are killed."""

from __future__ import annotations

import pytest

from tests.crash import counts
from tests.crash.harness import Trainer, calls_on, can_trace, steps


@pytest.fixture(scope="session")
def trainer(tmp_path_factory):
    made = Trainer(str(tmp_path_factory.mktemp("crash")))
    yield made
    made.close()


@pytest.fixture(scope="session")
def whole(trainer, tmp_path_factory):
    """The checkpoints of an uninterrupted run, by the words of its policy."""
    known = {}

    def of(words):
        if words not in known:
            folder = tmp_path_factory.mktemp("whole")
            assert trainer.run(folder, words).code == 0
            known[words] = steps(folder)
        return known[words]

    return of


@pytest.fixture(scope="session")
def strace():
    if not can_trace():
        pytest.skip("no strace that may attach to a process (apt-get install strace)")


@pytest.fixture(scope="session")
def points(strace, trainer, tmp_path_factory):
    """Every system call of a whole run that touches its folder, by the words of its policy."""

    def of(words):
        folder = tmp_path_factory.mktemp("traced")
        log = str(tmp_path_factory.mktemp("trace") / "log")
        assert trainer.run(folder / "run", words, trace=log).code == 0
        return calls_on(log, folder / "run")

    return of


def pytest_sessionfinish(session):
    """Hand what this process has counted to the one that tells it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["crash counts"] = dict(counts.COUNTS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Add what a worker has counted."""
    counts.COUNTS.update(getattr(node, "workeroutput", {}).get("crash counts", {}))


def pytest_terminal_summary(terminalreporter):
    """Say how many faults there were."""
    for kind, number in sorted(counts.COUNTS.items()):
        terminalreporter.write_line(f"{kind}: {number}")
