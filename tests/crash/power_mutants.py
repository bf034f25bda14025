"""Savers that are known to be wrong: each takes one step of a durable write away, or takes it too late.

Where one of them gets through, either the instrument is too weak or the step is not needed.
"""

from __future__ import annotations

import ast
import errno
import os
import sys
from dataclasses import dataclass

from holdfast.storage import durable, local
from holdfast.storage.blocks import BlockWriter
from holdfast.storage.local import LocalStore

_SYNCS = ("sync_file", "sync_folder")
_HOMES = {"local": local, "durable": durable}  # where files are written durably


@dataclass(frozen=True)
class Site:
    """A place in the local store where something is synced: the only places of the project."""

    function: str
    number: int  # among those of the function
    sync: str
    line: int
    home: str

    def __str__(self):
        return f"{self.function}, sync {self.number}"


def sites():
    """Every call that syncs, as the source has it: a new one is tried without anybody's doing."""
    return [site for home in _HOMES for site in _sites_of(home) if str(site) not in ELSEWHERE]


def _sites_of(home):
    with open(_HOMES[home].__file__) as file:
        tree = ast.parse(file.read())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [site for function in functions for site in _sites_in(function, home)]


def _sites_in(function, home):
    named = [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    found = sorted((node.lineno, node.func.id) for node in named if node.func.id in _SYNCS)
    return [Site(function.name, number, sync, line, home) for number, (line, sync) in enumerate(found, 1)]


def leave_out(site):
    """Make the store go on at one place without the sync."""
    home = _HOMES[site.home]
    real = getattr(home, site.sync)

    def sync(what):
        if sys._getframe(1).f_lineno != site.line:
            real(what)

    setattr(home, site.sync, sync)


def _everywhere(**others):
    for home in _HOMES.values():
        for name, other in others.items():
            setattr(home, name, other)


class _Otherwise:
    """The module ``os`` with something else in some places."""

    def __init__(self, **others):
        self.__dict__.update(others)

    def __getattr__(self, name):
        return getattr(os, name)


def _nothing(*_):
    return None


def no_hard_links():
    """No fault: a filesystem without them."""

    def link(origin, goal):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), origin, None, goal)

    _everywhere(os=_Otherwise(link=link))


def no_sync_at_all():
    _everywhere(os=_Otherwise(fsync=_nothing))


def rename_before_sync():
    def rename(origin, goal):
        os.rename(origin, goal)
        with open(goal, "rb") as file:
            os.fsync(file.fileno())

    _everywhere(sync_file=_nothing)
    _everywhere(os=_Otherwise(rename=rename))


def folder_synced_before_the_rename():
    def rename(origin, goal):
        sync_folder(os.path.dirname(goal))
        os.rename(origin, goal)

    sync_folder = durable.sync_folder
    _everywhere(sync_folder=_nothing)
    _everywhere(os=_Otherwise(rename=rename))


def sync_before_the_last_byte():
    """The file is synced when it is half written: what comes later is not."""
    feed = BlockWriter.feed

    def feed_and_sync(writer, chunk):
        feed(writer, chunk)
        os.fsync(writer._descriptor)

    BlockWriter.feed = feed_and_sync
    _everywhere(sync_file=_nothing)


def removed_before_replaced():
    def rename(origin, goal):
        if os.path.exists(goal):
            os.unlink(goal)
        os.rename(origin, goal)

    _everywhere(os=_Otherwise(rename=rename))


def written_in_place():
    def put(store, name, chunks, *, over="", gate=None, size=0):
        os.makedirs(os.path.dirname(store.path(name)), exist_ok=True)
        with open(store.path(name), "wb", buffering=0) as file:
            written = sum(file.write(chunk) for chunk in chunks)
            gate()
            os.fsync(file.fileno())
        durable.sync_folder(os.path.dirname(store.path(name)))
        return written

    LocalStore.put = put


# What is done wrong, and a scenario in which that shows.
MUTANTS = {
    no_sync_at_all: "first save",
    rename_before_sync: "first save",
    folder_synced_before_the_rename: "last of its own",
    sync_before_the_last_byte: "first save",
    removed_before_replaced: "last of its own",
    written_in_place: "last of its own",
}
# Where it shows that one of the syncs is left out.
EXPOSED = {
    "commit_temporary, sync 1": "first save",
    "commit_temporary, sync 2": "first save",
    "link, sync 1": "first save",
    "clone, sync 1": "copies",
    "remove, sync 1": "waiting",
    "remove, sync 2": "folders",
    "_open_spare, sync 1": "recycled",
    "make_folders, sync 1": "first save",
}
# Syncs of what no training waits for: a damaged file would be set aside again, and keys are made by hand.
# Their order of calls is tested beside the store.
ELSEWHERE = frozenset({"move, sync 1", "write_new, sync 1", "write_new, sync 2"})
