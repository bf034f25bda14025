"""Spans of time as people write them: ``"36h"``, ``"7d"``, ``timedelta(hours=36)``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from holdfast.errors import ConfigurationError

_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def span(what: str, value: Any) -> timedelta:
    """Return a span above 0, given as a ``timedelta`` or as a text.

    Raises:
        ConfigurationError: for anything else; ``what`` stands in front of the message.

    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,7}(?:\.\d{1,6})?)\s*(s|min|h|d|w)\s*", value, re.ASCII)
        if match is not None:
            value = timedelta(**{_UNITS[match[2]]: float(match[1])})
    if not isinstance(value, timedelta) or value <= timedelta(0):
        msg = (
            f"{what} takes a datetime.timedelta above 0, or a text such as '36h', '7d' or '2w' "
            f"(units: {', '.join(_UNITS)}), but got {value!r}"
        )
        raise ConfigurationError(msg)
    return value
