"""Bytes as people write them, and read them."""

from __future__ import annotations

import re
from typing import Any

from holdfast.errors import ConfigurationError

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)}
_UNITS |= {f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", 1)}
_THOUSAND = 1000
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_size(value: Any, word: str) -> int:
    """Return bytes: of a whole number, or of a text such as ``"5GB"`` (10^9) or ``"5GiB"`` (2^30).

    Raises:
        ConfigurationError: naming the word and the value.

    """
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is not None and match[2].upper() in _UNITS:
        size = int(float(match[1]) * _UNITS[match[2].upper()])
    else:
        size = value if isinstance(value, int) and not isinstance(value, bool) else 0
    if size <= 0:
        msg = f"`{word}` is a number of bytes above 0, such as 5000000000 or '5GB', but got {value!r}"
        raise ConfigurationError(msg)
    return size


def amount(size: int) -> str:
    """Return bytes in decimal units, as disks are sold: ``1.5 GB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < _THOUSAND:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _THOUSAND
    return f"{value:.1f} TB"
