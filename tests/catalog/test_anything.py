"""Whatever stands in a directory is listed, each with what is wrong with it, and nothing is an error."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys

import pytest

import holdfast
from holdfast import HoldfastError
from tests.support.files import content, put, save, small_state, torch_bytes

NOBODY = 65534


def zoo(folder):
    """A directory with one of everything; returns what is wrong with each by name, as a part of the text."""
    whole = content(save(folder / "good.ckpt", run="r", sequence=1))
    put(folder / "stock.ckpt", torch_bytes({"epoch": 1, "state_dict": small_state()["state_dict"]}))
    put(folder / "old-stock.ckpt", torch_bytes(small_state(), _use_new_zipfile_serialization=False))
    put(folder / "torn.ckpt", whole[: len(whole) // 2])
    put(folder / "zeros.ckpt", b"\0" * len(whole))
    put(folder / "empty.ckpt", b"")
    put(folder / "last.ckpt", b"garbage named last, not a checkpoint at all")
    put(folder / "secret.ckpt", whole)
    put(folder / "notes.txt", b"no checkpoint")
    os.symlink("loop.ckpt", folder / "loop.ckpt")
    os.symlink(".", folder / "round")
    os.symlink(".", folder / "round.ckpt")
    os.symlink("nowhere", folder / "dangling.ckpt")
    os.symlink("good.ckpt", folder / "link.ckpt")
    os.mkfifo(folder / "pipe.ckpt")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(folder / "socket.ckpt"))
    put(folder / "x.ckpt.damaged", whole[:100])
    put(folder / ".holdfast-0123456789abcdef.tmp", whole[:50])
    os.mkdir(folder / "closed")
    save(folder / "closed" / "inner.ckpt", run="r", sequence=2)
    os.mkdir(folder / "sharded.ckpt")
    put(folder / "\x1b[2Jname.ckpt", b"garbage in place of a file")
    return {
        "good.ckpt": None,
        "link.ckpt": None,
        "stock.ckpt": None,
        "old-stock.ckpt": None,
        "torn.ckpt": "the end of the file is missing",
        "zeros.ckpt": "nothing of it was ever written",
        "empty.ckpt": "it is empty",
        "last.ckpt": None,
        "loop.ckpt": "leads back to itself",
        "round.ckpt": "a link to a folder",
        "dangling.ckpt": "a link that leads nowhere",
        "pipe.ckpt": "a pipe, a device or a socket",
        "socket.ckpt": "a pipe, a device or a socket",
        "\x1b[2Jname.ckpt": None,
    }


def assert_listed(listed, expected):
    assert set(listed) == set(expected)
    for name, problem in expected.items():
        assert (problem or "") in listed[name], name
        assert bool(problem) == bool(listed[name]), name


def test_everything_is_listed(tmp_path):
    """Stock, torn, empty, foreign files, pipes, sockets, loops and dangling links: all are there, and what is wrong."""
    expected = {**zoo(tmp_path), "secret.ckpt": None, "closed/inner.ckpt": None}
    catalog = holdfast.catalog(tmp_path)
    assert_listed({item.name: item.problem for item in catalog}, expected)
    assert [item.name for item in catalog if item.facts is None] == sorted(
        set(expected) - {"good.ckpt", "link.ckpt", "secret.ckpt", "closed/inner.ckpt"}
    )
    assert catalog.aside == [str(tmp_path / "x.ckpt.damaged")]
    assert catalog.leftovers == [str(tmp_path / ".holdfast-0123456789abcdef.tmp")]
    assert len(catalog.records()) == len(catalog.plan()) == len(catalog)
    assert all(decision.keep for decision in catalog.plan([]) if decision.name not in ("good.ckpt", "link.ckpt"))
    assert "pipe.ckpt" in catalog._repr_html_()
    assert "\x1b" not in catalog._repr_html_() + repr(list(catalog))


def test_nothing_that_is_done_with_one_breaks(tmp_path):
    """Whatever is asked of whatever stands there, the answer is a value or one of our errors, and nothing waits."""
    zoo(tmp_path)
    for item in holdfast.catalog(tmp_path):
        for ask in (
            lambda item: item.manifest,
            lambda item: item.kept,
            lambda item: item.verify(),
            lambda item: item.load(),
            lambda item: item.statistics(),
            lambda item: item.tag("a"),
            lambda item: repr(item) + item._repr_html_(),
            lambda item: holdfast.open(item.path).kept,
        ):
            with contextlib.nullcontext() if item.name == "good.ckpt" else contextlib.suppress(HoldfastError):
                ask(item)


LIST = """
import json, os, sys
import holdfast
for item in holdfast.catalog(sys.argv[3]):
    print(item.tag("all is imported"), holdfast.errors.printable(chr(27)), file=sys.stderr)
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
catalog = holdfast.catalog(sys.argv[1])
said = []
for item in catalog:
    try:
        item.tag("x")
    except holdfast.HoldfastError as error:
        said.append(type(error).__name__)
try:
    holdfast.catalog(sys.argv[1] + "/closed")
except holdfast.LoadError:
    said.append("not listed")
print(json.dumps([{item.name: item.problem for item in catalog}, sorted(set(said))]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read a file")
def test_without_permission(tmp_path):
    """Files and folders that may not be read are listed as that, by one who is not root; the others are as always."""
    place = tmp_path / "open"
    place.mkdir()
    expected = zoo(place)
    for folder in (place, *place.parents):
        if os.stat(folder).st_mode & 0o005 != 0o005:
            os.chmod(folder, os.stat(folder).st_mode | 0o005)
    os.chmod(place / "secret.ckpt", 0)
    os.chmod(place / "closed", 0)
    expected |= {"secret.ckpt": os.strerror(errno.EACCES), "closed": os.strerror(errno.EACCES)}
    other = tmp_path / "other"
    other.mkdir()
    save(other / "x.ckpt")
    command = [sys.executable, "-c", LIST, str(place), str(NOBODY), str(other)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed, said = json.loads(done.stdout)
    assert_listed(listed, expected)
    assert said == ["ConfigurationError", "SaveError", "not listed"]
