"""The stores of Google and Azure pass the exam that all stores pass."""

from __future__ import annotations

import secrets

import pytest

from holdfast.storage import open_store
from holdfast.testing import BundleSuite, StoreSuite

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


class _Cloud(StoreSuite, BundleSuite):
    scheme = ""

    @pytest.fixture
    def store(self, clouds):
        return open_store(clouds(self.scheme).url(f"exam-{secrets.token_hex(4)}/run"))

    def everything(self, store):
        """Past the store."""
        start = len(store.base) + 1
        return sorted(item.key[start:] for item in store.objects.list(f"{store.base}/"))


class TestGcs(_Cloud):
    """Google's, by fake-gcs-server."""

    scheme = "gs"


class TestAzure(_Cloud):
    """Azure's, by Azurite."""

    scheme = "az"
