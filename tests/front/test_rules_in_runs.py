"""``keep=`` and ``save_when=`` in a plain loop: what lies in the directory, also after a resume."""

from __future__ import annotations

import logging
import signal
from dataclasses import replace

import pytest
import torch

from holdfast import (
    At,
    Best,
    Checkpointer,
    ConfigurationError,
    EveryEpochs,
    EverySeconds,
    EverySteps,
    FakeClock,
    Latest,
    OnImprovement,
    OnSignal,
    Within,
    catalog,
    load,
)
from holdfast.engine import write_checkpoint
from holdfast.front.forgetting import to_remove
from holdfast.front.opening import checkpoints
from holdfast.front.reopening import Remembered, reopen
from holdfast.policy.ledger import Entry, Ledger
from holdfast.policy.notation import show_rules
from holdfast.records import Facts
from tests.front.loops import Loop, names, step_of

VALUES = {1: 5.0, 2: 4.0, 3: 6.0, 4: 3.0, 5: 7.0, 6: 3.5, 7: 2.0, 8: 9.0}


def make(folder, **words):
    return Checkpointer(folder, model=torch.nn.Linear(2, 1), filename="{step}", auto_insert_metric_name=False, **words)


def train(folder, steps=8, *, values=VALUES, **words):
    """Train so many steps, each with a value of ``v``; resume if there is something to resume from."""
    with make(folder, **words) as ckpt:
        start = ckpt.resume()
        for step in range(start.step + 1, steps + 1):
            ckpt.step({"v": values[step]} if step in values else None)
    return ckpt


def steps(folder):
    """The steps of the files in a directory, as plain torch reads them; each is called by its step."""
    found = sorted(step_of(folder / name) for name in names(folder))
    assert [f"{step}.ckpt" for step in found] == sorted(names(folder), key=lambda name: int(name.split(".")[0]))
    return found


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (EverySteps(3), [3, 6]),
        (EverySteps(3) | EverySteps(4), [3, 4, 6, 8]),
        (EverySteps(5) | At([1, 8]), [1, 5, 8]),
        (OnImprovement("v"), [1, 2, 4, 7]),
        (OnImprovement("v", min_delta=1.5), [1, 4]),
        (OnImprovement("v", mode="max") | At([4]), [1, 3, 4, 5, 8]),
        ([], []),
    ],
)
def test_a_run_saves_when_its_triggers_say_so(tmp_path, when, expected):
    """Each trigger, and several together, at the steps that they name; the metric may come with any step."""
    train(tmp_path, save_when=when, save_top_k=-1)
    assert steps(tmp_path) == expected


def test_seconds_stand_beside_steps(tmp_path):
    """Time asks at the first step by which it has gone by, whatever else has asked meanwhile."""
    clock = FakeClock()
    with make(tmp_path, save_when=EverySeconds(10) | At([2]), save_top_k=-1, clock=clock) as ckpt:
        for _ in range(8):
            clock.advance(4)
            ckpt.step()
    assert steps(tmp_path) == [2, 3, 6]


@pytest.mark.parametrize("behind", [True, False])
def test_the_time_between_saves_follows_what_they_cost(tmp_path, behind, caplog):
    """``EverySeconds("auto")`` saves first after ``least``; saves that stop the training for long come less often."""
    caplog.set_level(logging.INFO, "holdfast")
    clock = FakeClock()
    when = EverySeconds("auto", mtbf=1000, least=10, most=30)
    with make(tmp_path, save_when=when, save_top_k=-1, clock=clock, async_save=behind) as ckpt:
        for _ in range(8):
            clock.advance(10)
            ckpt.step()
            ckpt.wait()
            ckpt.stats.stall_seconds = 0.0 if ckpt.stats.committed < 2 else 80.0
    assert steps(tmp_path) == [1, 2, 5, 8]
    said = [record.getMessage() for record in caplog.records if "a save is due every" in record.getMessage()]
    assert "every 10 s, until it is known" in said[0]
    assert "against a failure every 0.278 h" in said[-1]
    reasons = {item.facts.reason for item in checkpoints(tmp_path)}
    assert all(reason.endswith("s, by what a save costs") for reason in reasons), reasons


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Latest(3), [6, 7, 8]),
        (Latest(2) | Best(2, "v"), [4, 7, 8]),
        (Best(2, "v", mode="max"), [5, 8]),
        (EverySteps(4) | Best(1, "v"), [4, 7, 8]),
        (Best(1, "v") | Best(1, "w", mode="max"), [7, 8]),
        ([], [8]),
        ([Latest(0)], [8]),
        ("Latest(2) | Best(1, 'v')", [7, 8]),
    ],
)
def test_a_run_keeps_what_its_rules_say(tmp_path, keep, expected):
    """The union of what the rules keep, and the floor; nothing else is left, and each file says by which rules."""
    ckpt = train(tmp_path, save_when=EverySteps(1), keep=keep)
    assert steps(tmp_path) == expected
    found = checkpoints(tmp_path)
    assert {item.facts.policy["save_when"] for item in found} == {"EverySteps(1)"}
    assert {item.facts.policy["keep"] for item in found} == {show_rules(ckpt.run.settings.keep)}
    told = catalog(tmp_path).plan(resumed_from=())
    assert all(decision.keep for decision in told), "what the run has kept, the catalog would drop"


def test_the_attributes_follow_the_rules(tmp_path):
    """The best is the best by the one metric that the rules name; the kept that have a score are the best k."""
    ckpt = train(tmp_path, save_when=EverySteps(1), keep=Latest(2) | Best(2, "v"))
    assert ckpt.best_model_path == str(tmp_path / "7.ckpt")
    assert {path.rpartition("/")[2]: float(score) for path, score in ckpt.best_k_models.items()} == {
        "4.ckpt": 3.0,
        "7.ckpt": 2.0,
        "8.ckpt": 9.0,
    }
    assert ckpt.kth_best_model_path == str(tmp_path / "8.ckpt")


def test_a_budget_is_kept_to_by_dropping_the_oldest(tmp_path):
    """``Within`` holds as soon as a save is committed; ``last``, whose bytes are those of the newest, costs nothing."""
    train(tmp_path / "one", 1, save_when=EverySteps(1))
    size = (tmp_path / "one" / "1.ckpt").stat().st_size
    limit = size * 3 + size // 2
    train(tmp_path / "d", save_when=EverySteps(1), keep=Within(limit), save_last=True)
    assert sorted(names(tmp_path / "d")) == ["6.ckpt", "7.ckpt", "8.ckpt", "last.ckpt"]
    train(tmp_path / "e", save_when=EverySteps(1), keep=Within(1) | Best(1, "v"))
    assert steps(tmp_path / "e") == [7, 8]


def test_a_resume_goes_on_by_the_rules(tmp_path):
    """What was kept is found again with its metrics and times; improvements are those over all that were saved."""
    words = {"save_when": OnImprovement("v") | At([8]), "keep": Latest(1)}
    train(tmp_path, 5, **words)
    assert steps(tmp_path) == [4]
    train(tmp_path, 6, values={6: 3.5}, **words)
    assert steps(tmp_path) == [4], "3.5 is no improvement over the 3.0 that was saved"
    train(tmp_path, 8, values={7: 2.5}, **words)
    assert steps(tmp_path) == [4, 8], "the newest, and the one that the run resumed from"


def test_what_was_dropped_is_not_forgotten_as_the_best(tmp_path):
    """The best value is remembered though no file has it any more: the rules rank by another metric."""
    words = {"save_when": OnImprovement("v") | At([3]), "keep": Latest(1) | Best(1, "w")}
    train(tmp_path, 3, values={1: 1.0, 2: 5.0, 3: 4.0}, **words)
    assert steps(tmp_path) == [3]
    train(tmp_path, 5, values={4: 2.0, 5: 0.5}, **words)
    assert steps(tmp_path) == [3, 5]


def test_a_state_that_is_measured_after_its_save_is_saved_once_more_in_its_place(tmp_path):
    """A step saves at once; the validation of the very same state gives the file its metric, and leaves one file."""
    with make(tmp_path, save_when=EverySteps(2), keep=Best(1, "v") | Latest(2)) as ckpt:
        for value in (3.0, 1.0, 2.0):
            for _ in range(2):
                ckpt.step()
            ckpt.end_validation({"v": value})
    assert steps(tmp_path) == [4, 6]
    assert {item.name: item.facts.metrics for item in checkpoints(tmp_path)} == {
        "4.ckpt": {"v": 1.0},
        "6.ckpt": {"v": 2.0},
    }
    assert ckpt.best_model_path == str(tmp_path / "4.ckpt")


def test_a_metric_of_an_earlier_state_is_none_of_this_one(tmp_path):
    """A file that was saved before the next measurement carries no value that another state has earned."""
    with make(tmp_path, save_when=EverySteps(1), keep=Best(1, "v") | Latest(9)) as ckpt:
        ckpt.step({"v": 1.0})
        ckpt.step({"other": 2.0})
    assert [(item.facts.step, item.facts.metrics) for item in checkpoints(tmp_path)] == [
        (1, {"v": 1.0}),
        (2, {"other": 2.0}),
    ]
    assert ckpt.best_model_path == str(tmp_path / "1.ckpt")


def test_a_metric_that_never_comes_stops_no_save(tmp_path):
    """With ``keep`` a wrong name of a metric costs the ranking and a warning, never a checkpoint."""
    loop = Loop()
    with pytest.warns(UserWarning, match="typo"):
        loop.run(
            loop.checkpointer(tmp_path, save_when=EveryEpochs(1), keep=Best(1, "typo") | Latest(2)), 3, scores=[3, 2, 1]
        )
    assert len(names(tmp_path)) == 2


def test_the_weights_of_a_rule_are_those_of_its_step(tmp_path):
    """What ``Best`` keeps is the state that had the score."""
    model = torch.nn.Linear(1, 1)
    with Checkpointer(tmp_path, model=model, save_when=EverySteps(1), keep=Best(1, "v")) as ckpt:
        for step in range(1, 6):
            with torch.no_grad():
                model.weight.fill_(step)
            ckpt.step({"v": abs(step - 3)})
    assert float(load(ckpt.best_model_path)["state_dict"]["weight"]) == 3


def test_signals_are_those_of_on_signal(tmp_path):
    """``OnSignal`` says at which signals to save; two that say so contradict each other."""
    ckpt = make(tmp_path, save_when=EverySteps(1) | OnSignal(signal.SIGUSR1))
    assert ckpt._signals == {signal.SIGUSR1}
    ckpt.close()
    with pytest.raises(ConfigurationError, match="OnSignal"):
        make(tmp_path, save_when=OnSignal(), save_on_signal=[signal.SIGTERM])


def test_a_step_that_a_run_comes_to_again_is_not_taken_for_the_same_state(tmp_path):
    """Only a state without a score gives way to its second save: the best of an earlier life stays."""
    run = make(tmp_path, keep=Best(1, "v") | Latest(1)).run
    good = Entry("good", 0.1, 20, 0, 8, metrics={"v": 0.1})
    early = Entry("early", None, 20, 0, 11, metrics={})
    again = Entry("again", 0.5, 20, 0, 12, metrics={"v": 0.5, "w": 1.0})
    ledger = Ledger((good, early, again))
    assert [decision.name for decision in to_remove(run, ledger, ledger)] == ["early"]


def test_what_a_run_that_went_back_had_saved_at_the_same_step_is_left_to_the_rules(tmp_path):
    """A state that is measured after its save takes the place of that save alone, not of one of an earlier course."""
    words = {"save_when": EverySteps(2), "keep": Latest(9) | Best(1, "v")}
    train(tmp_path, 4, values={}, **words)
    for _ in range(2):
        with make(tmp_path, **words) as ckpt:
            ckpt.resume(tmp_path / "2.ckpt")
            ckpt.step()
            ckpt.step()
            ckpt.wait()
            ckpt.end_validation({"v": 1.0})
    assert sorted(step_of(tmp_path / name) for name in names(tmp_path)) == [2, 4, 4, 4]


@pytest.mark.parametrize(
    "said", [{"min v": "x", "max v": 0, "other": 1, "min w": []}, {"min v": [1]}, {"min v": "nan"}, {"min v": 10**400}]
)
def test_a_manifest_of_anothers_making_is_no_obstacle(tmp_path, said):
    """What stands where the best values should, and is none, counts for nothing at a resume."""
    run = make(tmp_path, save_when=OnImprovement("v")).run
    facts = Facts(step=3, sequence=4, run=run.run, owner=run.owner, names={"ranked": "3.ckpt"})
    write_checkpoint(run.store, "3.ckpt", {"x": 1}, replace(facts, policy={"saved_best": said}))
    assert reopen(run, Remembered(), 3).saved_best == {}
