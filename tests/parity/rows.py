"""The rows of the contract by which holdfast's class differs from Lightning 2.6's, and no others."""

from __future__ import annotations

import enum


class Row(enum.Enum):
    """One amendment to Lightning's behaviour: the sentence of the contract that demands it."""

    LAST = (
        "save_last=True: `last.ckpt` is the state at the end of every epoch (and at each step/time save), "
        "whether or not the ranking kept that state"
    )
    FRESH = (
        "stale monitor: a step- or time-triggered save is ranked by the metric of that model or it waits for the "
        "validation that produces it; never by the previous validation's value"
    )
    AT_ONCE = (
        "stale monitor: a step- or time-triggered save is ranked by the metric of that model or it waits for the "
        "validation (and where the metric is there already, it does not wait for one that does not come)"
    )
    LATER = (
        "stale monitor: it waits for the validation that produces it (and no longer, also where epoch saves happen "
        "at the end of the training epoch)"
    )
    MISSING = "missing monitor: on a step or time trigger: one warning at the first occurrence, naming it"
    STEPS = "steps: `every_n_train_steps` and `{step}` count finished optimizer steps (with none, no save is due)"
    NAN = "ranking: NaN is the worst, whatever the mode, and is never called best"
    TIES = "ranking: ties keep the older"
    OVERWRITTEN = (
        "ranking: `kth_best_model_path`, `kth_value`, `best_k_models` never name a file that is not committed "
        "(one that was written over, by `enable_version_counter=False`, is gone, and no other goes in its place)"
    )
    MANUAL = "manual optimization: step and time triggers work"
    DRY = "fast_dev_run: nothing is written"


ALL = frozenset(Row)
NONE: frozenset[Row] = frozenset()
