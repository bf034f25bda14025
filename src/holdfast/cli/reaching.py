"""``--storage-options FILE``: how the command reaches the servers of its URLs. Secrets never stand in its arguments."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.errors import ConfigurationError

_WITHOUT = frozenset({"keygen", "completion", "plan"})  # verbs that look at no store


def add_reaching(verb: argparse.ArgumentParser, name: str) -> None:
    """Declare the option, where the verb has paths."""
    if name not in _WITHOUT:
        verb.add_argument(
            "--storage-options",
            metavar="FILE",
            help="a JSON file with fsspec's options for the URLs given (default: the environment, fsspec's "
            "configuration); or with an object of them for each URL prefix, such as s3://bucket",
        )


def reach(options: argparse.Namespace) -> None:
    """Have the options of the file known, for the URLs among the arguments.

    Raises:
        ConfigurationError: if the file cannot be read or holds something else; nothing of its content is told.

    """
    path = getattr(options, "storage_options", None)
    if path is None:
        return
    from holdfast.front.reaching import use_options  # noqa: PLC0415 - for those who have a URL

    given = _read(path)
    if given and all("://" in name for name in given):
        for url, each in given.items():
            use_options(each, url)
    else:
        use_options(given, *dict.fromkeys(_urls(vars(options))))


def _read(path: str) -> Mapping[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            given = json.load(file)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not JSON"
        msg = f"--storage-options {path}: {cause}"
        raise ConfigurationError(msg) from None
    if not isinstance(given, dict):
        msg = f"--storage-options {path}: it holds a {type(given).__name__}, and should hold an object"
        raise ConfigurationError(msg)
    return given


def _urls(values: Mapping[str, Any]) -> Iterator[str]:
    for value in values.values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and "://" in text:
                yield text
