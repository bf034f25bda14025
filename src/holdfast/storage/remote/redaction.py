"""Texts without secrets: those that holdfast knows of, and what URLs carry."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from holdfast.storage.options import all_options

_HIDDEN = "***"
_LEAST = 6  # characters of a value that is looked for: a shorter one would blot out words
_ANY = re.IGNORECASE
_NAMES = re.compile(
    r"secret|token|passw|passphrase|authori[sz]ation|cookie|credential|connection_string|sas|signature|customerkey|"
    r"(^|_)key$",
    _ANY,
)
_ENVIRONMENT = re.compile(r"^(AWS|AZURE|GOOGLE|GCS|FSSPEC)_.*(SECRET|TOKEN|PASSW|KEY$|CONNECTION_STRING|SAS)", _ANY)
_USER = re.compile(r"(?<=://)[^/\s@'\"]+@")
_QUERY = re.compile(r"(\w+://[^\s?'\"<>]+)\?[^\s'\"<>]+")
_SIGNED = re.compile(
    r"\b(X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|sig|Signature|(?:access|refresh)_token|"
    r"AccountKey|SharedAccessSignature)=[^&;\s'\"]+",
    re.IGNORECASE,
)
_PIECES = re.compile(r"(?:AccountKey|sig)=([^;&]+)", re.IGNORECASE)  # secrets inside of a connection string, a SAS


def redacted(text: str) -> str:
    """Return a text without the secrets of storage options, of fsspec's settings and of the environment.

    URLs lose who is in them, and what is behind their question mark.
    """
    for secret in sorted({*_spellings(_known())}, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return _SIGNED.sub(rf"\1={_HIDDEN}", _QUERY.sub(rf"\1?{_HIDDEN}", _USER.sub(f"{_HIDDEN}@", text)))


def _spellings(secrets: Iterator[str]) -> Iterator[str]:
    """Yield secrets, those within them, and each as it stands in a URL."""
    for secret in secrets:
        for one in (secret, *(piece for piece in _PIECES.findall(secret) if len(piece) >= _LEAST)):
            yield one
            yield quote(one, safe="")


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
