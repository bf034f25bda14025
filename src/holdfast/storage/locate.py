"""From a path or URL to the store that holds it."""

from __future__ import annotations

import os
import re

from holdfast.errors import ConfigurationError
from holdfast.storage.contract import Store
from holdfast.storage.local import LocalStore
from holdfast.storage.paths import is_local, plain_path, real_path
from holdfast.storage.schemes import opener_of

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}

# Elsewhere a colon and an @ mean something else: github://organisation:repository@branch/file.
# And a question mark may be part of a name.
_SIGNED = re.compile(r"\?(?=.*\b(?:sig|signature|x-amz-signature|x-goog-signature|token|access_token)=)", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=ftp:|tps:|ttp:|ssh:|smb:)//[^/@]*:[^/]*@")


def open_store(root: str | os.PathLike[str]) -> Store:
    """Return the store for a directory, an fsspec URL, or one of a scheme that has its own. Creates nothing.

    Raises:
        ConfigurationError: if no filesystem is known for the URL, naming what to install; if it has a password or
            a signature in it.

    """
    text = os.fspath(root)
    if is_local(text):
        return LocalStore(plain_path(text))
    _refuse_secrets(text)
    try:
        return _behind(text)
    except ConfigurationError:
        raise
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(text.partition("://")[0]) if isinstance(error, ImportError) else None
        cure = f": pip install 'holdfast[{extra}]'" if extra else ""
        msg = f"no filesystem for the URL {text!r}: {error}{cure}"
        raise ConfigurationError(msg) from error


def _refuse_secrets(text: str) -> None:
    if _PASSWORD.search(text):
        msg = (
            f"the URL {_PASSWORD.sub('//...@', text)!r} has a password in it, which would be written into manifests "
            "and logs: leave it out, and pass `storage_options={'username': ..., 'password': ...}`"
        )
        raise ConfigurationError(msg)
    signed = _SIGNED.search(text)
    if signed:
        msg = (
            f"the URL {text[: signed.start()]!r} has a signature or token behind it, which would be written into "
            "manifests and logs: leave it out, and pass it as storage option, such as `{'sas_token': ...}` for Azure"
        )
        raise ConfigurationError(msg)


def _behind(url: str) -> Store:
    own = opener_of(url)
    if own is not None:
        return own(url)
    from holdfast.storage.remote import RemoteStore  # noqa: PLC0415 - fsspec is slow to import

    return RemoteStore.at(url)


def same_place(one: str, other: str) -> bool:
    """Tell whether two directories or URLs are the same."""
    if is_local(one) != is_local(other):
        return False
    if is_local(one):
        return real_path(one) == real_path(other)
    first, second = open_store(one), open_store(other)
    return first.name_of(second.path("x")) == "x"


def split_path(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Split the path or URL of one blob into its store's root and its name."""
    text = os.fspath(path)
    if is_local(text):
        text = os.path.abspath(os.path.expanduser(plain_path(text)))
        return os.path.dirname(text), os.path.basename(text)
    root, _, name = text.rpartition("/")
    return root, name


def join_path(root: str, name: str) -> str:
    """Join a root and a name the way the root is written."""
    return os.path.join(root, *name.split("/")) if is_local(root) else f"{root.rstrip('/')}/{name}"
