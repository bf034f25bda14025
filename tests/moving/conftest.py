"""The S3 server of the tests of the stores, for copies to and from it."""

from __future__ import annotations

from tests.storage.conftest import s3

__all__ = ["s3"]
