"""S3 by s3fs: each method is one request, tried once. What waits and tries again is above it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
from collections.abc import Collection, Coroutine, Iterator
from typing import Any

from holdfast.storage.remote.failures import code_of, translated
from holdfast.storage.remote.objects import Body, Bytes, Head, Listed, PartRules, Upload

_AT_ONCE = 1000  # keys in one request of removal
_COPY = 5 << 30  # bytes that the server copies in one request
_COPY_PART = 1 << 30


@functools.lru_cache
def once(kind: type) -> type:
    """Return s3fs's class, tried once and with time limits: patience is ours, and the user's own instances his."""

    def prepare(self: Any) -> dict[str, Any]:
        limits = {"connect_timeout": 10, "read_timeout": 60, "max_pool_connections": 32}
        tries = {"retries": {"total_max_attempts": 1, "mode": "standard"}}
        # Some servers send the whole object's checksum with a range; every byte is checked by the manifest's digests.
        checks = {"response_checksum_validation": "when_required"}
        return {**limits, **tries, **checks, **self.config_kwargs}

    return type(kind.__name__, (kind,), {"retries": 1, "_prepare_config_kwargs": prepare})


class S3Objects:
    """The objects of an S3 server, by an instance of ``once``'s class. From any thread, and after a fork."""

    def __init__(self, fs: Any) -> None:
        """Speak through this filesystem, or in a forked child through one that is made alike."""
        self._made = fs
        self._pid = os.getpid()

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
            self._pid = os.getpid()
        return self._made

    def _run(self, work: Coroutine[Any, Any, Any], what: str) -> Any:
        """Run it on fsspec's loop; an interrupt of ours ends it there, too."""
        future = asyncio.run_coroutine_threadsafe(work, self.fs.loop)
        try:
            while not concurrent.futures.wait([future], timeout=5).done:
                self.fs.loop.call_soon_threadsafe(int)  # an error if it has ended
            return future.result()
        except Exception as error:
            raise translated(error, what) from error
        finally:
            future.cancel()

    def _call(self, method: str, key: str, **words: Any) -> Any:
        bucket, rest = self.fs._find_bucket_key(key)  # noqa: SLF001 - it knows access points
        if rest:
            words["Key"] = rest
        return self._run(self.fs._call_s3(method, Bucket=bucket, **words), f"{method} {key}")  # noqa: SLF001

    def head(self, key: str) -> Head:
        """Look at an object."""
        said = self._call("head_object", key)
        return Head(int(said["ContentLength"]), _bare(said), said.get("LastModified"))

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
            return int(self._run(_receive(self.fs, words, start, view), what))
        except OSError as error:
            if code_of(error) in ("InvalidRange", "416"):
                return 0  # it ends before
            raise

    def put(self, key: str, data: Body, *, absent: bool = False, match: str = "") -> Head:
        """Make an object, or replace it."""
        body = bytes(data) if isinstance(data, (bytes, bytearray, memoryview)) else b"".join(data)
        said = self._call("put_object", key, Body=body, **_conditions(absent=absent, match=match))
        return Head(len(body), _bare(said))

    def begin(self, key: str) -> str:
        """Begin an upload in parts."""
        return str(self._call("create_multipart_upload", key)["UploadId"])

    def part(self, key: str, upload: str, number: int, data: Bytes) -> str:
        """Send one part."""
        return _bare(self._call("upload_part", key, UploadId=upload, PartNumber=number, Body=bytes(data)))

    def complete(self, key: str, upload: str, etags: list[str], *, absent: bool = False) -> Head:
        """Make the object of its parts."""
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in enumerate(etags, 1)]
        words = {"UploadId": upload, "MultipartUpload": {"Parts": parts}, **_conditions(absent=absent)}
        etag = _bare(self._call("complete_multipart_upload", key, **words))
        size = self.head(key).size
        return Head(size, etag)

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
        if len(rests) == 1:
            self._call("delete_object", f"{bucket}/{rests[0]}")
            return
        wanted = {"Objects": [{"Key": rest} for rest in rests], "Quiet": True}
        said = self._call("delete_objects", bucket, Delete=wanted)
        failed = [one for one in said.get("Errors", ()) if one.get("Code") != "NoSuchKey"]
        if failed:
            msg = f"{len(failed)} of {len(rests)} objects were not removed, {bucket}/{failed[0].get('Key')} because of "
            msg += f"{failed[0].get('Code')}"
            raise OSError(msg)

    def copy(self, source: str, target: str) -> None:
        """Copy on the server's side."""
        bucket, rest = self.fs._find_bucket_key(source)  # noqa: SLF001
        self._call("copy_object", target, CopySource={"Bucket": bucket, "Key": rest})

    def list(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """Return the objects whose keys begin so."""
        bucket, rest = self.fs._find_bucket_key(prefix)  # noqa: SLF001
        more: dict[str, Any] = {} if deep else {"Delimiter": "/"}
        while True:
            said = self._call("list_objects_v2", bucket, Prefix=rest, **more)
            for one in said.get("Contents", ()):
                yield Listed(int(one["Size"]), _bare(one), one.get("LastModified"), f"{bucket}/{one['Key']}")
            if not said.get("IsTruncated"):
                return
            more["ContinuationToken"] = said["NextContinuationToken"]


async def _receive(fs: Any, words: dict[str, Any], start: int, view: memoryview) -> int:
    """Read the answer's body into memory, as it comes."""
    said = await fs._call_s3("get_object", **words)  # noqa: SLF001
    total = str(said.get("ContentRange", "")).rpartition("/")[2]
    expected = min(len(view), int(total) - start) if total.isdigit() else int(said["ContentLength"])
    at = 0
    async with said["Body"] as body:
        while data := await body.read(1 << 20):
            if at + len(data) > len(view):
                msg = f"{at + len(data)} bytes came where {len(view)} were asked for"
                raise ConnectionError(msg)
            view[at : at + len(data)] = data
            at += len(data)
    if at != expected:
        msg = f"the answer ended after {at} of {expected} bytes"
        raise ConnectionError(msg)
    return at


def _conditions(*, absent: bool = False, match: str = "") -> dict[str, str]:
    return {**({"IfNoneMatch": "*"} if absent else {}), **({"IfMatch": match} if match else {})}


def _bare(said: dict[str, Any]) -> str:
    return str(said.get("ETag") or "").strip('"')
