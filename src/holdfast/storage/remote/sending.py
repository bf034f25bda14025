"""How a request's body goes to a server through aiobotocore: from where it lies, and never waiting without an end.

botocore takes a body that is a file, and asks with ``Expect: 100-continue`` whether the server wants it. aiohttp waits
for the answer without a limit, and for a server that stops to read as well: neither is so here. Over http botocore
hashes every body for the signature, on the thread of the event loop: not here, where the body's MD5 is signed with it.
"""

from __future__ import annotations

import asyncio
import functools
import io
from typing import Any

from holdfast.storage.remote.objects import Bytes

SLICE = 1 << 18  # bytes, each of which have the time limit: those that are copied while the line is full


class Body:
    """Memory as a file that is read, with no copy of the whole."""

    def __init__(self, data: Bytes) -> None:
        """Begin at its start."""
        self.view = memoryview(data).cast("B").toreadonly()
        self._at = 0

    def __len__(self) -> int:
        """Return how many bytes there are."""
        return len(self.view)

    def __bool__(self) -> bool:
        """Be one, also if it is empty."""
        return True

    def read(self, size: int | None = -1) -> memoryview:
        """Return the next bytes, all of them without a size: as a view, which those who hash and send take."""
        end = len(self.view) if size is None or size < 0 else min(self._at + size, len(self.view))
        start, self._at = self._at, end
        return self.view[start:end]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._at = (0, self._at, len(self.view))[whence] + offset
        return self._at

    def tell(self) -> int:
        """Return where it is."""
        return self._at


@functools.lru_cache
def _payload() -> type:
    """Return aiohttp's kind of body, in slices that have to be taken within a time limit each."""
    from aiohttp.payload import Payload  # noqa: PLC0415 - where it is used s3fs has imported it

    class Slices(Payload):  # type: ignore[misc,unused-ignore]
        _autoclose = True

        def __init__(self, view: memoryview, limit: float) -> None:
            super().__init__(view)
            self._size, self._limit = len(view), limit

        def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
            return bytes(self._value).decode(encoding, errors)

        async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002 - aiohttp's
            return bytes(self._value)

        async def write(self, writer: Any) -> None:
            for at in range(0, len(self._value), SLICE):
                await asyncio.wait_for(writer.write(self._value[at : at + SLICE]), self._limit)

        async def write_with_length(self, writer: Any, content_length: int | None) -> None:  # noqa: ARG002 - all of it
            await self.write(writer)

    return Slices


def payload(view: memoryview, limit: float) -> Any:
    """Return memory as a body for aiohttp; the limit is in seconds."""
    return _payload()(view, limit)


def care_for_sending(client: Any, limit: float) -> None:
    """Have a client of aiobotocore send bodies so; the limit is in seconds. ``sockets`` has its own way."""
    session = client._endpoint.http_session  # noqa: SLF001 - it says so nowhere
    by_aiohttp = type(session).__name__ == "AIOHTTPSession"

    def prepare(request: Any, **_: Any) -> None:
        request.headers.pop("Expect", None)
        if by_aiohttp and isinstance(request.body, Body):
            request.body = payload(request.body.view, limit)

    client.meta.events.register("before-send.s3", prepare, unique_id="holdfast-sending")
    if (client.meta.config.s3 or {}).get("payload_signing_enabled") is None:
        for method in ("PutObject", "UploadPart"):
            client.meta.events.register(f"before-call.s3.{method}", _sign_md5_alone, unique_id=f"holdfast-{method}")


def _sign_md5_alone(params: Any, context: Any, **_: Any) -> None:
    """Have a body not be hashed for the signature, which has its MD5 already."""
    if "Content-MD5" in params["headers"]:
        said = context["client_config"]
        unsigned = type(said)(s3={**(said.s3 or {}), "payload_signing_enabled": False})
        context["client_config"] = said.merge(unsigned)
