"""The words, checked once: what cannot be meant is an error that names it."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import ConfigurationError
from holdfast.policy.naming import NameStyle
from holdfast.policy.settings import Settings, make_settings
from tests.support.properties import examples

FLAGS = ("save_weights_only", "save_on_exception", "auto_insert_metric_name", "enable_version_counter")

WRONG = [
    ("mode", "best"),
    ("mode", None),
    ("mode", ["min"]),
    ("mode", "MIN"),
    ("monitor", 5),
    ("monitor", ["val_loss"]),
    ("monitor", b"val_loss"),
    ("save_top_k", -2),
    ("save_top_k", 1.5),
    ("save_top_k", 1.0),
    ("save_top_k", "1"),
    ("save_top_k", True),
    ("save_top_k", float("nan")),
    ("save_last", "yes"),
    ("save_last", 1),
    ("save_last", "Link"),
    ("every_n_train_steps", -1),
    ("every_n_train_steps", 2.0),
    ("every_n_train_steps", "2"),
    ("every_n_train_steps", False),
    ("every_n_epochs", -3),
    ("every_n_epochs", 0.5),
    ("every_n_epochs", timedelta(hours=1)),
    ("train_time_interval", 5),
    ("train_time_interval", 5.0),
    ("train_time_interval", "5"),
    ("train_time_interval", timedelta(seconds=-1)),
    ("save_on_train_epoch_end", 1),
    ("save_on_train_epoch_end", "no"),
    ("filename", 5),
    ("filename", b"x"),
    ("filename", ["{epoch}"]),
    *[(flag, value) for flag in FLAGS for value in (None, 1, "yes", 0.0)],
]


@pytest.mark.parametrize(("word", "value"), WRONG, ids=lambda value: repr(value)[:20])
def test_a_wrong_value_is_named(word, value):
    """A value of the wrong type or range is a ConfigurationError, a ValueError, that names the word and the value."""
    with pytest.raises(ConfigurationError) as caught:
        make_settings(**{word: value})
    assert isinstance(caught.value, ValueError)
    assert word in str(caught.value)
    assert str(value) in str(caught.value) or repr(value) in str(caught.value)
    assert caught.value.code == "HF100"


@pytest.mark.parametrize("k", [2, 3, 100])
def test_top_k_needs_a_monitor(k):
    """Without a monitor there is nothing to rank by: only None, -1, 0 and 1 make sense."""
    with pytest.raises(ConfigurationError, match=rf"save_top_k={k}, monitor=None.*`monitor`"):
        make_settings(save_top_k=k)
    assert make_settings(save_top_k=k, monitor="val_loss").save_top_k == k
    assert [make_settings(save_top_k=few).save_top_k for few in (None, -1, 0, 1)] == [1, -1, 0, 1]


@pytest.mark.parametrize("steps", [None, 0, 2])
@pytest.mark.parametrize("epochs", [None, 0, 3])
@pytest.mark.parametrize("interval", [None, timedelta(minutes=1), timedelta(0)])
def test_one_trigger_at_most(steps, epochs, interval):
    """Two triggers at once are an error that names all three; none at all means every epoch; 0 turns one off."""
    words = {"every_n_train_steps": steps, "every_n_epochs": epochs, "train_time_interval": interval}
    if bool(steps) + bool(epochs) + (interval is not None) > 1:
        with pytest.raises(ConfigurationError, match="mutually exclusive") as caught:
            make_settings(**words)
        assert all(word in str(caught.value) for word in words)
        return
    made = make_settings(**words)
    every = 1 if steps is epochs is interval is None else epochs or 0
    assert (made.every_n_train_steps, made.every_n_epochs) == (steps or 0, every)
    assert made.train_time_interval == (None if interval is None else interval.total_seconds())


def test_integers_of_other_libraries_are_integers():
    """A NumPy integer is taken for what it is; a NumPy float is not."""
    assert make_settings(every_n_train_steps=np.int64(5)).every_n_train_steps == 5
    with pytest.raises(ConfigurationError, match="every_n_train_steps"):
        make_settings(every_n_train_steps=np.float32(5))


def test_the_defaults_are_those_of_the_class_users_know():
    """No words at all: one checkpoint, the newest, at every epoch."""
    assert make_settings() == Settings()
    assert make_settings(save_last="link").save_last is make_settings(save_last=True).save_last is True
    assert make_settings(save_last=None).save_last is make_settings(save_last=False).save_last is False


@pytest.mark.parametrize(
    "template",
    [
        "{",
        "}",
        "{epoch",
        "{}",
        "{:d}",
        "{epoch!r}",
        "{a{b}}",
        "../x",
        "/x",
        "a//b",
        "{x:q}",
        "a\0b",
        "a\nb",
        "x" * 300,
        "\ud800",
    ],
)
@pytest.mark.parametrize("word", ["filename", "CHECKPOINT_NAME_LAST"])
def test_a_template_that_cannot_work_is_refused_at_once(word, template):
    """A broken template, or one that leads outside the directory, is refused when the words are given, by name."""
    words = {"filename": template} if word == "filename" else {"style": NameStyle(last=template)}
    with pytest.raises(ConfigurationError) as caught:
        make_settings(**words)
    assert repr(template)[1:20] in str(caught.value)


@examples(200)
@given(
    st.dictionaries(
        st.sampled_from(sorted(make_settings.__kwdefaults__)),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=9)
        | st.binary(max_size=3)
        | st.timedeltas()
        | st.lists(st.integers(), max_size=2),
        max_size=4,
    )
)
def test_any_words_give_settings_or_our_error(words):
    """Whatever values are given, the answer is valid settings or a ConfigurationError, never another exception."""
    words.pop("style", None)
    try:
        made = make_settings(**words)
    except ConfigurationError:
        return
    assert made.mode in ("min", "max")
    assert made.save_top_k >= -1
    assert made.every_n_train_steps >= 0
    assert made.every_n_epochs >= 0
