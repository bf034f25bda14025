"""Savers that are known to be wrong: each takes one step of a durable write away, or makes it too late.

The instrument that does not find one of them out is too weak, or what was taken away is not needed.
"""

from __future__ import annotations

import os

from holdfast.storage import local


def _nothing(*_):
    return None


def no_sync_at_all():
    local.os = _Without(fsync=_nothing)


def no_sync_of_files():
    local._sync = _nothing


def no_sync_of_folders():
    local._sync_folder = _nothing


class _Without:
    """The module ``os`` with something else in some places."""

    def __init__(self, **others):
        self.__dict__.update(others)

    def __getattr__(self, name):
        return getattr(os, name)


MUTANTS = {
    "no sync at all": no_sync_at_all,
    "no sync of files": no_sync_of_files,
    "no sync of folders": no_sync_of_folders,
}
