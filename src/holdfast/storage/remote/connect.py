"""From a URL to the client that speaks to its server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import fsspec.core

from holdfast.errors import ConfigurationError
from holdfast.storage.options import CLIENTS, OURS, options_for
from holdfast.storage.remote.azure import AzureObjects
from holdfast.storage.remote.chance import keep_apart
from holdfast.storage.remote.claims import check_commit
from holdfast.storage.remote.failures import is_clean
from holdfast.storage.remote.gcs import GcsObjects
from holdfast.storage.remote.generic import FsspecObjects
from holdfast.storage.remote.objects import Objects
from holdfast.storage.remote.redaction import redacted
from holdfast.storage.remote.retrying import Patience, Retrying
from holdfast.storage.remote.s3 import S3Objects, once

_GOOGLE, _AZURE = frozenset({"gs", "gcs"}), frozenset({"az", "abfs", "abfss"})
_wrappers: list[Callable[[Objects], Objects]] = []


def connect(url: str) -> tuple[Objects, str]:
    """Return the objects behind a URL, and the key that the URL itself has there.

    Raises:
        ImportError: if the filesystem's package is not installed.
        ValueError: if there is none for the URL, or the environment says something else than can be meant.

    """
    objects, base = _innermost(url)
    keep_apart()
    for wrapper in _wrappers:
        objects = wrapper(objects)
    return Retrying(objects, Patience.said(options_for(url).get("patience")), check_commit), base


def _innermost(url: str) -> tuple[Objects, str]:
    said = options_for(url)
    client = said.get("client") or _client()
    options = {name: value for name, value in said.items() if name not in OURS}
    scheme = url.partition("://")[0]
    kind: Any = None if "::" in url else fsspec.get_filesystem_class(scheme)
    if kind is not None and hasattr(kind, "_call_s3"):
        words = {**kind._get_kwargs_from_urls(url), **options}  # noqa: SLF001 - as fsspec itself does
        fs = once(kind, sockets=client != "fsspec")(**words)
        return _by_client(S3Objects(fs, said.get("checksums", "md5")), fs, client), _bare_key(kind, url)
    fs, base = _made(url, options)
    if client != "fsspec" and "::" not in url:  # what has one of these names may be another package's
        if scheme in _GOOGLE and hasattr(fs, "_get_headers"):
            return GcsObjects(fs, Patience.said(said.get("patience")), check_commit), base.rstrip("/")
        if scheme in _AZURE and hasattr(fs, "service_client"):
            return AzureObjects(fs, check=said.get("checksums") != "none"), base.rstrip("/")
    return FsspecObjects(fs), base.rstrip("/")


def _client() -> str:
    client = os.environ.get("HOLDFAST_CLIENT") or CLIENTS[0]
    if client not in CLIENTS:
        msg = f"HOLDFAST_CLIENT is one of {', '.join(CLIENTS)}, but it is {client!r}"
        raise ConfigurationError(msg)
    return client


def _made(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """Return fsspec's filesystem for a URL, and its key.

    Raises:
        ImportError: if the filesystem's package is not installed.
        ValueError: if it cannot be made of these options: without a secret in its text.

    """
    try:
        fs, base = fsspec.core.url_to_fs(url, **options)
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - each has its own kinds
        said = redacted(f"{type(error).__name__}: {error}")
        msg = f"its package finds no way there by the storage options, the environment and its settings: {said}"
        raise ValueError(msg) from (error if is_clean(error) else None)
    return fs, str(base)


def _by_client(objects: S3Objects, fs: Any, client: str) -> Objects:
    """Have ranges read by obstore where that was asked for."""
    if client != "obstore":
        return objects
    from holdfast.storage.remote.obstore_client import FastObjects  # noqa: PLC0415 - only where it is asked for

    return FastObjects(objects, fs)


def _bare_key(kind: Any, url: str) -> str:
    return str(kind._strip_protocol(url)).rstrip("/")  # noqa: SLF001 - fsspec's own name for it


def key_of(url: str, root: str) -> str | None:
    """Return the key of a URL, or None if it is one of another filesystem than the root's."""
    if "://" not in url or "://" not in root:
        return None
    kind = fsspec.get_filesystem_class(root.partition("://")[0].rpartition("::")[2])
    known = {kind.protocol} if isinstance(kind.protocol, str) else set(kind.protocol)
    return _bare_key(kind, url) if url.partition("://")[0] in known else None


@contextlib.contextmanager
def wrapping(wrapper: Callable[[Objects], Objects]) -> Iterator[None]:
    """Wrap, in this process and until the end, what every ``connect`` returns: below the retries, for tests."""
    _wrappers.append(wrapper)
    try:
        yield
    finally:
        _wrappers.remove(wrapper)
