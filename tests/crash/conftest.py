"""One process that has torch loaded, for all the trainings that are killed."""

from __future__ import annotations

import os
import tempfile

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


@pytest.fixture
def place():
    """A folder in memory where there is one: the states are many, and each of them is a folder."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - for its speed
    with tempfile.TemporaryDirectory(dir=memory, prefix="holdfast-power-") as folder:
        yield os.path.join(folder, "state")


@pytest.fixture(scope="session")
def points(strace, trainer, tmp_path_factory):
    """Every system call of a whole run that touches its folder, by the words of its policy."""

    def of(words):
        folder = tmp_path_factory.mktemp("traced")
        log = str(tmp_path_factory.mktemp("trace") / "log")
        assert trainer.run(folder / "run", words, trace=log).code == 0
        return calls_on(log, folder / "run")

    return of


class _Totals:
    """Gathers what the workers have counted, and tells it: pytest hooks of a conftest that is found late."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        counts.take(getattr(node, "workeroutput", {}))

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            counts.hand_over(session.config.workeroutput)

    def pytest_terminal_summary(self, terminalreporter):
        if counts.lines():
            terminalreporter.section("covered")
            terminalreporter.write_line("\n".join(counts.lines()))


def pytest_configure(config):
    config.pluginmanager.register(_Totals(), "holdfast-counts")
