"""Blobs behind a URL: object stores, and whatever else fsspec knows."""

from holdfast.storage.remote.store import RemoteStore

__all__ = ["RemoteStore"]
