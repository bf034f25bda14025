"""Texts without secrets: those that holdfast knows of, and what URLs carry."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.storage.options import all_options

_HIDDEN = "***"
_LEAST = 6  # characters of a value that is looked for: a shorter one would blot out words
_ANY = re.IGNORECASE
_NAMES = re.compile(r"secret|token|passw|credential|connection_string|sas|signature|customerkey|(^|_)key$", _ANY)
_ENVIRONMENT = re.compile(r"^(AWS|AZURE|GOOGLE|GCS|FSSPEC)_.*(SECRET|TOKEN|PASSW|KEY$|CONNECTION_STRING|SAS)", _ANY)
_USER = re.compile(r"(?<=://)[^/\s@'\"]+@")
_QUERY = re.compile(r"(\w+://[^\s?'\"<>]+)\?[^\s'\"<>]+")
_SIGNED = re.compile(
    r"\b(X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|sig|Signature)=[^&\s'\"]+", re.IGNORECASE
)


def redacted(text: str) -> str:
    """Return a text without the secrets of storage options, of fsspec's settings and of the environment.

    URLs lose who is in them, and what is behind their question mark.
    """
    for secret in sorted(set(_known()), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return _SIGNED.sub(rf"\1={_HIDDEN}", _QUERY.sub(rf"\1?{_HIDDEN}", _USER.sub(f"{_HIDDEN}@", text)))


def _known() -> Iterator[str]:
    for name, value in os.environ.items():
        if _ENVIRONMENT.search(name) and len(value) >= _LEAST:
            yield value
    for options in all_options():
        yield from _secrets(options)
    from fsspec.config import conf  # noqa: PLC0415 - whoever has an error of a server has imported it

    yield from _secrets(conf)


def _secrets(options: Mapping[Any, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secrets(value)
        elif isinstance(value, (str, bytes)) and len(value) >= _LEAST and _NAMES.search(str(name)):
            yield value if isinstance(value, str) else value.decode("utf-8", "replace")
