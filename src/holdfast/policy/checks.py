"""Checks of the arguments that several values share."""

from __future__ import annotations

import math
from numbers import Real
from operator import index
from typing import Any

from holdfast.errors import ConfigurationError


def whole_number(what: str, value: Any, *, least: int) -> int:
    """Return an integer that is at least so large.

    Raises:
        ConfigurationError: for anything else; ``what`` stands in front of the message.

    """
    try:
        if isinstance(value, bool):
            raise TypeError  # noqa: TRY301 - True is an int to Python, and never one to the user
        number = index(value)
    except TypeError:
        msg = f"{what} must be an integer, but got {value!r}"
        raise ConfigurationError(msg) from None
    if number < least:
        msg = f"{what} must be at least {least}, but got {number}"
        raise ConfigurationError(msg)
    return number


def metric_name(what: str, value: Any) -> str:
    """Return the name of a metric.

    Raises:
        ConfigurationError: for anything but a str that is not empty.

    """
    if not isinstance(value, str) or not value:
        msg = f"{what} must be the name of a metric, but got {value!r}"
        raise ConfigurationError(msg)
    return value


def extreme(what: str, value: Any) -> str:
    """Return ``"min"`` or ``"max"``.

    Raises:
        ConfigurationError: for anything else.

    """
    if value not in ("min", "max"):
        msg = f"{what} can be 'min' or 'max', but got {value!r}"
        raise ConfigurationError(msg)
    return "min" if value == "min" else "max"


def number(what: str, value: Any, *, least: float = 0.0, above: float | None = None) -> float:
    """Return a finite number that is at least so large, or larger than ``above``.

    Raises:
        ConfigurationError: for anything else; ``what`` stands in front of the message.

    """
    if isinstance(value, Real) and not isinstance(value, bool):
        given = float(value)
        if math.isfinite(given) and given >= least and (above is None or given > above):
            return given
    bound = f"at least {least:g}" if above is None else f"more than {above:g}"
    msg = f"{what} must be a finite number of {bound}, but got {value!r}"
    raise ConfigurationError(msg)
