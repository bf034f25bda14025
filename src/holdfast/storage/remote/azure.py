"""Azure's blobs, by the client that adlfs has made: each method is one request, tried once.

A block's id is the upload's, its number and the digest of its bytes. So the server itself knows which parts it has of
an upload, and of which bytes; and every sending carries its digest, which the server compares.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from typing import Any

from holdfast.storage.doubt import already_done
from holdfast.storage.remote.failures import answered, translated
from holdfast.storage.remote.looped import remove_each, run_on
from holdfast.storage.remote.objects import Body, Bytes, Head, Listed, PartRules, Upload

_LIMITS = {"connection_timeout": 10, "read_timeout": 60, "retry_total": 0}  # seconds; patience is above
_SLOWEST = 1 << 16  # bytes in a second, of what is sent: a server that takes less has stopped
_AT_ONCE = 16  # requests under way, of removals
_WHOLE = 256 << 20  # bytes that the server copies in one request
_COPIED = 64 << 20  # bytes of one part of a larger copy
_PAGE = 5000  # objects of one request of a listing
_UPLOAD, _NUMBER, _DIGEST = 16, 6, 32  # characters of a block's id
_NOT_SO = frozenset({"APINotImplemented", "UnsupportedHeader", "UnsupportedVerb", "CannotVerifyCopySource", "501"})
_WORDLESS = "500"  # an emulator's for what it does not have: Azure's own errors have a word
_POLL = 0.2  # seconds between looks at a copy


class AzureObjects:
    """The blobs of an Azure account, by an instance of adlfs's class. From any thread, and after a fork."""

    def __init__(self, fs: Any, *, check: bool = True) -> None:
        """Speak through this filesystem, or in a forked child through one that is made alike.

        With ``check`` the server compares what arrives with what was sent.
        """
        self._made = fs
        self._pid = os.getpid()
        self._check = check

    @property
    def client(self) -> str:
        """The library that speaks to the server."""
        return "adlfs"

    @property
    def parts(self) -> PartRules | None:
        """How objects are taken in parts."""
        return PartRules(least=1, most=4000 << 20, count=50_000, lapses=True)

    @property
    def fs(self) -> Any:
        """The filesystem of this process."""
        if self._pid != os.getpid():
            self._made = type(self._made)(*self._made.storage_args, **self._made.storage_options)
            self._pid = os.getpid()
        return self._made

    def _run(self, what: str, work: Callable[[], Coroutine[Any, Any, Any]], limit: float | None = None) -> Any:
        async def limited() -> Any:
            return await asyncio.wait_for(work(), limit)

        return run_on(self.fs.loop, limited, what, _translated)

    def _blob(self, key: str) -> Any:
        container, _, name = key.partition("/")
        return self.fs.service_client.get_blob_client(container, name)

    def head(self, key: str) -> Head:
        """Look at an object."""
        said = self._run(f"look at {key}", lambda: self._blob(key).get_blob_properties(**_LIMITS))
        if _is_folder(said):
            msg = f"{key} is a folder"
            raise FileNotFoundError(msg)
        return Head(int(said.size), _bare(said.etag), said.last_modified)

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of a range."""
        if end <= start:
            return b""
        try:
            return bytes(self._run(f"read {key}", lambda: self._read(key, start, end - start)))
        except OSError as error:
            if vars(error).get("code") == "InvalidRange":
                return b""  # it ends before
            raise

    async def _read(self, key: str, start: int, length: int) -> bytes:
        stream = await self._blob(key).download_blob(start, length, max_concurrency=1, **_LIMITS)
        data: bytes = await stream.readall()
        if len(data) != stream.size:
            msg = f"the answer ended after {len(data)} of {stream.size} bytes"
            raise ConnectionError(msg)
        return data

    def get_into(self, key: str, start: int, view: memoryview) -> int:
        """Read a range into memory."""
        data = self.get(key, start, start + len(view))
        view[: len(data)] = data
        return len(data)

    def put(self, key: str, data: Body, *, absent: bool = False, match: str = "") -> Head:
        """Make an object, or replace it."""
        body = bytes(data) if isinstance(data, (bytes, bytearray, memoryview)) else b"".join(data)
        words = {"headers": self._digest(hashlib.md5(body, usedforsecurity=False).digest()), **_LIMITS}
        if match:
            words.update(etag=f'"{match}"', match_condition=_if_not_modified())
        said = self._run(
            f"put {key}",
            lambda: self._blob(key).upload_blob(body, length=len(body), overwrite=not absent, **words),
            _patience(len(body)),
        )
        return Head(len(body), _bare(said["etag"]), said.get("last_modified"))

    def _digest(self, md5: bytes) -> dict[str, str]:
        """Return the header by which the server sees whether what arrives is what was sent."""
        return {"Content-MD5": base64.b64encode(md5).decode()} if self._check else {}

    def begin(self, key: str) -> str:  # noqa: ARG002 - the protocol's
        """Begin an upload in parts: no request."""
        return secrets.token_hex(_UPLOAD // 2)

    def part(self, key: str, upload: str, number: int, data: Bytes) -> str:
        """Send one part."""
        digest = hashlib.md5(data, usedforsecurity=False)
        block = _block(upload, number, digest.hexdigest())
        body = bytes(data)
        words = {"headers": self._digest(digest.digest()), **_LIMITS}
        self._run(
            f"send part {number} of {key}",
            lambda: self._blob(key).stage_block(block, body, length=len(body), **words),
            _patience(len(body)),
        )
        return digest.hexdigest()

    def complete(self, key: str, upload: str, etags: list[str], *, absent: bool = False) -> Head:
        """Make the object of its parts."""
        blocks = [_block(upload, number, etag) for number, etag in enumerate(etags, 1)]
        said = self._run(f"complete {key}", lambda: self._commit(key, blocks, absent=absent))
        with already_done():
            return Head(self.head(key).size, _bare(said["etag"]), said.get("last_modified"))

    async def _commit(self, key: str, blocks: list[str], *, absent: bool = False) -> Any:
        from azure.core import MatchConditions  # noqa: PLC0415 - adlfs has imported it
        from azure.storage.blob import BlobBlock  # noqa: PLC0415

        words = {"match_condition": MatchConditions.IfMissing} if absent else {}
        return await self._blob(key).commit_block_list([BlobBlock(one) for one in blocks], **words, **_LIMITS)

    def abort(self, key: str, upload: str) -> None:
        """Do nothing: parts that no object was made of the server forgets after a week, or at the next put."""

    def uploads(self, prefix: str) -> list[Upload]:  # noqa: ARG002 - the protocol's
        """Return none: see ``abort``."""
        return []

    def parts_of(self, key: str, upload: str) -> dict[int, Head]:
        """Return the parts that the server has of an upload."""
        what = f"list the parts of {key}"
        _, waiting = self._run(what, lambda: self._blob(key).get_block_list("uncommitted", **_LIMITS))
        found = {}
        for one in waiting:
            name = str(one.id)
            if name.startswith(upload) and len(name) == _UPLOAD + _NUMBER + _DIGEST:
                found[int(name[_UPLOAD:-_DIGEST])] = Head(int(one.size), name[-_DIGEST:])
        return found

    def remove(self, keys: Collection[str]) -> None:
        """Remove objects: a request for each, some at a time."""

        async def one(key: str) -> None:
            try:
                await self._blob(key).delete_blob(**_LIMITS)
            except Exception as error:
                if not isinstance(_translated(error, ""), FileNotFoundError):
                    raise

        remove_each(self._run, keys, one)

    def copy(self, source: str, target: str) -> None:
        """Copy on the server's side, in one step: the target is what it was, or whole."""
        self._run(f"copy {source}", lambda: self._copy(source, target))

    async def _copy(self, source: str, target: str) -> None:
        blob = self._blob(source)
        size = int((await blob.get_blob_properties(**_LIMITS)).size)
        url, words = await self._authorized(blob)
        try:
            if size <= _WHOLE:
                await self._blob(target).start_copy_from_url(url, requires_sync=True, **words, **_LIMITS)
                return
            await self._copy_parts(url, target, size, words)
        except Exception as error:
            if _code(error) not in {*_NOT_SO, _WORDLESS}:
                raise
            await self._copy_waiting(blob.url, target)

    async def _copy_parts(self, url: str, target: str, size: int, words: dict[str, Any]) -> None:
        upload, together = secrets.token_hex(_UPLOAD // 2), asyncio.Semaphore(_AT_ONCE)
        starts = range(0, size, _COPIED)
        blocks = [_block(upload, number, "0" * _DIGEST) for number, _ in enumerate(starts, 1)]

        async def part(block: str, start: int) -> None:
            async with together:
                length = min(_COPIED, size - start)
                await self._blob(target).stage_block_from_url(block, url, start, length, **words, **_LIMITS)

        await asyncio.gather(*(part(block, start) for block, start in zip(blocks, starts, strict=True)))
        await self._commit(target, blocks)

    async def _authorized(self, blob: Any) -> tuple[str, dict[str, Any]]:
        """Return the URL by which the server itself may read a blob, and what else it has to be told."""
        from datetime import datetime, timedelta, timezone  # noqa: PLC0415

        from azure.storage.blob import BlobSasPermissions, generate_blob_sas  # noqa: PLC0415

        secret = getattr(blob.credential, "account_key", None)
        if secret:
            until = datetime.now(timezone.utc) + timedelta(hours=1)
            names = (blob.account_name, blob.container_name, blob.blob_name)
            rights = BlobSasPermissions(read=True)
            return f"{blob.url}?{generate_blob_sas(*names, account_key=secret, permission=rights, expiry=until)}", {}
        if hasattr(blob.credential, "get_token"):
            token = await blob.credential.get_token("https://storage.azure.com/.default")
            return blob.url, {"source_authorization": f"Bearer {token.token}"}
        return blob.url, {}

    async def _copy_waiting(self, url: str, target: str) -> None:
        """Have it copied by a server that knows no better way, and wait until it is done."""
        blob = self._blob(target)
        await blob.start_copy_from_url(url, **_LIMITS)
        while True:
            state = (await blob.get_blob_properties(**_LIMITS)).copy
            if state.status in ("success", None):
                return
            if state.status != "pending":
                msg = f"the copy to {target} ended with {state.status}: {state.status_description}"
                raise OSError(msg)
            await asyncio.sleep(_POLL)

    def list(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """Return the objects whose keys begin so."""
        yield from self._run(f"list {prefix}", lambda: self._list(prefix, deep=deep))

    async def _list(self, prefix: str, *, deep: bool) -> Sequence[Listed]:
        container, _, rest = prefix.partition("/")
        client = self.fs.service_client.get_container_client(container)
        words = {"name_starts_with": rest, "results_per_page": _PAGE, "include": ["metadata"], **_LIMITS}
        found = client.list_blobs(**words) if deep else client.walk_blobs(delimiter="/", **words)
        return [
            Listed(int(one.size or 0), _bare(one.etag), one.last_modified, f"{container}/{one.name}")
            async for one in found
            if hasattr(one, "etag") and one.etag and not _is_folder(one)
        ]


def _block(upload: str, number: int, digest: str) -> str:
    """Return a block's id: all of one blob have to be equally long."""
    return f"{upload}{number:0{_NUMBER}d}{digest}"


def _patience(size: int) -> float:
    """Return how many seconds a sending may take."""
    return _LIMITS["read_timeout"] + size / _SLOWEST


def _is_folder(said: Any) -> bool:
    """Tell whether it stands for a folder, as accounts with a hierarchy have them among the blobs."""
    return str((said.metadata or {}).get("hdi_isfolder", "")).lower() == "true"


def _if_not_modified() -> Any:
    from azure.core import MatchConditions  # noqa: PLC0415 - adlfs has imported it

    return MatchConditions.IfNotModified


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


def _code(error: BaseException) -> str:
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or getattr(error, "status_code", None) or "")


def _translated(error: BaseException, what: str) -> OSError:
    """Return the error as the protocol has it: Azure's errors have a status and a word of their own."""
    status = getattr(error, "status_code", None)
    if status is None:
        return translated(error, what)
    return answered(int(status), _code(error), str(getattr(error, "reason", None) or ""), what)
