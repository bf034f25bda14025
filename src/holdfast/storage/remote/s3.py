"""S3 by s3fs: each method is one request, tried once. What waits and tries again is above it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import Any

from holdfast.storage.doubt import already_done
from holdfast.storage.remote.checksums import Checksums, Kind
from holdfast.storage.remote.failures import answered, code_of, has_expired
from holdfast.storage.remote.looped import run_on
from holdfast.storage.remote.objects import Body, Bytes, Head, Listed, PartRules, Upload
from holdfast.storage.remote.sending import Body as Sent
from holdfast.storage.remote.sending import care_for_sending
from holdfast.storage.remote.sockets import Landing, session_words

_AT_ONCE = 1000  # keys in one request of removal
_COPY = 1 << 30  # bytes that are copied in one request: more takes longer than some servers leave an answer open
_COPIES = 8  # parts that are copied at a time
_SILENCE = 60  # seconds that a server may take nothing, or say nothing
_ASKED_ANEW = 30.0  # seconds between two looks for new credentials
_ONE_BY_ONE = frozenset(
    {"NotImplemented", "MissingContentMD5", "InvalidDigest", "MalformedXML", "InvalidRequest", "501"}
)
_LISTED = frozenset({"IsTruncated", "Name", "KeyCount", "Contents"})  # what a listing says, of nothing as well
_UNKNOWN = frozenset({"NotImplemented", "InvalidRequest", "InvalidArgument", "MethodNotAllowed", "501", "405"})


@functools.lru_cache
def once(kind: type, *, sockets: bool = True) -> type:
    """Return s3fs's class, tried once and with time limits: patience is ours, and the user's own instances his.

    With ``sockets``, bytes go as ``sockets`` has it; without, all goes through aiohttp.
    """

    def prepare(self: Any) -> dict[str, Any]:
        limits = {"connect_timeout": 10, "read_timeout": _SILENCE, "max_pool_connections": 32}
        tries = {"retries": {"total_max_attempts": 1, "mode": "standard"}}
        # Some servers send the whole object's checksum with a range; every byte is checked by the manifest's digests.
        # Those of what is sent are made here, so that they go before the bytes and not behind them.
        checks = {"response_checksum_validation": "when_required", "request_checksum_calculation": "when_required"}
        ways = session_words(self.config_kwargs) if sockets else {}
        said = {**limits, **tries, **checks, **ways, **self.config_kwargs}
        return {**said, "request_checksum_calculation": "when_required"}

    async def set_session(self: Any, *args: Any, **words: Any) -> Any:
        client = await kind.set_session(self, *args, **words)  # type: ignore[attr-defined]
        limit = prepare(self)["read_timeout"] or _SILENCE
        care_for_sending(client, float(limit))
        return client

    words = {"retries": 1, "_prepare_config_kwargs": prepare, "set_session": set_session}
    return type(kind.__name__, (kind,), words)


class S3Objects:
    """The objects of an S3 server, by an instance of ``once``'s class. From any thread, and after a fork."""

    def __init__(self, fs: Any, checksums: Kind = "md5") -> None:
        """Speak through this filesystem, or in a forked child through one that is made alike."""
        self._made = fs
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._renewed = float("-inf")
        self._sums = Checksums(checksums)
        self._crc: bool | None = None  # not known yet whether it is wanted

    @property
    def client(self) -> str:
        """The library that speaks to the server."""
        return "s3fs"

    @property
    def parts(self) -> PartRules | None:
        """How objects are taken in parts."""
        return PartRules()

    @property
    def fs(self) -> Any:
        """The filesystem of this process."""
        if self._pid != os.getpid():
            self._made = type(self._made)(*self._made.storage_args, **self._made.storage_options)
            self._lock = threading.Lock()
            self._pid = os.getpid()
        return self._made

    def _run(self, work: Callable[[], Coroutine[Any, Any, Any]], what: str) -> Any:
        """Run it on fsspec's loop; with credentials that have expired once more, if there are new ones."""
        try:
            return self._run_once(work, what)
        except PermissionError as error:
            if not (has_expired(error) and self._renew()):
                raise
        return self._run_once(work, what)

    def _run_once(self, work: Callable[[], Coroutine[Any, Any, Any]], what: str) -> Any:
        return run_on(self.fs.loop, work, what)

    def _renew(self) -> bool:
        """Ask whoever gives the credentials anew, where they were not handed to us; tell whether that was done."""
        fs = self.fs
        if fs.key or fs.anon:
            return False
        with self._lock:
            if time.monotonic() - self._renewed > _ASKED_ANEW:
                self._run_once(lambda: fs.set_session(refresh=True), "renew the credentials")
                self._renewed = time.monotonic()
        return True

    def _call(self, method: str, key: str, **words: Any) -> Any:
        bucket, rest = self.fs._find_bucket_key(key)  # noqa: SLF001 - it knows access points
        if rest:
            words["Key"] = rest
        call = functools.partial(self.fs._call_s3, method, Bucket=bucket, **words)  # noqa: SLF001
        return self._run(call, f"{method} {key}")

    def _send(self, method: str, key: str, data: Bytes, **words: Any) -> Any:
        """Send bytes with their checksums, by which the server sees whether they have come as they were."""
        sums = self._sums.of(data, crc=self._sums.wants_crc and self._may_check())
        try:
            said = self._call(method, key, Body=Sent(data), **sums, **words)
        except OSError as error:
            if not self._sums.is_refused(error):
                raise
            return self._send(method, key, data, **words)
        part = f" part {words['PartNumber']}" if "PartNumber" in words else ""
        self._sums.compare(f"{method} {key}{part}", sums, _bare(said))
        return said

    def _may_check(self) -> bool:
        """Tell whether botocore's own settings want checksums that not every server knows."""
        if self._crc is None:
            name, fs = "request_checksum_calculation", self.fs
            self._run_once(fs.set_session, "connect")
            said = fs.config_kwargs.get(name) or fs.session.get_config_variable(name) or "when_supported"
            self._crc = str(said).lower() == "when_supported"
        return self._crc

    def head(self, key: str) -> Head:
        """Look at an object."""
        said = self._call("head_object", key)
        size = _has(said, "ContentLength", f"head_object {key}")
        return Head(int(size), _bare(said), said.get("LastModified"))

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of a range."""
        if end <= start:
            return b""
        data = bytearray(end - start)
        return bytes(memoryview(data)[: self.get_into(key, start, memoryview(data))])

    def get_into(self, key: str, start: int, view: memoryview) -> int:
        """Read a range into memory."""
        if not len(view):
            return 0
        bucket, rest = self.fs._find_bucket_key(key)  # noqa: SLF001
        what = f"get_object {key}"
        words = {"Bucket": bucket, "Key": rest, "Range": f"bytes={start}-{start + len(view) - 1}"}
        try:
            return int(self._run(lambda: _receive(self.fs, words, start, view), what))
        except OSError as error:
            if code_of(error) in ("InvalidRange", "416"):
                return 0  # it ends before
            raise

    def put(self, key: str, data: Body, *, absent: bool = False, match: str = "") -> Head:
        """Make an object, or replace it."""
        body = data if isinstance(data, (bytes, bytearray, memoryview)) else b"".join(data)
        said = self._send("put_object", key, body, **_conditions(absent=absent, match=match))
        return Head(memoryview(body).nbytes, _bare(said))

    def begin(self, key: str) -> str:
        """Begin an upload in parts."""
        return str(_has(self._call("create_multipart_upload", key), "UploadId", f"create_multipart_upload {key}"))

    def part(self, key: str, upload: str, number: int, data: Bytes) -> str:
        """Send one part."""
        return _bare(self._send("upload_part", key, data, UploadId=upload, PartNumber=number))

    def complete(self, key: str, upload: str, etags: list[str], *, absent: bool = False) -> Head:
        """Make the object of its parts."""
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in enumerate(etags, 1)]
        words = {"UploadId": upload, "MultipartUpload": {"Parts": parts}, **_conditions(absent=absent)}
        said = self._call("complete_multipart_upload", key, **words)
        _has(said, "ETag", f"complete_multipart_upload {key}")  # what is there may be what was there before
        with already_done():
            return Head(self.head(key).size, _bare(said))

    def abort(self, key: str, upload: str) -> None:
        """Give an upload up."""
        try:
            self._call("abort_multipart_upload", key, UploadId=upload)
        except FileNotFoundError:
            return

    def uploads(self, prefix: str) -> list[Upload]:
        """Return the uploads whose keys begin so."""
        bucket, rest = self.fs._find_bucket_key(prefix)  # noqa: SLF001
        found: list[Upload] = []
        more: dict[str, Any] = {}
        while True:
            said = self._call("list_multipart_uploads", bucket, Prefix=rest, **more)
            found += [
                Upload(f"{bucket}/{one['Key']}", one["UploadId"], one.get("Initiated"))
                for one in said.get("Uploads", ())
            ]
            if not said.get("IsTruncated"):
                return found
            more = {"KeyMarker": said["NextKeyMarker"], "UploadIdMarker": said["NextUploadIdMarker"]}

    def parts_of(self, key: str, upload: str) -> dict[int, Head]:
        """Return the parts that the server has of an upload."""
        found: dict[int, Head] = {}
        more: dict[str, Any] = {}
        while True:
            said = self._call("list_parts", key, UploadId=upload, **more)
            for one in said.get("Parts", ()):
                found[int(one["PartNumber"])] = Head(int(one["Size"]), _bare(one), one.get("LastModified"))
            if not said.get("IsTruncated"):
                return found
            more = {"PartNumberMarker": said["NextPartNumberMarker"]}

    def remove(self, keys: Collection[str]) -> None:
        """Remove objects."""
        by_bucket: dict[str, list[str]] = {}
        for key in keys:
            bucket, rest = self.fs._find_bucket_key(key)  # noqa: SLF001
            by_bucket.setdefault(bucket, []).append(rest)
        for bucket, rests in by_bucket.items():
            for at in range(0, len(rests), _AT_ONCE):
                self._remove(bucket, rests[at : at + _AT_ONCE])

    def _remove(self, bucket: str, rests: list[str]) -> None:
        if len(rests) > 1:
            wanted = {"Objects": [{"Key": rest} for rest in rests], "Quiet": True}
            try:
                said = self._call("delete_objects", bucket, Delete=wanted)
            except OSError as error:
                if code_of(error) not in _ONE_BY_ONE:
                    raise
            else:
                _all_removed(bucket, said.get("Errors", ()))
                return
        for rest in rests:
            with contextlib.suppress(FileNotFoundError):
                self._call("delete_object", f"{bucket}/{rest}")

    def copy(self, source: str, target: str) -> None:
        """Copy on the server's side."""
        bucket, rest = self.fs._find_bucket_key(source)  # noqa: SLF001
        head, words = self.head(source), {"CopySource": {"Bucket": bucket, "Key": rest}, **self._key_of_source()}
        if head.size <= _COPY or not self._copy_parts(target, head.size, words):
            self._call("copy_object", target, **words)

    def _key_of_source(self) -> dict[str, Any]:
        """Return the customer's key, where there is one: the server reads the source with it, too."""
        said = self.fs.s3_additional_kwargs
        return {f"CopySource{name}": said[name] for name in said if name.startswith("SSECustomer")}

    def _copy_parts(self, target: str, size: int, words: dict[str, Any]) -> bool:
        """Copy in parts, once more if the server forgets that midway; return False where it does not know of it."""
        try:
            return self._copy_parts_once(target, size, words)
        except FileNotFoundError as error:
            if code_of(error) != "NoSuchUpload":
                raise
            return self._copy_parts_once(target, size, words)

    def _copy_parts_once(self, target: str, size: int, words: dict[str, Any]) -> bool:
        bucket, rest = self.fs._find_bucket_key(target)  # noqa: SLF001
        upload = self.begin(target)
        here = {"Bucket": bucket, "Key": rest, "UploadId": upload, **words}
        made = False
        try:
            etags = self._run(lambda: _copied_parts(self.fs, here, size), f"upload_part_copy {target}")
            if all(etags):  # some servers answer as if it were an empty part
                self.complete(target, upload, etags)
                made = True
        except OSError as error:
            if code_of(error) not in _UNKNOWN:
                raise
        finally:
            if not made:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    self.abort(target, upload)
        return made

    def list(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """Return the objects whose keys begin so, each once: two puts at a time make rclone list a key twice."""
        bucket, rest = self.fs._find_bucket_key(prefix)  # noqa: SLF001
        more: dict[str, Any] = {} if deep else {"Delimiter": "/"}
        seen: set[str] = set()
        while True:
            said = self._call("list_objects_v2", bucket, Prefix=rest, **more)
            if not _LISTED & said.keys():
                _has(said, "IsTruncated", f"list_objects_v2 {prefix}")
            for one in said.get("Contents", ()):
                if one["Key"] not in seen:
                    seen.add(one["Key"])
                    yield Listed(int(one["Size"]), _bare(one), one.get("LastModified"), f"{bucket}/{one['Key']}")
            if not said.get("IsTruncated"):
                return
            more["ContinuationToken"] = said["NextContinuationToken"]


async def _receive(fs: Any, words: dict[str, Any], start: int, view: memoryview) -> int:
    """Read the answer's body into memory, as it comes."""
    landing = Landing(view)
    landing.expect()
    said = await fs._call_s3("get_object", **words)  # noqa: SLF001
    given = str(said.get("ContentRange", ""))
    total = given.rpartition("/")[2]
    if not given.startswith(f"bytes {start}-") and (given or start):
        msg = f"the bytes from {start} on were asked for, and others came: {given or 'all of them'}"
        raise ConnectionError(msg)
    expected = min(len(view), int(total) - start) if total.isdigit() else int(_has(said, "ContentLength", "get_object"))
    at = await _read_body(said["Body"], view) if landing.filled is None else landing.filled
    if at != expected:
        msg = f"the answer ended after {at} of {expected} bytes"
        raise ConnectionError(msg)
    return at


def _has(said: dict[str, Any], name: str, what: str) -> Any:
    """Return what an answer that claims success has to say. An empty one is cut, or comes from somebody in between.

    Raises:
        ConnectionError: if it does not say it.

    """
    if name not in said:
        raise ConnectionError(errno.ECONNRESET, f"{what}: the answer claims success, and has no {name}")
    return said[name]


async def _read_body(stream: Any, view: memoryview) -> int:
    at = 0
    async with stream as body:
        while data := await body.read(1 << 20):
            if at + len(data) > len(view):
                msg = f"{at + len(data)} bytes came where {len(view)} were asked for"
                raise ConnectionError(msg)
            view[at : at + len(data)] = data
            at += len(data)
    return at


async def _copied_parts(fs: Any, words: dict[str, Any], size: int) -> list[str]:
    """Have all parts copied, some at a time; return their etags."""
    together = asyncio.Semaphore(_COPIES)

    async def part(number: int, start: int) -> str:
        end = min(start + _COPY, size) - 1
        async with together:
            said = await fs._call_s3(  # noqa: SLF001
                "upload_part_copy", PartNumber=number, CopySourceRange=f"bytes={start}-{end}", **words
            )
        return _bare(said.get("CopyPartResult", {}))

    work = [asyncio.ensure_future(part(number, start)) for number, start in enumerate(range(0, size, _COPY), 1)]
    try:
        return await asyncio.gather(*work)
    finally:
        for one in work:
            one.cancel()


def _all_removed(bucket: str, errors: Collection[dict[str, Any]]) -> None:
    failed = [one for one in errors if one.get("Code") != "NoSuchKey"]
    if failed:
        first = failed[0]
        what = f"{len(failed)} objects were not removed, among them {bucket}/{first.get('Key')}"
        raise answered(0, str(first.get("Code", "")), str(first.get("Message", "")), what)


def _conditions(*, absent: bool = False, match: str = "") -> dict[str, str]:
    return {**({"IfNoneMatch": "*"} if absent else {}), **({"IfMatch": match} if match else {})}


def _bare(said: dict[str, Any]) -> str:
    return str(said.get("ETag") or "").strip('"')
