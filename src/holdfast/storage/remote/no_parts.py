"""The part of ``Objects`` that a client has who sends no object in parts."""

from __future__ import annotations

from holdfast.storage.remote.objects import Bytes, Head, PartRules, Upload


class NoParts:
    """There are no parts, and no uploads that anybody could go on with or would have to abort."""

    @property
    def parts(self) -> PartRules | None:
        """None: there are no parts."""
        return None

    def begin(self, key: str) -> str:
        """Raise an error: there are no parts."""
        raise NotImplementedError(key)

    def part(self, key: str, upload: str, number: int, data: Bytes) -> str:
        """Raise an error: there are no parts."""
        raise NotImplementedError(key, upload, number, len(data))

    def complete(self, key: str, upload: str, etags: list[str], *, absent: bool = False) -> Head:
        """Raise an error: there are no parts."""
        raise NotImplementedError(key, upload, etags, absent)

    def abort(self, key: str, upload: str) -> None:
        """Do nothing: there are no uploads."""

    def uploads(self, prefix: str) -> list[Upload]:  # noqa: ARG002 - the protocol's
        """Return none."""
        return []

    def parts_of(self, key: str, upload: str) -> dict[int, Head]:  # noqa: ARG002 - the protocol's
        """Raise an error: there is no such upload."""
        raise FileNotFoundError(key)
