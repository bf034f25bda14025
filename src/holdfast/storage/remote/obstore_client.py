"""Reading ranges by obstore, which is faster and leaves Python's threads alone; all else by the other client.

It only reads, so that a wrong guess costs a request and no more: whatever it refuses or fails at is asked of the
other client, whose answer or error counts. It asks the other client's own credentials each time, so that profiles,
roles and renewals work as they do there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from holdfast.errors import ConfigurationError, MissingExtraError
from holdfast.storage.remote.objects import Body, Bytes, Head, Listed, Objects, PartRules, Upload

_KNOWN = frozenset({"key", "secret", "token", "anon", "client_kwargs", "profile", "endpoint_url", "use_ssl"})
_KNOWN_OF_CLIENT = frozenset({"endpoint_url", "region_name"})
_FAILURES = 3  # in a row, after which it is not asked any more
_ASK_AGAIN = timedelta(minutes=5)


class FastObjects:
    """The objects of ``slow``, ranges of which are read by obstore where it can. From any thread.

    A forked child has no threads of obstore's: it reads by the other client.

    Args:
        slow: does all else.
        fs: its filesystem, s3fs's: has credentials, endpoint and region.

    Raises:
        MissingExtraError: if obstore is not installed.
        ConfigurationError: if the filesystem has options that obstore is not told of.

    """

    def __init__(self, slow: Objects, fs: Any) -> None:
        """Connect to nothing yet."""
        try:
            import obstore  # noqa: PLC0415, F401 - only where it is asked for
        except ImportError as error:
            raise MissingExtraError("obstore", "s3") from error
        odd = sorted({*fs.storage_options} - _KNOWN) + sorted(
            f"client_kwargs[{name!r}]" for name in {*(fs.storage_options.get("client_kwargs") or {})} - _KNOWN_OF_CLIENT
        )
        if odd:
            msg = f"the client obstore cannot be told of these storage_options: {', '.join(odd)}. Leave out `client`"
            raise ConfigurationError(msg)
        self._slow = slow
        self._fs = fs
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stores: dict[str, Any] = {}
        self._failed = 0

    @property
    def client(self) -> str:
        """The libraries that speak to the server."""
        return f"{self._slow.client} and obstore" if self._may else self._slow.client

    @property
    def _may(self) -> bool:
        return self._failed < _FAILURES and self._pid == os.getpid()

    def _store(self, bucket: str) -> Any:
        with self._lock:
            if bucket not in self._stores:
                from obstore.store import S3Store  # noqa: PLC0415 - only where it is used

                client = self._client()
                signed: dict[str, Any] = {"credential_provider": self._credentials}
                self._stores[bucket] = S3Store(
                    bucket,
                    endpoint=client.meta.endpoint_url,
                    region=client.meta.region_name or "us-east-1",
                    client_options={"allow_http": client.meta.endpoint_url.startswith("http:"), "timeout": "60s"},
                    retry_config={"max_retries": 0},
                    **({"skip_signature": True} if self._fs.anon else signed),
                )
            return self._stores[bucket]

    def _client(self) -> Any:
        from fsspec.asyn import sync  # noqa: PLC0415 - only where a URL was opened

        return sync(self._fs.loop, self._fs.set_session)

    def _credentials(self) -> Any:
        """Ask the other client for its credentials, which it renews by itself."""
        from fsspec.asyn import sync  # noqa: PLC0415 - only where a URL was opened

        held = self._client()._request_signer._credentials  # noqa: SLF001 - there is no other way to what it signs with
        frozen = sync(self._fs.loop, held.get_frozen_credentials)
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + _ASK_AGAIN,
        }

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of a range: few, by the other client."""
        return self._slow.get(key, start, end)

    def get_into(self, key: str, start: int, view: memoryview) -> int:
        """Read a range into memory."""
        if len(view) and self._may:
            import obstore  # noqa: PLC0415 - only where it is used

            bucket, rest = self._fs._find_bucket_key(key)  # noqa: SLF001 - it knows access points
            try:
                data = memoryview(obstore.get_range(self._store(bucket), rest, start=start, length=len(view)))
            except Exception:  # noqa: BLE001 - the other client is asked next, and what it says counts
                self._failed += 1
            else:
                self._failed = 0
                view[: len(data)] = data
                return len(data)
        return self._slow.get_into(key, start, view)

    @property
    def parts(self) -> PartRules | None:
        """The other client's."""
        return self._slow.parts

    def head(self, key: str) -> Head:
        """Look at an object."""
        return self._slow.head(key)

    def put(self, key: str, data: Body, *, absent: bool = False, match: str = "") -> Head:
        """Make an object."""
        return self._slow.put(key, data, absent=absent, match=match)

    def begin(self, key: str) -> str:
        """Begin an upload in parts."""
        return self._slow.begin(key)

    def part(self, key: str, upload: str, number: int, data: Bytes) -> str:
        """Send one part."""
        return self._slow.part(key, upload, number, data)

    def complete(self, key: str, upload: str, etags: list[str], *, absent: bool = False) -> Head:
        """Make the object of its parts."""
        return self._slow.complete(key, upload, etags, absent=absent)

    def abort(self, key: str, upload: str) -> None:
        """Give an upload up."""
        self._slow.abort(key, upload)

    def uploads(self, prefix: str) -> list[Upload]:
        """Return the uploads whose keys begin so."""
        return self._slow.uploads(prefix)

    def parts_of(self, key: str, upload: str) -> dict[int, Head]:
        """Return the parts that the server has of an upload."""
        return self._slow.parts_of(key, upload)

    def remove(self, keys: Collection[str]) -> None:
        """Remove objects."""
        self._slow.remove(keys)

    def copy(self, source: str, target: str) -> None:
        """Copy on the server's side."""
        self._slow.copy(source, target)

    def list(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """Return the objects whose keys begin so."""
        return self._slow.list(prefix, deep=deep)
