"""A directory as a value: what it lists, in which order, and what it answers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from datetime import datetime, timezone

import fsspec
import pytest

import holdfast
from holdfast import CheckpointNotFoundError, ConfigurationError, Latest, MissingMetricError, SaveError
from holdfast.records import Lineage
from tests.support.files import put, save, small_state, torch_bytes

POLICY = {"monitor": "val_loss", "mode": "min", "save_top_k": 2}


def run_of(folder, scores, run="aaaa", **facts):
    """A run's ranked checkpoints, one for each score."""
    os.makedirs(folder, exist_ok=True)
    return [
        save(
            f"{folder}/step={at}.ckpt",
            **{
                "step": at,
                "epoch": at // 10,
                "sequence": at,
                "run": run,
                "policy": POLICY,
                "metrics": {"val_loss": score, "acc": 1 - score},
                "time": f"2026-01-02T03:04:{at:02d}.000+00:00",
                **facts,
            },
        )
        for at, score in enumerate(scores, 1)
    ]


def test_newest_first_with_reasons(tmp_path):
    """Checkpoints come newest first, each with its facts and why it is kept; those without a manifest at the end."""
    run_of(tmp_path, [0.3, 0.1, 0.2, 0.4])
    put(tmp_path / "a.ckpt", torch_bytes(small_state()))
    put(tmp_path / "b.ckpt", b"garbage in place of a file")
    catalog = holdfast.catalog(tmp_path)
    names = [f"step={at}.ckpt" for at in (4, 3, 2, 1)]
    assert [item.name for item in catalog] == [*names, "a.ckpt", "b.ckpt"]
    assert [item.kept for item in catalog] == [
        "the newest",
        "2 of the 2 lowest val_loss",
        "1 of the 2 lowest val_loss",
        "not among the best 2 by val_loss",
        "",
        "",
    ]
    first = catalog[0]
    assert (first.step, first.epoch, first.sequence, first.run, first.role) == (4, 0, 4, "aaaa", "ranked")
    assert first.time == datetime(2026, 1, 2, 3, 4, 4, tzinfo=timezone.utc)
    assert (first.monitor, first.mode, first.score) == ("val_loss", "min", 0.4)
    assert (first.metrics, first.late_metrics) == ({"val_loss": 0.4, "acc": 0.6}, {})
    assert (catalog[4].facts, catalog[4].role, catalog[4].problem) == (None, "foreign", "")
    assert list(catalog[:2]) == [catalog[0], catalog[1]]
    assert catalog.named("step=2.ckpt") is catalog.named(tmp_path / "step=2.ckpt") is catalog[2]
    with pytest.raises(CheckpointNotFoundError, match="step=9"):
        catalog.named("step=9.ckpt")


def test_best_and_last(tmp_path):
    """The best by any metric and mode, the older of equals, never by NaN; and the newest."""
    run_of(tmp_path, [0.3, 0.1, 0.1, math.nan, 0.4])
    catalog = holdfast.catalog(tmp_path)
    assert catalog.last() is catalog[0]
    assert catalog.best().step == catalog.best("val_loss").step == 2
    assert catalog.best("val_loss", "max").step == 5
    assert catalog.best("acc", "max").step == 2
    with pytest.raises(ConfigurationError, match="Say which"):
        catalog.best("acc")
    with pytest.raises(ConfigurationError, match="'up'"):
        catalog.best("acc", "up")
    with pytest.raises(MissingMetricError, match=r"Known are: acc, val_loss"):
        catalog.best("f1")


def test_the_best_of_nothing(tmp_path):
    """An empty directory has no best and no last; one in which nothing is ranked says so; all NaN has no best."""
    assert (holdfast.catalog(tmp_path).best(), holdfast.catalog(tmp_path).last()) == (None, None)
    save(tmp_path / "x.ckpt")
    with pytest.raises(MissingMetricError, match="name one"):
        holdfast.catalog(tmp_path).best()
    run_of(tmp_path / "nan", [math.nan, math.nan])
    assert holdfast.catalog(tmp_path / "nan").best() is None


def test_what_people_say_is_followed(tmp_path):
    """Tags, pins, notes and late metrics are read back, by the object that was told and by a new one; ranks follow."""
    run_of(tmp_path, [0.3, 0.1, 0.2, 0.4])
    catalog = holdfast.catalog(tmp_path)
    oldest = catalog[-1]
    assert oldest.kept == "not among the best 2 by val_loss"
    assert oldest.tag("paper", "v1").pin().note("the one of figure 3") is oldest
    assert "pinned" in oldest.kept
    catalog[0].add_metrics({"val_loss": 0.01, "f1": math.nan, "big": math.inf})
    for seen in (catalog, holdfast.catalog(tmp_path)):
        assert (seen[-1].tags, seen[-1].pinned, seen[-1].kept) == (("paper", "v1"), True, "pinned")
        assert [note.text for note in seen[-1].notes] == ["the one of figure 3"]
        assert seen[0].kept == "1 of the 2 lowest val_loss, the newest"
        assert seen[0].score == seen[0].metrics["val_loss"] == seen[0].late_metrics["val_loss"] == 0.01
        assert seen[0].facts.metrics["val_loss"] == 0.4
        assert (seen.best().step, seen.best("f1", "max"), seen.best("big", "max").step) == (4, None, 4)
        assert seen.records()[0]["late_metrics"] == "val_loss,f1,big"
    alone = holdfast.open(tmp_path / "step=1.ckpt")
    assert (alone.kept, alone.tags) == ("pinned", ("paper", "v1"))
    assert alone.unpin().untag("paper", "never there").tags == ("v1",)
    assert (alone.pinned, alone.kept) == (False, "not among the best 2 by val_loss")
    assert len(holdfast.catalog(tmp_path)) == 4


def test_plans_by_other_rules(tmp_path):
    """Given rules decide for every run in the directory by itself, and nothing is removed by asking."""
    run_of(tmp_path / "a", [0.3, 0.1, 0.2])
    run_of(tmp_path / "b", [0.1, 0.3, 0.2], run="bbbb")
    catalog = holdfast.catalog(tmp_path)
    kept = {decision.name: decision.keep for decision in catalog.plan(Latest(1))}
    best_and_newest = {"a/step=2.ckpt", "a/step=3.ckpt", "b/step=1.ckpt", "b/step=3.ckpt"}
    assert {name for name, keep in kept.items() if keep} == best_and_newest
    with_source = catalog.plan([], resumed_from=["a/step=1.ckpt"])
    assert {decision.name for decision in with_source if decision.keep} == best_and_newest | {"a/step=1.ckpt"}
    assert [decision.name for decision in with_source] == [item.name for item in catalog]
    with pytest.raises(ConfigurationError, match=r"no rule|not understood"):
        catalog.plan("Latest")
    with pytest.raises(ConfigurationError, match="zone"):
        catalog.plan(now=datetime(2026, 1, 1))  # noqa: DTZ001 - what is to be refused
    assert len(holdfast.catalog(tmp_path)) == 6


def test_recorded_rules_are_followed(tmp_path):
    """A run that says by which rules it keeps is explained by them; where they cannot be read, nothing would go."""
    run_of(tmp_path / "a", [0.3, 0.1, 0.2, 0.4], policy={**POLICY, "keep": "Latest(1) | EverySteps(3)"})
    run_of(tmp_path / "b", [0.3, 0.1, 0.2, 0.4], run="bbbb", policy={**POLICY, "keep": "Oldest(1)"})
    kept = {decision.name: decision.keep for decision in holdfast.catalog(tmp_path).plan()}
    assert [kept[f"a/step={at}.ckpt"] for at in (1, 2, 3, 4)] == [False, True, True, True]
    assert all(kept[f"b/step={at}.ckpt"] for at in (1, 2, 3, 4))


@pytest.mark.parametrize("moved", [False, True])
def test_what_a_run_resumed_from_is_kept(tmp_path, moved):
    """No rules drop the checkpoint that the newest says its run resumed from, also after the directory was moved."""
    paths = run_of(tmp_path / "a", [0.3, 0.1])
    lineage = Lineage("/elsewhere/step=1.ckpt" if moved else paths[0], 1, "aaaa")
    save(tmp_path / "a/step=3.ckpt", step=3, sequence=3, policy=POLICY, metrics={"val_loss": 0.5}, resumed_from=lineage)
    decisions = holdfast.catalog(tmp_path / "a").plan([])
    assert [decision.keep for decision in decisions] == [True, True, True]
    assert "resumed from" in decisions[-1].reason


def test_two_names_of_one_save(tmp_path):
    """What is said of one name of a save is said of the other, wherever it lies; its bytes are counted once."""
    names = {"ranked": "deep/step=1.ckpt", "last": "last.ckpt"}
    os.mkdir(tmp_path / "deep")
    path = save(tmp_path / "deep/step=1.ckpt", names=names, policy=POLICY)
    os.link(path, tmp_path / "last.ckpt")
    holdfast.open(tmp_path / "last.ckpt").tag("by last")
    holdfast.open(path).tag("by rank").pin()
    catalog = holdfast.catalog(tmp_path)
    assert [(item.name, item.role, item.tags, item.pinned) for item in catalog] == [
        ("last.ckpt", "last", ("by last", "by rank"), True),
        ("deep/step=1.ckpt", "ranked", ("by last", "by rank"), True),
    ]
    assert catalog.size == catalog[0].size == os.path.getsize(path)
    opened = holdfast.open(path)
    assert (opened.name, opened.path, opened.role, opened.tags) == (
        "deep/step=1.ckpt",
        path,
        "ranked",
        ("by last", "by rank"),
    )


def test_a_renamed_checkpoint_keeps_its_notes(tmp_path):
    """A rename within the folder takes along what was said, and the file is then kept as one that people have moved."""
    (path,) = run_of(tmp_path, [0.1])
    holdfast.open(path).tag("paper")
    os.rename(path, tmp_path / "best.ckpt")
    moved = holdfast.open(tmp_path / "best.ckpt")
    assert (moved.tags, moved.role, moved.kept) == (("paper",), None, "renamed or copied by hand: never removed")
    assert moved.tag("again").tags == ("paper", "again")


def test_a_checkpoint_that_went_away(tmp_path):
    """To say something of a file that is gone, or is another one by now, is an error, and leaves nothing behind."""
    first, second = run_of(tmp_path, [0.1, 0.2])
    gone, replaced = holdfast.open(first), holdfast.open(second)
    os.remove(first)
    save(second, step=9, sequence=9)
    for checkpoint in (gone, replaced):
        with pytest.raises(CheckpointNotFoundError, match="is gone"):
            checkpoint.pin()
    assert os.listdir(tmp_path) == ["step=2.ckpt"]


@pytest.mark.parametrize("data", [torch_bytes(small_state()), b"", b"garbage in place of a file"])
def test_nothing_is_noted_of_strangers(tmp_path, data):
    """A file that does not say which save it is cannot be pinned or tagged, and the error says why."""
    path = put(tmp_path / "x.ckpt", data)
    with pytest.raises((ConfigurationError, SaveError), match="nothing can be noted of"):
        holdfast.open(path).pin()
    assert os.listdir(tmp_path) == ["x.ckpt"]


@pytest.mark.parametrize(
    "wrong", [{"a": "b"}, {"a": [1, 2]}, {3: 1.0}, {"": 1.0}, {"a": 10**400}, {"\ud800": 1}], ids=repr
)
def test_wrong_late_metrics(tmp_path, wrong):
    """What is no number, or has no name that can be written, is refused before anything is written."""
    (path,) = run_of(tmp_path, [0.1])
    with pytest.raises(ConfigurationError):
        holdfast.open(path).add_metrics(wrong)
    assert os.listdir(tmp_path) == ["step=1.ckpt"]


def test_one_checkpoint(tmp_path):
    """One that is opened has its manifest, tensors and state, checks itself, and is a path to whatever takes one."""
    (path,) = run_of(tmp_path, [0.1])
    checkpoint = holdfast.open(path)
    assert os.fspath(checkpoint) == path
    assert checkpoint.tensors[0].name == "state_dict.weight"
    assert checkpoint.verify() == checkpoint.manifest
    assert checkpoint.load()["global_step"] == holdfast.load(checkpoint)["global_step"] == 2
    assert checkpoint.tensor("state_dict.weight").shape == (3, 4)
    assert [item.name for item in checkpoint.statistics("weight")] == ["state_dict.weight"]
    other = save(tmp_path / "other.ckpt", small_state(1))
    assert [change.name for change in checkpoint.diff(other).changed] == [
        change.name for change in checkpoint.diff(holdfast.open(other)).changed
    ]
    assert checkpoint.diff(other).changed
    os.remove(path)
    with pytest.raises(CheckpointNotFoundError):
        _ = checkpoint.manifest


def test_where_there_is_nothing(tmp_path):
    """A path that is not there, and one of the wrong kind, are errors that say which function takes it."""
    path = save(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointNotFoundError, match=r"holdfast\.open"):
        holdfast.catalog(path)
    with pytest.raises(CheckpointNotFoundError, match=r"holdfast\.catalog"):
        holdfast.open(tmp_path)
    for look in (holdfast.catalog, holdfast.open):
        with pytest.raises(CheckpointNotFoundError, match="nothing of that name"):
            look(tmp_path / "no")


def test_a_remote_directory():
    """A URL is listed, asked and told as a directory is."""
    url = "memory://catalog-exam/run"
    try:
        run_of_remote = save(f"{url}/x.ckpt", step=1, policy=POLICY, metrics={"val_loss": 0.5})
        assert holdfast.open(run_of_remote).tag("paper").tags == ("paper",)
        catalog = holdfast.catalog(url)
        assert [(item.name, item.tags) for item in catalog] == [("x.ckpt", ("paper",))]
        assert catalog.best().path == run_of_remote
        with pytest.raises(CheckpointNotFoundError):
            holdfast.catalog("memory://catalog-exam/no")
    finally:
        fsspec.filesystem("memory").store.clear()


def test_records_are_flat(tmp_path):
    """Each row is a flat dict of plain values with the same keys, and one more for each metric that it has."""
    run_of(tmp_path, [0.1, 0.2])
    put(tmp_path / "x.ckpt", b"")
    rows = holdfast.catalog(tmp_path).records()
    plain = (str, int, float, bool, type(None))
    assert all(isinstance(value, plain) for row in rows for value in row.values())
    keys = [{key for key in row if not key.startswith("metrics.")} for row in rows]
    assert keys[0] == keys[1] == keys[2]
    assert [row.get("metrics.val_loss") for row in rows] == [0.2, 0.1, None]
    assert rows[2]["problem"] == "the file: it is empty"


def test_notebooks_show_what_is_there(tmp_path):
    """The tables of HTML name each checkpoint, its metrics, tags and problems, and what comes from files is escaped."""
    run_of(tmp_path, [0.125, 0.25])
    put(tmp_path / "<script>.ckpt", b"")
    holdfast.open(tmp_path / "step=1.ckpt").tag("a<b>").note("<i>text\x1b[2J").add_metrics({"<late>": 1})
    html = holdfast.catalog(tmp_path)._repr_html_()
    assert "<script>" not in html
    assert "step=1.ckpt" in html
    assert "<b>val_loss = 0.125</b>" in html
    assert "a&lt;b&gt;" in html
    assert "&lt;late&gt; = 1 (late)" in html
    assert "it is empty" in html
    single = holdfast.open(tmp_path / "step=1.ckpt")._repr_html_()
    assert "&lt;i&gt;text\\x1b[2J" in single
    assert "1 of the 2 lowest val_loss" in single
    assert "val_loss=0.125, tags=a<b>" in repr(holdfast.open(tmp_path / "step=1.ckpt"))
    assert "3 checkpoints of 2 runs" in repr(holdfast.catalog(tmp_path))


def test_nothing_heavy_is_imported(tmp_path):
    """To list, to ask and to tell imports neither torch nor numpy, rich or fsspec."""
    run_of(tmp_path, [0.1, 0.2])
    code = (
        "import holdfast, sys\n"
        "catalog = holdfast.catalog(sys.argv[1])\n"
        "catalog.best().tag('x').pin(); catalog.records(); catalog._repr_html_()\n"
        "holdfast.open(catalog.last()).manifest\n"
        "print([name for name in ('torch', 'numpy', 'rich', 'fsspec') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
