"""The ends of remote files, kept on this machine: a second listing asks the server for the listing alone.

What is kept is looked up by place, size and the etag that the server's own listing has just told, so it cannot
disagree with the server: a file that was written anew has another etag. A kept end is read and checked as one that
was fetched; one that cannot be read is fetched again (``source.read_end``). Nothing else of a file is kept, and no
secret is part of it.

In ``$XDG_CACHE_HOME/holdfast`` (``~/.cache/holdfast``), for this user alone, at most about 256 MiB. Any of it may be
removed at any time. ``HOLDFAST_CACHE=0`` keeps nothing.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable

_LIMIT = 256 << 20  # bytes: some hundred thousand ends
_OFF = frozenset({"0", "no", "off", "false"})


def kept(place: str, size: int, etag: str, fetch: Callable[[], bytes]) -> bytes:
    """Return what ``fetch`` would, from the cache where it is there; without an etag always by ``fetch``."""
    folder = _folder() if etag else None
    if folder is None:
        return fetch()
    path = _path(folder, place, size, etag)
    with contextlib.suppress(OSError, zlib.error), open(path, "rb") as file:
        return zlib.decompress(file.read())  # with a checksum
    data = fetch()
    with contextlib.suppress(OSError):  # a cache that cannot be written is none
        _write(path, zlib.compress(data, 1))
        if os.path.basename(path).startswith("00", 2):  # now and then
            _shrink(folder)
    return data


def forget(place: str, size: int, etag: str) -> None:
    """Have an end fetched the next time: it does not read as it should."""
    folder = _folder()
    with contextlib.suppress(OSError):
        if folder is not None:
            os.unlink(_path(folder, place, size, etag))


def _path(folder: str, place: str, size: int, etag: str) -> str:
    from hashlib import sha256  # noqa: PLC0415 - slow to import, and not for those who look into a folder

    name = sha256("\0".join((place, str(size), etag)).encode("utf-8", "surrogatepass")).hexdigest()
    return os.path.join(folder, name[:2], name)


def _folder() -> str | None:
    if os.environ.get("HOLDFAST_CACHE", "").lower() in _OFF:
        return None
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "holdfast", "ends") if os.path.isabs(home) else None


def _write(path: str, data: bytes) -> None:
    """Let a file appear whole; need not be durable."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    made = f"{path}.{os.getpid()}-{os.urandom(4).hex()}"
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    os.replace(made, path)


def _shrink(folder: str) -> None:
    """Remove the oldest where there are too many: down to three quarters."""
    found = []
    for where, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(where, name))
            found.append((status.st_mtime, status.st_size, os.path.join(where, name)))
    total = sum(size for _, size, _ in found)
    if total <= _LIMIT:
        return
    for _, size, path in sorted(found):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        total -= size
        if total <= _LIMIT * 3 // 4:
            return
