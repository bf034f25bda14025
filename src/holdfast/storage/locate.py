"""From a path or URL to the store that holds it."""

from __future__ import annotations

import os
import re

from holdfast.errors import ConfigurationError
from holdfast.storage.contract import Store
from holdfast.storage.local import LocalStore

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*)://")
_LOCAL_SCHEMES = ("file", "local")


def _plain(path: str) -> str:
    """Return the path without a scheme that means this machine's filesystem."""
    match = _SCHEME.match(path)
    return path[match.end() :] if match and match.group(1) in _LOCAL_SCHEMES else path


def is_local(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is on this machine's filesystem rather than behind a URL."""
    return _SCHEME.match(_plain(os.fspath(path))) is None and "::" not in os.fspath(path)


def open_store(root: str | os.PathLike[str]) -> Store:
    """Return the store for a directory or fsspec URL. Creates nothing.

    Raises:
        ConfigurationError: if no filesystem is known for the URL, naming what to install.

    """
    text = os.fspath(root)
    if is_local(text):
        return LocalStore(_plain(text))
    from holdfast.storage.remote import RemoteStore  # noqa: PLC0415 - fsspec is slow to import

    try:
        return RemoteStore.at(text)
    except (ImportError, ValueError) as error:
        msg = f"no filesystem for the URL {text!r}: {error}"
        raise ConfigurationError(msg) from error


def split_path(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Split the path or URL of one blob into its store's root and its name."""
    text = os.fspath(path)
    if is_local(text):
        text = os.path.abspath(os.path.expanduser(_plain(text)))
        return os.path.dirname(text), os.path.basename(text)
    root, _, name = text.rpartition("/")
    return root, name


def join_path(root: str, name: str) -> str:
    """Join a root and a name the way the root is written."""
    return os.path.join(root, *name.split("/")) if is_local(root) else f"{root.rstrip('/')}/{name}"
