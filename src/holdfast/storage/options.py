"""What the user said of a URL's filesystem: ``storage_options``, for every URL at or below one, in this process."""

from __future__ import annotations

import difflib
import inspect
import os
import threading
from collections.abc import Mapping
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.storage.paths import is_local

OURS = ("client", "patience", "checksums")  # what is taken out before fsspec sees the options
CLIENTS = ("auto", "fsspec", "obstore")
CHECKSUMS = ("md5", "crc32", "none")
CHECKED = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})  # those that pass nothing unknown on
_COMMON = ("use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache", "asynchronous", "loop")
_remembered: dict[str, dict[str, Any]] = {}
_lock = threading.Lock()


def remember(url: str, options: Mapping[str, Any] | None) -> None:
    """Use these options for the URL and all below it, from now on; None changes nothing, an empty one forgets."""
    if options is None:
        return
    with _lock:
        if options:
            _remembered[url.rstrip("/")] = StorageOptions(options)
        else:
            _remembered.pop(url.rstrip("/"), None)


def options_for(url: str) -> dict[str, Any]:
    """Return the options of the longest URL at or above this one; none where nothing was said."""
    with _lock:
        above = [known for known in _remembered if url == known or url.startswith(f"{known}/")]
        return dict(_remembered[max(above, key=len)]) if above else {}


def all_options() -> list[dict[str, Any]]:
    """Return the options of all URLs: for those who keep their values out of texts."""
    with _lock:
        return [dict(options) for options in _remembered.values()]


class StorageOptions(dict[str, Any]):
    """Options that do not show their values: they may be secrets, and a representation gets into logs."""

    def __repr__(self) -> str:
        """Return the names alone."""
        return f"storage_options({', '.join(map(str, self))})"

    __str__ = __repr__


def use_options(options: Mapping[str, Any] | None, *places: str | os.PathLike[str] | None) -> None:
    """Check ``storage_options``, and remember them for the URLs among the places and for what lies beside those.

    None changes nothing. A place is a checkpoint or a directory of them.

    Raises:
        ConfigurationError: if they are no mapping from names to values; if no place is a URL; for a name that the
            URL's filesystem does not know. No value is in its text.

    """
    if options is None:
        return
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        msg = f"`storage_options` is a dict whose keys are names, but got a {type(options).__name__}"
        raise ConfigurationError(msg + (" with other keys" if isinstance(options, Mapping) else ""))
    urls = [text for place in places if place is not None for text in [os.fspath(place)] if not is_local(text)]
    if not urls:
        given = [os.fspath(place) for place in places if place is not None]
        msg = f"`storage_options` are for URLs such as s3://bucket/run, and there is none in {given}"
        raise ConfigurationError(msg)
    for url in urls:
        _check_ours(options)
        _check_names(url, [name for name in options if name not in OURS])
    for url in urls:
        above, _, name = url.rstrip("/").rpartition("/")
        if name and not above.endswith("/"):  # not the bucket itself
            remember(above, options)
        remember(url, options)


def _check_ours(options: Mapping[str, Any]) -> None:
    for name, known in (("client", CLIENTS), ("checksums", CHECKSUMS)):
        said = options.get(name, known[0])
        if said not in known:
            msg = f"the storage option `{name}` is one of {', '.join(known)}, but got {said!r}"
            raise ConfigurationError(msg)
    patience = options.get("patience", 1)
    if isinstance(patience, bool) or not isinstance(patience, (int, float)) or not 0 <= patience < float("inf"):
        msg = f"the storage option `patience` is a number of seconds, 0 or more, but got {patience!r}"
        raise ConfigurationError(msg)


def _check_names(url: str, names: list[str]) -> None:
    """Refuse a name that the filesystem's constructor does not take, where it says which it takes."""
    scheme = url.partition("://")[0]
    if not names or "::" in url or scheme not in CHECKED:
        return
    import fsspec  # noqa: PLC0415 - for those who have a URL

    try:
        kind = fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        return  # said where the URL is opened
    known = set(_COMMON)
    for base in kind.__mro__:
        if "__init__" in vars(base):
            known.update(inspect.signature(base.__init__).parameters)
    known -= {"self", "args", "kwargs", "storage_options"}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(known))}"
            msg = f"{scheme}:// knows no storage option {name!r}: {hint}"
            raise ConfigurationError(msg)
