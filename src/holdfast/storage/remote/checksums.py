"""The checksums that go with what is sent, so that the server refuses bytes that were changed on their way.

Content-MD5 is what every S3 server is bound to check, and the two that the tests run against do: neither looks at the
CRC-32 that newer ones check. A server that looks at no header may still have etags that are MD5: those are compared.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Literal

from holdfast.storage.remote.failures import changed_on_its_way, code_of
from holdfast.storage.remote.objects import Bytes

Kind = Literal["md5", "crc32", "none"]

_UNKNOWN = frozenset({"NotImplemented", "InvalidRequest", "InvalidArgument", "MalformedTrailerError", "501", "400"})


class Checksums:
    """Those of one server's objects. From any thread.

    Args:
        kind: ``md5``, with a CRC-32 beside it; ``crc32`` alone; or ``none``.

    """

    def __init__(self, kind: Kind = "md5") -> None:
        """Know nothing of the server yet."""
        self._kind = kind
        self._crc = kind != "none"
        self._etags_are_md5 = False
        self._doubtful: set[str] = set()

    @property
    def wants_crc(self) -> bool:
        """Whether a CRC-32 is sent: not to a server that has refused one."""
        return self._crc

    def of(self, data: Bytes, *, crc: bool) -> dict[str, str]:
        """Return the words of a request that say what its body is."""
        words = {}
        if self._kind == "md5":
            words["ContentMD5"] = _text(hashlib.md5(data, usedforsecurity=False).digest())
        if crc and self._crc:
            words["ChecksumCRC32"] = _text(zlib.crc32(data).to_bytes(4, "big"))
        return words

    def is_refused(self, error: OSError) -> bool:
        """Tell whether a server has refused the CRC-32 as something that it does not know: it gets none from now on."""
        if not self._crc or code_of(error) not in _UNKNOWN or "checksum" not in str(error).lower():
            return False
        self._crc = False
        return True

    def compare(self, what: str, words: dict[str, str], etag: str) -> None:
        """See that a server whose etags are MD5 has what was sent. Others are not asked for more than they promise.

        That they are is learnt from the first that is. What is sent again because its etag was another is taken as it
        comes, and the etags are as if unknown: a bucket may be told to encrypt while a run saves to it.

        Raises:
            ConnectionError: if it has something else.

        """
        if "ContentMD5" not in words:
            return
        if etag == base64.b64decode(words["ContentMD5"]).hex():
            self._etags_are_md5 = True
            self._doubtful.discard(what)
        elif what in self._doubtful:
            self._etags_are_md5 = False
            self._doubtful.discard(what)
        elif self._etags_are_md5:
            self._doubtful.add(what)
            raise changed_on_its_way(what, etag)


def _text(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
