"""A script that only changes its import: what stays as it was, and the reason for all that does not."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint as StockModelCheckpoint

from holdfast.lightning import ModelCheckpoint
from tests.parity.configurations import configuration
from tests.parity.explanations import explanation
from tests.parity.oracle import predict
from tests.parity.rows import ALL, NONE, Row
from tests.parity.training import Run, train

SEEDS = range(1000)
# The first ones, one for each row that it alone explains, and two with several optimizer steps in a batch.
SAMPLE = (*range(16), 21, 51, 54, 69, 129, 135, 226, 248, 511)

pytestmark = pytest.mark.skipif(
    not version("lightning").startswith("2.6."), reason="Lightning's rules are written down for its version 2.6"
)


def compare(seed: int, root: Path, record_property) -> None:
    """Run one script with either class, and hold each against its prediction and one against the other."""
    config = configuration(seed)
    stock = train(config, StockModelCheckpoint, root / "stock")
    ours = train(config, ModelCheckpoint, root / "ours")
    assert stock.outcome.differences(predict(config, NONE)) == {}, "Lightning is not as the oracle has it"
    assert ours.outcome.differences(predict(config, ALL)) == {}, "ours is not what the contract demands"
    rows = explanation(config)
    assert rows or ours.outcome.differences(stock.outcome) == {}, "a difference that no row explains"
    assert_same_states(stock, ours)
    record_property("rows", sorted(row.name for row in rows))
    record_property("same_files", set(ours.outcome.files) == set(stock.outcome.files))


def assert_same_states(stock: Run, ours: Run) -> None:
    """The training was the same, and so is every file of the same step, whichever class wrote it."""
    if not (ours.outcome.raised or stock.outcome.raised):
        assert ours.weights[""] == stock.weights[""]
    by_step: dict[int, tuple[float, ...]] = {}
    for run in (stock, ours):
        for name, step in run.outcome.files.items():
            assert by_step.setdefault(step, run.weights[name]) == run.weights[name]
    kinds = {contents for run in (stock, ours) for contents in run.contents.values()}
    assert len(kinds) <= 1


@pytest.mark.parametrize("seed", SAMPLE)
def test_sample(seed, tmp_path, record_property):
    """In a sample of configurations all that differs from Lightning's class is what the contract changes."""
    compare(seed, tmp_path, record_property)


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_all(seed, tmp_path, record_property):
    """In a thousand configurations all that differs from Lightning's class is what the contract changes."""
    compare(seed, tmp_path, record_property)


def test_each_row_is_needed():
    """No explanation is there in vain: each row alone explains a configuration, and most need none."""
    needed = Counter(explanation(configuration(seed)) for seed in SEEDS)
    assert {row for row in Row if frozenset({row}) in needed} == set(Row)
    assert needed[NONE] > len(SEEDS) / 2


def test_the_sample_has_each_row():
    """The sample that runs every time has a configuration for each explanation, and some for none."""
    found = {explanation(configuration(seed)) for seed in SAMPLE}
    assert {NONE, *(frozenset({row}) for row in Row)} <= found


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("every_n_train_steps", {None, 1, 2, 3, 4}),
        ("every_n_epochs", {None, 0, 1, 2, 3}),
        ("train_time_interval", {None, timedelta(0)}),
        ("save_top_k", {-1, 0, 1, 2, 3}),
        ("monitor", {None, "val_loss", "train_loss", "never_logged"}),
        ("mode", {"min", "max"}),
        ("save_last", {None, True, "link"}),
        ("save_on_train_epoch_end", {None, True, False}),
        ("save_weights_only", {True, False}),
        ("enable_version_counter", {None, False}),
        ("auto_insert_metric_name", {None, False}),
    ],
)
def test_every_word_is_drawn(word, values):
    """The configurations have every value of every word of the callback."""
    assert {configuration(seed).word(word) for seed in SEEDS} == values


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("batches", {2, 3, 4, 5}),
        ("epochs", {1, 2, 3, 4}),
        ("accumulate", {1, 2}),
        ("steps_by_hand", {None, 1, 2}),
        ("validates", {True, False}),
        ("every_epochs", {None, 1, 2}),
        ("interval", {1.0, 0.5, 2, 3, 4, 5, 6}),
        ("dry", {True, False}),
        ("sanity", {0, 1}),
    ],
)
def test_every_schedule_is_drawn(part, values):
    """The configurations have every validation schedule, accumulation and way to optimize."""
    assert {getattr(configuration(seed), part) for seed in SEEDS} == values
