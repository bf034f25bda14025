"""``holdfast prune`` and ``holdfast.prune``: what goes, what stays, and what nobody may touch."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import holdfast
from holdfast.cli import main
from holdfast.cli.prune import _sum
from holdfast.front import pruning
from holdfast.front.pruning import Pruned
from holdfast.records import Lineage
from holdfast.storage import own_directory
from tests.support.files import listing, put, save, torch_bytes
from tests.support.running import PYTHONPATH

POLICY = {"monitor": "val_loss", "mode": "min", "save_top_k": 1}
SCORES = (0.5, 0.25, 0.75, 0.6)
RULES = ("[]", "Latest(0)", "Latest(2)", "Best(2, 'val_loss')", "All()", "Within(1)", "EverySteps(2)", "Newer('1h')")


def fill(folder, run="aaaa", scores=SCORES, **facts):
    """A run's checkpoints: 1.ckpt is the best, 3.ckpt the newest."""
    os.makedirs(folder, exist_ok=True)
    for sequence, score in enumerate(scores):
        name = f"{sequence}.ckpt"
        known = {"names": {"ranked": name}, "metrics": {"val_loss": score}, "policy": POLICY, **facts}
        save(os.path.join(folder, name), run=run, step=sequence, sequence=sequence, **known)
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "run")


def test_a_dry_run_touches_nothing(folder, capsys):
    """Without ``--yes`` it says what would go and why, and every file is still there; no lock is made."""
    before = {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in listing(folder)}
    assert main(["prune", folder]) == 0
    *rows, total = capsys.readouterr().out.splitlines()
    shown = {row.split()[1]: row for row in rows}
    assert shown["0.ckpt"].startswith("remove ")
    assert "not among the best 1 by val_loss" in shown["0.ckpt"]
    assert "the lowest val_loss" in shown["1.ckpt"]
    assert total.startswith("would remove 2 of 4, ")
    assert total.endswith("nothing was removed: --yes does it")
    assert {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in listing(folder)} == before


def test_with_yes_it_goes(folder, capsys):
    """With ``--yes`` what the recorded rules drop is gone, with its signature, and JSON says so; no trace stays."""
    put(os.path.join(folder, "0.ckpt.sig"), b"a signature")
    assert main(["prune", folder, "--yes", "--json"]) == 0
    done = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert {name for name, item in done.items() if item["removed"]} == {"0.ckpt", "2.ckpt"}
    assert set(done["0.ckpt"]) == {
        "name", "path", "size", "keep", "reason", "rules", "rank", "removed", "spared",
    }  # fmt: skip
    assert listing(folder) == ["1.ckpt", "3.ckpt"]
    assert main(["prune", folder, "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to remove: all 2 are kept"


def test_given_rules_come_before_recorded_ones(folder, capsys):
    """``--keep`` replaces what the run has recorded; ``--quiet`` shows only what goes."""
    assert main(["prune", folder, "--keep", "Latest(2) | Best(2, 'val_loss')", "--yes", "--quiet"]) == 0
    assert [row.split()[1] for row in capsys.readouterr().out.splitlines()[1:-1]] == []
    assert main(["prune", folder, "--keep", "Latest(2)", "--yes", "--quiet"]) == 0
    assert [row.split()[1] for row in capsys.readouterr().out.splitlines()[1:-1]] == ["0.ckpt"]
    assert listing(folder) == ["1.ckpt", "2.ckpt", "3.ckpt"]


@pytest.mark.parametrize("rules", ["Latest(", "EverySeconds(5)", "Latest(3) & Best(1)", "__import__('os')", ""])
def test_what_is_no_rule(folder, rules, capsys):
    """What is not the notation of rules is wrong usage, nothing goes, and the message shows what was given."""
    assert main(["prune", folder, "--keep", rules, "--yes"]) == 2
    assert "the terms here are" in capsys.readouterr().err
    assert len(listing(folder)) == 4


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(RULES[1:]), max_size=3), st.permutations(SCORES))
def test_the_floor_stays(rules, scores):
    """Whatever the rules, the newest and the best are there afterwards, and so is what no rule is about."""
    folder = fill(os.path.join(os.getcwd(), "floor"), scores=scores)
    put(os.path.join(folder, "foreign.ckpt"), torch_bytes({"x": 1}))
    put(os.path.join(folder, "torn.ckpt"), b"PK\3\4 torn")
    save(os.path.join(folder, "last.ckpt"), names={"last": "last.ckpt"}, sequence=9, policy=POLICY)
    save(os.path.join(folder, "hand.ckpt"), names={}, policy=POLICY)
    shutil.copy(os.path.join(folder, "0.ckpt"), os.path.join(folder, "moved.ckpt"))
    try:
        holdfast.prune(folder, pruning.read_rules(" | ".join(rules) or "[]"), dry_run=False)
        left = set(listing(folder))
    finally:
        shutil.rmtree(folder)
    best = f"{scores.index(min(scores))}.ckpt"
    assert {"3.ckpt", best, "foreign.ckpt", "torn.ckpt", "last.ckpt", "hand.ckpt", "moved.ckpt"} <= left


def test_each_run_is_pruned_by_itself(tmp_path, capsys):
    """In a directory of runs each keeps its own best and newest."""
    fill(tmp_path / "a", run="a")
    fill(tmp_path / "b", run="b")
    assert main(["prune", str(tmp_path), "--yes"]) == 0
    assert [listing(tmp_path / name) for name in "ab"] == [["1.ckpt", "3.ckpt"]] * 2
    assert "removed 4 of 8" in capsys.readouterr().out


def test_a_source_of_another_run_stays(tmp_path):
    """A checkpoint that a run beside it resumed from is kept, though its own run would drop it."""
    fill(tmp_path / "a", run="a")
    fill(tmp_path / "b", run="b", resumed_from=Lineage(str(tmp_path / "a" / "0.ckpt"), 0, "a"))
    holdfast.prune(tmp_path, dry_run=False)
    assert listing(tmp_path / "a") == ["0.ckpt", "1.ckpt", "3.ckpt"]


def test_a_living_run_is_left_alone(folder, capsys):
    """While another process saves there nothing is removed, and the message names it; afterwards all goes its way."""
    code = (
        "import sys; from holdfast.storage import own_directory;"
        "own = own_directory(sys.argv[1], run='alive', since='now'); print('ready', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert main(["prune", folder]) == 0
        assert main(["prune", folder, "--yes"]) == 1
        assert "belongs to another run alive, which is alive" in capsys.readouterr().err
        assert sum(name.endswith(".ckpt") for name in os.listdir(folder)) == 4
        process.stdin.close()
        process.wait(timeout=60)
    assert main(["prune", folder, "--yes"]) == 0
    assert listing(folder) == ["1.ckpt", "3.ckpt"]


def test_a_run_of_this_process_too(folder):
    """A run of the very same process, as in a notebook, is no less alive."""
    own = own_directory(folder, run="mine", since="")
    try:
        with pytest.raises(holdfast.DirectoryInUseError):
            holdfast.prune(folder, dry_run=False)
    finally:
        own.give_up()
    assert len(listing(folder)) == 4


def test_what_was_written_meanwhile_stays(folder, monkeypatch):
    """A file that is no longer the one that was planned for, and one that was pinned meanwhile, are spared."""
    planned = pruning._planned
    calls = []

    def plan(*arguments):
        made = planned(*arguments)
        calls.append(arguments)
        if len(calls) == 2:  # after the plan that is carried out
            save(os.path.join(folder, "0.ckpt"), names={"ranked": "0.ckpt"}, step=99, sequence=99, policy=POLICY)
            holdfast.open(os.path.join(folder, "2.ckpt")).pin()
        return made

    monkeypatch.setattr(pruning, "_planned", plan)
    done = {item.name: item for item in holdfast.prune(folder, dry_run=False)}
    assert "not the file that was planned for" in done["0.ckpt"].spared
    assert "it was pinned" in done["2.ckpt"].spared
    assert not any(item.removed for item in done.values())
    assert [name for name in listing(folder) if name.endswith(".ckpt")] == ["0.ckpt", "1.ckpt", "2.ckpt", "3.ckpt"]


def test_a_metric_that_is_not_a_number_spares_nothing(tmp_path):
    """NaN differs from itself; the file that has it is the planned one all the same, and goes."""
    fill(tmp_path, scores=[float("nan"), 0.2, 0.1])
    answers = holdfast.prune(tmp_path, [], dry_run=False)
    assert [(item.removed, item.spared) for item in answers] == [(False, ""), (True, ""), (True, "")]


def test_notes_go_with_their_checkpoint(folder):
    """What was said of a checkpoint goes with it, and what was said of those that stay, stays."""
    holdfast.open(os.path.join(folder, "0.ckpt")).tag("gone")
    holdfast.open(os.path.join(folder, "1.ckpt")).tag("here")
    holdfast.prune(folder, dry_run=False)
    assert len(os.listdir(os.path.join(folder, ".holdfast-notes"))) == 1
    assert holdfast.open(os.path.join(folder, "1.ckpt")).tags == ("here",)


def test_shared_bytes_free_nothing(folder):
    """The bytes of a dropped name that another name still has are not counted as freed."""
    os.link(os.path.join(folder, "0.ckpt"), os.path.join(folder, "copy.ckpt"))
    size = os.path.getsize(os.path.join(folder, "2.ckpt"))
    assert pruning.freed(holdfast.prune(folder)) == size


def test_a_url_is_pruned_too():
    """Behind a URL, where there are no locks, the same goes and stays."""
    import fsspec

    for sequence, score in enumerate(SCORES):
        names = {"ranked": f"{sequence}.ckpt"}
        metrics = {"val_loss": score}
        save(f"memory://pruned/{sequence}.ckpt", names=names, sequence=sequence, metrics=metrics, policy=POLICY)
    try:
        holdfast.prune("memory://pruned", dry_run=False)
        assert [item.name for item in holdfast.catalog("memory://pruned")] == ["3.ckpt", "1.ckpt"]
    finally:
        fsspec.filesystem("memory").store.clear()


def test_the_sum_tells_of_what_is_still_there():
    """Where something could not be removed the sum says so, and never that all are kept."""
    item = Pruned("a.ckpt", "run/a.ckpt", 7, keep=False, reason="not among the newest", spared="no permission")
    told = _sum([item], argparse.Namespace(yes=True, path="run"))
    assert told == "removed 0 of 1, 0 B; 1 that the rules do not keep are still there"
