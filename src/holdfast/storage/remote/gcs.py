"""Google's objects, by the session and the credentials of gcsfs: each method is one request, tried once.

An object that is larger than one block is sent as a resumable upload, block after block. Each block is tried again by
itself: the server passes over what it has already. Nothing is there before the last one, which carries the whole's
checksum, and is sent when all that has to be asked was asked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import urllib.parse
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from holdfast.storage.remote.failures import answered, translated
from holdfast.storage.remote.looped import remove_each, run_on
from holdfast.storage.remote.no_parts import NoParts
from holdfast.storage.remote.objects import Body, Bytes, Head, Listed
from holdfast.storage.remote.retrying import Patience, again

log = logging.getLogger("holdfast")

_BLOCK = 1 << 24  # bytes of one request: of 256 KiB each, as they have to be; and the most of a small object
_SILENCE = 60.0  # seconds in which a server has to say something
_SLOWEST = 1 << 16  # bytes in a second, of what is sent: a server that takes less has stopped
_FIELDS = "name,size,generation,updated"
_FRACTION = re.compile(r"(\.\d+)?Z$")
_GONE = 499  # HTTP's word for an upload that was given up


class GcsObjects(NoParts):
    """The objects of Google's store, by an instance of gcsfs's class. From any thread, and after a fork.

    A large object's blocks are sent one after the other, and only by the one who has begun: to others there are no
    parts. The server forgets an upload after a week, and tells nobody of it.
    """

    def __init__(
        self, fs: Any, patience: Patience | None = None, guard: Callable[[str], None] = lambda _: None
    ) -> None:
        """Speak through this filesystem; ask the guard before each try that may make an object of what was sent."""
        self._guard = guard
        self._made = fs
        self._pid = os.getpid()
        self._patience = patience or Patience()

    @property
    def client(self) -> str:
        """The library that speaks to the server."""
        return "gcsfs"

    @property
    def fs(self) -> Any:
        """The filesystem of this process."""
        if self._pid != os.getpid():
            self._made = type(self._made)(*self._made.storage_args, **self._made.storage_options)
            self._pid = os.getpid()
        return self._made

    def _run(self, what: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return run_on(self.fs.loop, work, what, _translated)

    async def _ask(
        self, method: str, path: str, data: Bytes | None = None, headers: dict[str, str] | None = None, **params: Any
    ) -> tuple[Any, bytes]:
        """Make one request; return its headers and its answer."""
        import aiohttp  # noqa: PLC0415 - gcsfs has imported it

        fs, size = self.fs, 0 if data is None else memoryview(data).nbytes
        await fs._set_session()  # noqa: SLF001 - gcsfs's own request tries six times
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENCE)
        request = fs.session.request(
            method,
            self._url(path, params),
            headers=fs._get_headers(headers),  # noqa: SLF001 - with its credentials
            data=data,
            timeout=limits,
            allow_redirects=False,
        )

        async def answer() -> tuple[Any, bytes]:
            async with request as said:
                body = await said.read()
                if said.status >= 400 and said.status != _GONE:  # noqa: PLR2004 - what HTTP calls an error
                    raise _RefusedError(said.status, *_said(body))
                return said.headers, body

        return await asyncio.wait_for(answer(), _SILENCE + size / _SLOWEST)

    def _url(self, path: str, params: dict[str, Any]) -> Any:
        import yarl  # noqa: PLC0415 - aiohttp has imported it

        url = path if path.startswith("http") else f"{self.fs._location}{path}"  # noqa: SLF001 - the endpoint
        said = urllib.parse.urlencode(self.fs._get_params(params))  # noqa: SLF001 - adds who pays
        return yarl.URL(f"{url}{'&' if '?' in url else '?'}{said}" if said else url, encoded=True)

    def _json(self, what: str, method: str, path: str, **params: Any) -> dict[str, Any]:
        _, body = self._run(what, lambda: self._ask(method, path, **params))
        return _parsed(what, body)

    def head(self, key: str) -> Head:
        """Look at an object."""
        return _head(self._json(f"look at {key}", "GET", _object(key), fields=_FIELDS))

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of a range."""
        data = bytearray(max(0, end - start))
        return bytes(memoryview(data)[: self.get_into(key, start, memoryview(data))])

    def get_into(self, key: str, start: int, view: memoryview) -> int:
        """Read a range into memory."""
        if not len(view):
            return 0
        try:
            return int(self._run(f"read {key}", lambda: self._receive(key, start, view)))
        except OSError as error:
            if vars(error).get("status") == 416:  # noqa: PLR2004 - HTTP's word for: it ends before
                return 0
            raise

    async def _receive(self, key: str, start: int, view: memoryview) -> int:
        """Read the answer's body into memory, as it comes."""
        import aiohttp  # noqa: PLC0415 - gcsfs has imported it

        fs, at = self.fs, 0
        await fs._set_session()  # noqa: SLF001
        headers = {"Range": f"bytes={start}-{start + len(view) - 1}", "Accept-Encoding": "identity"}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENCE)
        url = self._url(_object(key), {"alt": "media"})
        async with fs.session.get(url, headers=fs._get_headers(headers), timeout=limits) as said:  # noqa: SLF001
            if said.status >= 400:  # noqa: PLR2004 - what HTTP calls an error
                raise _RefusedError(said.status, *_said(await said.read()))
            total = said.headers.get("Content-Range", "").rpartition("/")[2]
            expected = min(len(view), int(total) - start) if total.isdigit() else said.content_length
            async for data in said.content.iter_any():
                if at + len(data) > len(view):
                    msg = f"{at + len(data)} bytes came where {len(view)} were asked for"
                    raise ConnectionError(msg)
                view[at : at + len(data)] = data
                at += len(data)
        if expected is not None and at != expected:
            msg = f"the answer ended after {at} of {expected} bytes"
            raise ConnectionError(msg)
        return at

    def put(self, key: str, data: Body, *, absent: bool = False, match: str = "") -> Head:
        """Make an object, or replace it: a small one by one request, a larger one by one for each block."""
        blocks = _blocks([data] if isinstance(data, (bytes, bytearray, memoryview)) else data)
        condition = {"ifGenerationMatch": "0" if absent else match} if absent or match else {}
        first = next(blocks)
        second = next(blocks, None)
        if second is None:
            return self._put_small(key, first, condition)
        return self._put_large(key, first, second, blocks, condition)

    def _put_small(self, key: str, data: Bytes, condition: dict[str, str]) -> Head:
        bucket, name = _split(key)
        said = {"name": name, "crc32c": _text(_checksum(data))}  # it refuses other bytes
        edge = f"holdfast{os.urandom(16).hex()}"
        body = b"".join(
            (
                f"--{edge}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(said)}\r\n".encode(),
                f"--{edge}\r\nContent-Type: application/octet-stream\r\n\r\n".encode(),
                data,
                f"\r\n--{edge}--\r\n".encode(),
            )
        )
        headers = {"Content-Type": f"multipart/related; boundary={edge}"}
        words = {"uploadType": "multipart", "name": name, **condition}
        send = partial(self._ask, "POST", _uploading(bucket), body, headers, **words)
        _, answer = self._run(f"put {key}", send)
        return self._arrived(key, _parsed(f"put {key}", answer), memoryview(data).nbytes, said["crc32c"])

    def _put_large(
        self, key: str, first: Bytes, second: Bytes, rest: Iterator[Bytes], condition: dict[str, str]
    ) -> Head:
        bucket, name = _split(key)
        what, words = f"begin an upload of {key}", {"uploadType": "resumable", "name": name, **condition}
        begin = partial(self._ask, "POST", _uploading(bucket), b"", None, **words)
        headers, _ = again(what, partial(self._run, what, begin), self._patience)
        place = headers["Location"]
        try:
            sum_of, at, block = _checksum(first), 0, first
            for follower in _chain(second, rest):
                self._send(key, place, block, _range(at, block, "*"))
                at += memoryview(block).nbytes
                sum_of, block = _checksum(follower, sum_of), follower
            size = at + memoryview(block).nbytes
            last = {**_range(at, block, str(size)), "X-Goog-Hash": f"crc32c={_text(sum_of)}"}
            answer = self._send(key, place, block, last)
        except BaseException:
            self._give_up(place)
            raise
        return self._arrived(key, _parsed(f"put {key}", answer), size, _text(sum_of))

    def _send(self, key: str, place: str, block: Bytes, headers: dict[str, str]) -> bytes:
        """Send one block, as often as it needs."""
        what_is_sent = headers["Content-Range"]
        what = f"send {what_is_sent} of {key}"

        def send() -> bytes:
            if not what_is_sent.endswith("*"):  # the last one
                self._guard(key)
            _, answer = self._run(what, lambda: self._ask("PUT", place, block, headers))
            return bytes(answer)

        return again(what, send, self._patience)

    def _give_up(self, place: str) -> None:
        try:
            self._run("give an upload up", lambda: self._ask("DELETE", place))
        except OSError as error:  # the first error is the one to tell; the server forgets it within a week
            log.debug("an upload was not given up: %s", error)

    def _arrived(self, key: str, said: dict[str, Any], size: int, checksum: str) -> Head:
        """Make sure that what the server has is what was sent; remove what is not."""
        head = _head(said)
        if head.size == size and said.get("crc32c", checksum) == checksum:
            return head
        self._run(f"remove {key}", lambda: self._ask("DELETE", _object(key), ifGenerationMatch=head.etag))
        msg = f"put {key}: {size} bytes were sent, and other ones arrived: they were removed"
        raise ConnectionError(msg)

    def list(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """Return the objects whose keys begin so."""
        bucket, rest = _split(prefix)
        words = {"prefix": rest, "fields": f"items({_FIELDS}),nextPageToken", **({} if deep else {"delimiter": "/"})}
        while True:
            said = self._json(f"list {prefix}", "GET", f"/storage/v1/b/{_quoted(bucket)}/o", **words)
            for one in said.get("items", ()):
                head = _head(one)
                yield Listed(head.size, head.etag, head.modified, f"{bucket}/{one['name']}")
            if not said.get("nextPageToken"):
                return
            words["pageToken"] = said["nextPageToken"]

    def remove(self, keys: Collection[str]) -> None:
        """Remove objects: a request for each, some at a time."""

        async def one(key: str) -> None:
            try:
                await self._ask("DELETE", _object(key))
            except _RefusedError as error:
                if error.status != 404:  # noqa: PLR2004 - it is not there
                    raise

        remove_each(self._run, keys, one)

    def copy(self, source: str, target: str) -> None:
        """Copy on the server's side: a large object by several requests, and none is there before the last."""
        path = f"{_object(source)}/rewriteTo{_object(target).removeprefix('/storage/v1')}"
        more: dict[str, str] = {}
        while True:
            said = self._json(f"copy {source}", "POST", path, **more)
            if said.get("done", True):
                return
            more = {"rewriteToken": said["rewriteToken"]}


class _RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, said: str) -> None:
        super().__init__(status, code, said)
        self.status, self.code, self.said = status, code, said


def _translated(error: BaseException, what: str) -> OSError:
    if not isinstance(error, _RefusedError):
        return translated(error, what)
    known = answered(error.status, error.code, error.said, what)
    vars(known)["status"] = error.status
    return known


def _parsed(what: str, answer: bytes) -> dict[str, Any]:
    """Return what the server says; one that was cut short, though it claims success, may come whole the next time."""
    try:
        said: dict[str, Any] = json.loads(answer)
    except ValueError as error:
        msg = f"{what}: the answer is no JSON: {len(answer)} bytes of it came"
        raise ConnectionError(msg) from error
    return said


def _said(body: bytes) -> tuple[str, str]:
    """Return the server's word for an error, and its sentence."""
    text = body.decode("utf-8", "replace")
    try:
        error = json.loads(text)["error"]
        reasons = [str(one.get("reason", "")) for one in error.get("errors", ())]
        return (reasons[0] if reasons else ""), str(error.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", text[:200]


def _blocks(chunks: Iterable[Bytes]) -> Iterator[Bytes]:
    """Yield the bytes in blocks, the last of which may be smaller: one at least, and none but that is empty."""
    held, first = bytearray(), True
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        while len(view):
            if len(held) == _BLOCK:
                yield bytes(held)
                held, first = bytearray(), False
            taken = view[: _BLOCK - len(held)]
            held += taken
            view = view[len(taken) :]
    if held or first:
        yield bytes(held)


def _range(at: int, block: Bytes, total: str) -> dict[str, str]:
    return {"Content-Range": f"bytes {at}-{at + memoryview(block).nbytes - 1}/{total}"}


def _chain(second: Bytes, rest: Iterator[Bytes]) -> Iterator[Bytes]:
    yield second
    yield from rest


def _head(said: dict[str, Any]) -> Head:
    updated = _FRACTION.sub("", str(said.get("updated") or ""))
    modified = datetime.fromisoformat(f"{updated}+00:00") if updated else None
    return Head(int(said.get("size") or 0), str(said.get("generation") or ""), modified)


def _checksum(data: Bytes, before: int = 0) -> int:
    import google_crc32c  # noqa: PLC0415 - gcsfs brings it

    return int(google_crc32c.extend(before, bytes(data)))


def _text(checksum: int) -> str:
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()


def _split(key: str) -> tuple[str, str]:
    bucket, _, name = key.partition("/")
    return bucket, name


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _object(key: str) -> str:
    bucket, name = _split(key)
    return f"/storage/v1/b/{_quoted(bucket)}/o/{_quoted(name)}"


def _uploading(bucket: str) -> str:
    return f"/upload/storage/v1/b/{_quoted(bucket)}/o"
