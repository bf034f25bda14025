"""The words of ``ModelCheckpoint``, checked once and made into one value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from operator import index
from typing import Any, Literal, TypedDict

from holdfast.errors import ConfigurationError
from holdfast.policy.keeping import rules_for, rules_of
from holdfast.policy.naming import NameStyle, check_template
from holdfast.policy.notation import parse_triggers, show_rules
from holdfast.policy.rules import Best
from holdfast.policy.terms import Term
from holdfast.policy.when import Triggers, triggers_of

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Settings:
    """What a run was told about its checkpoints; see ``make_settings`` for the words.

    ``train_time_interval`` is in seconds; a trigger that is off is 0 (``None`` for time). ``keep`` and ``save_when``
    are None where the other words say it: ask for ``rules`` and ``when``, which are what either form means.
    """

    monitor: str | None = None
    mode: Mode = "min"
    save_top_k: int = 1
    save_last: bool = False
    save_weights_only: bool = False
    save_on_exception: bool = False
    every_n_train_steps: int = 0
    train_time_interval: float | None = None
    every_n_epochs: int = 1
    save_on_train_epoch_end: bool | None = None
    filename: str | None = None
    auto_insert_metric_name: bool = True
    enable_version_counter: bool = True
    style: NameStyle = field(default_factory=NameStyle)
    keep: tuple[Term, ...] | None = None
    save_when: tuple[Term, ...] | None = None

    @cached_property
    def when(self) -> Triggers:
        """When to save."""
        if self.save_when is not None:
            return Triggers.of(self.save_when)
        steps, epochs = self.every_n_train_steps, self.every_n_epochs
        return Triggers((steps,) * (steps > 0), (epochs,) * (epochs > 0), self.train_time_interval)

    @cached_property
    def rules(self) -> tuple[Term, ...]:
        """What to keep."""
        return self.keep if self.keep is not None else rules_for(self.monitor, self.mode, self.save_top_k)

    @cached_property
    def ranked_by(self) -> frozenset[str]:
        """The metrics by which ``keep`` ranks: the monitored one, and that of each ``Best``. None without ``keep``."""
        if self.keep is None:
            return frozenset()
        named = (self.monitor, *(term.metric for term in self.keep if isinstance(term, Best)))
        return frozenset(name for name in named if name is not None)

    @cached_property
    def watched(self) -> frozenset[str]:
        """The metrics of which it matters whether they were measured on the very state that is saved."""
        return self.ranked_by | {term.metric for term in self.when.improvements}

    @property
    def notation(self) -> dict[str, str]:
        """What a manifest says of ``keep`` and ``save_when``, where they were given."""
        given = {"keep": self.keep, "save_when": self.save_when}
        return {name: show_rules(terms) for name, terms in given.items() if terms is not None}


class Words(TypedDict, total=False):
    """The words that ``make_settings`` takes, for those who pass them on."""

    monitor: str | None
    mode: str
    save_top_k: int | None
    save_last: bool | Literal["link"] | None
    save_weights_only: bool
    save_on_exception: bool
    every_n_train_steps: int | None
    train_time_interval: timedelta | None
    every_n_epochs: int | None
    save_on_train_epoch_end: bool | None
    filename: str | None
    auto_insert_metric_name: bool
    enable_version_counter: bool
    keep: Term | Iterable[Term] | str | None
    save_when: Term | Iterable[Term] | str | None


def make_settings(  # noqa: PLR0913 - these are the field's words, one parameter each
    *,
    monitor: str | None = None,
    mode: str = "min",
    save_top_k: int | None = None,
    save_last: bool | Literal["link"] | None = None,
    save_weights_only: bool = False,
    save_on_exception: bool = False,
    every_n_train_steps: int | None = None,
    train_time_interval: timedelta | None = None,
    every_n_epochs: int | None = None,
    save_on_train_epoch_end: bool | None = None,
    filename: str | None = None,
    auto_insert_metric_name: bool = True,
    enable_version_counter: bool = True,
    keep: Term | Iterable[Term] | str | None = None,
    save_when: Term | Iterable[Term] | str | None = None,
    style: NameStyle | None = None,
) -> Settings:
    """Check the words and return them as one value.

    ``keep`` stands in the place of ``save_top_k``; ``save_when`` in that of the three triggers.

    Raises:
        ConfigurationError: for a value that cannot be meant; the message names it and the cure.

    """
    _check_ranking(monitor, mode)
    style = style or NameStyle()
    auto_insert = _flag("auto_insert_metric_name", auto_insert_metric_name)
    check_template(filename, style, auto_insert=auto_insert, argument="filename")
    check_template(style.last, style, auto_insert=auto_insert, argument="CHECKPOINT_NAME_LAST")
    triggers = {
        "every_n_train_steps": every_n_train_steps,
        "train_time_interval": train_time_interval,
        "every_n_epochs": every_n_epochs,
    }
    rules = None if keep is None else rules_of(_instead("keep", keep, {"save_top_k": save_top_k}))
    terms = None if save_when is None else _terms(_instead("save_when", save_when, triggers))
    steps, interval, epochs = (0, None, 0) if terms is not None else _triggers(*triggers.values())
    if rules is not None and monitor is None:
        monitor, mode = _only_metric(rules, mode)
    return Settings(
        monitor=monitor,
        mode="min" if mode == "min" else "max",
        save_top_k=_top_k(save_top_k, monitor) if rules is None else -1,
        save_last=_save_last(save_last),
        save_weights_only=_flag("save_weights_only", save_weights_only),
        save_on_exception=_flag("save_on_exception", save_on_exception),
        every_n_train_steps=steps,
        train_time_interval=interval,
        every_n_epochs=epochs,
        save_on_train_epoch_end=_optional_flag("save_on_train_epoch_end", save_on_train_epoch_end),
        filename=filename,
        auto_insert_metric_name=auto_insert,
        enable_version_counter=_flag("enable_version_counter", enable_version_counter),
        style=style,
        keep=rules,
        save_when=terms,
    )


def _terms(value: Any) -> tuple[Term, ...]:
    return triggers_of(parse_triggers(value) if isinstance(value, str) else value)


def _check_ranking(monitor: Any, mode: str) -> None:
    if mode not in ("min", "max"):
        msg = f"`mode` can be 'min' or 'max' but got {mode!r}"
        raise ConfigurationError(msg)
    if monitor is not None and not isinstance(monitor, str):
        msg = f"`monitor` is the name of a logged metric (a str) or None, but got {monitor!r}"
        raise ConfigurationError(msg)


def _instead(name: str, value: Any, others: dict[str, Any]) -> Any:
    """Return the value, if none of the words was given in whose place it stands."""
    given = next((word for word, other in others.items() if other is not None), None)
    if given is None:
        return value
    msg = f"`{name}`={value!r} stands in the place of `{given}`={others[given]!r}: give only one of the two"
    raise ConfigurationError(msg)


def _only_metric(rules: tuple[Term, ...], mode: str) -> tuple[str | None, str]:
    """Return metric and mode of the rules, if there is just one: then that is what the run is about."""
    named = {(term.metric, term.mode or "min") for term in rules if isinstance(term, Best) and term.metric is not None}
    return named.pop() if len(named) == 1 else (None, mode)


def _top_k(save_top_k: int | None, monitor: str | None) -> int:
    if save_top_k is None:
        return 1
    k = _integer("save_top_k", save_top_k)
    if k < -1:
        msg = f"Invalid value for save_top_k={k}. Must be >= -1 (-1 keeps all, 0 none)"
        raise ConfigurationError(msg)
    if monitor is None and k not in (-1, 0, 1):
        msg = (
            f"ModelCheckpoint(save_top_k={k}, monitor=None) is not a valid configuration. "
            "No quantity for top_k to track: name one with `monitor`, or use save_top_k of -1, 0 or 1"
        )
        raise ConfigurationError(msg)
    return k


def _save_last(value: bool | Literal["link"] | None) -> bool:  # noqa: FBT001 - the user's own value
    if value is None or isinstance(value, bool):
        return bool(value)
    if value == "link":
        return True
    msg = f"`save_last` can be True, False, None or 'link' but got {value!r}"
    raise ConfigurationError(msg)


def _triggers(steps: Any, interval: Any, epochs: Any) -> tuple[int, float | None, int]:
    n_steps = _period("every_n_train_steps", steps)
    n_epochs = _period("every_n_epochs", epochs)
    seconds = _seconds(interval)
    if (n_steps >= 1) + (n_epochs >= 1) + (seconds is not None) > 1:
        msg = (
            f"Combination of parameters every_n_train_steps={steps}, every_n_epochs={epochs} and "
            f"train_time_interval={interval} should be mutually exclusive. "
            "For several triggers, use several callbacks"
        )
        raise ConfigurationError(msg)
    if steps is None and epochs is None and interval is None:
        n_epochs = 1
    return n_steps, seconds, n_epochs


def _period(name: str, value: int | None) -> int:
    if value is None:
        return 0
    n = _integer(name, value)
    if n < 0:
        msg = f"Invalid value for {name}={n}. Must be >= 0 (0 turns this trigger off)"
        raise ConfigurationError(msg)
    return n


def _seconds(interval: timedelta | None) -> float | None:
    if interval is None:
        return None
    if not isinstance(interval, timedelta):
        msg = (
            f"`train_time_interval` is a datetime.timedelta or None, but got {interval!r}: "
            f"for seconds write timedelta(seconds=...)"
        )
        raise ConfigurationError(msg)
    if interval < timedelta(0):
        msg = f"Invalid value for train_time_interval={interval!r}. Must not be negative"
        raise ConfigurationError(msg)
    return interval.total_seconds()


def _integer(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError  # noqa: TRY301 - True is an int to Python, and never one to the user
        return index(value)
    except TypeError:
        msg = f"`{name}` must be an integer or None, but got {value!r}"
        raise ConfigurationError(msg) from None


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        msg = f"`{name}` must be True or False, but got {value!r}"
        raise ConfigurationError(msg)
    return value


def _optional_flag(name: str, value: Any) -> bool | None:
    return None if value is None else _flag(name, value)
