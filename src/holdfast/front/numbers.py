"""What was measured, as a number."""

from __future__ import annotations

from typing import Any

from holdfast.errors import ConfigurationError


def number(name: str, value: Any) -> float:
    """Return a metric as a float; a tensor may have a graph.

    Raises:
        ConfigurationError: if it is not one number.

    """
    try:
        return float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        msg = f"the metric {name!r} must be one number, but got {value!r}"
        raise ConfigurationError(msg) from None
