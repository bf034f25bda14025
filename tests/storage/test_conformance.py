"""Every store passes the same exam."""

from __future__ import annotations

import os
import secrets

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from holdfast import ConfigurationError
from holdfast.storage import is_local, join_path, open_store, split_path
from holdfast.storage.options import remember
from holdfast.testing import BundleSuite, StoreSuite
from holdfast.testing.store_suite.material import failing


class _Opened(StoreSuite):
    def everything(self, store):
        """Past the store, with the system's own eyes."""
        if not store.is_local:
            start = len(store.base) + 1
            return sorted(item.key[start:] for item in store.objects.list(f"{store.base}/"))
        found = [os.path.join(where, name) for where, _, files in os.walk(store.root) for name in files]
        return sorted(os.path.relpath(path, store.root) for path in found)


class TestLocal(_Opened, BundleSuite):
    """Files of this machine."""

    @pytest.fixture
    def store(self):
        return open_store(os.path.abspath(f"new/folder-{secrets.token_hex(4)}"))


class TestLocalFileUrl(_Opened, BundleSuite):
    """The same through a ``file://`` URL."""

    @pytest.fixture
    def store(self):
        return open_store("file://" + os.path.abspath(f"new/folder-{secrets.token_hex(4)}"))


class TestMemory(_Opened, BundleSuite):
    """fsspec's filesystem in memory: writes under a temporary name and moves."""

    @pytest.fixture
    def store(self):
        name = f"memory://exam-{secrets.token_hex(4)}/run"
        yield open_store(name)
        fsspec.filesystem("memory").store.clear()


class Strange(LocalFileSystem):
    """A filesystem that fsspec knows by its name alone, with folders and renames."""

    protocol = "strange"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("strange://"))


class TestAnyFilesystem(_Opened, BundleSuite):
    """A filesystem of fsspec's that nothing is known of."""

    @pytest.fixture
    def store(self, monkeypatch):
        fsspec.register_implementation("strange", Strange, clobber=True)
        return open_store("strange://" + os.path.abspath(f"exam-{secrets.token_hex(4)}/run"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestS3(_Opened, BundleSuite):
    """An object store over the network: uploads that appear when they are completed."""

    @pytest.fixture
    def store(self, s3, monkeypatch):
        monkeypatch.setenv("HOLDFAST_PATIENCE", "30")  # rclone answers some of many puts of one name with a 500
        return open_store(f"s3://bucket/exam-{secrets.token_hex(4)}/run")

    def test_a_large_upload_in_parts(self, store, s3):
        """An upload of several parts appears whole at its end; one that fails in its midst leaves nothing."""
        part = os.urandom(6 << 20)
        with pytest.raises(OSError, match="the source failed"):
            store.put("big.ckpt", failing(*[part] * 10))
        assert store.blobs() == []
        assert store.put("big.ckpt", [part] * 10) == 10 * len(part)
        assert store.size("big.ckpt") == 10 * len(part)
        assert store.read("big.ckpt", 3 * len(part) + 5, 100) == part[5:105]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestS3ByObstore(_Opened, BundleSuite):
    """The same with the faster client."""

    @pytest.fixture
    def store(self, s3, monkeypatch):
        pytest.importorskip("obstore")
        monkeypatch.setenv("HOLDFAST_PATIENCE", "30")
        url = f"s3://bucket/exam-{secrets.token_hex(4)}/run"
        remember(url, {"client": "obstore"})
        yield open_store(url)
        remember(url, {})


def test_schemes():
    """A path or ``file://`` URL is local, any other URL is not; an unknown one is an error that names it."""
    assert is_local("/a/b")
    assert is_local("a/b")
    assert is_local("file:///a/b")
    assert not is_local("s3://bucket/a")
    assert not is_local("memory://a")
    assert not is_local("zip://a::file:///b.zip")
    with pytest.raises(ConfigurationError, match="nosuch://x"):
        open_store("nosuch://x")


def test_paths_are_split_and_joined_the_way_they_are_written():
    """Splitting a path or URL and joining it again gives it back."""
    for path in ("/a/b/c.ckpt", "s3://bucket/a/b.ckpt", "memory://a/b.ckpt"):
        assert join_path(*split_path(path)) == path
    assert split_path("c.ckpt") == (os.getcwd(), "c.ckpt")
    assert split_path("~/c.ckpt") == (os.path.expanduser("~"), "c.ckpt")
