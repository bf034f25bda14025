"""How many requests what people do often costs on an object store."""

from __future__ import annotations

import secrets
import warnings

import pytest
import torch

from holdfast import Checkpointer, catalog, load, verify
from holdfast.cli.main import main
from tests.support.counting import requests


@pytest.fixture(params=["memory", "s3"])
def url(request):
    """A prefix of its own; what a machine keeps of files has been emptied."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://bucket/{secrets.token_hex(4)}"
    return f"memory://{secrets.token_hex(4)}"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HOLDFAST_CACHE")


def filled(url, count):
    """Save some checkpoints; return the requests of the last save, and of a step that saves nothing."""
    words = {"every_n_train_steps": 2, "save_top_k": -1, "monitor": "loss", "async_save": False}
    with requests() as asked, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Checkpointer(url, model=torch.nn.Linear(2, 1), **words) as ckpt:
            for step in range(2 * count - 1):
                ckpt.step({"loss": float(step)})
            asked.clear()
            ckpt.step({"loss": -1.0})
            saved = asked.counts()
            asked.clear()
            ckpt.step({"loss": -1.0})
            idle = asked.counts()
    return saved, idle


def cost(*argv):
    with requests() as asked:
        assert main([*argv]) == 0
    return dict(asked.counts())


def test_steps_and_saves(url):
    """A step that saves nothing asks the server nothing, and a save asks no more when there are many before it."""
    few, idle = filled(f"{url}/few", 2)
    many, also_idle = filled(f"{url}/many", 12)
    assert (sum(idle.values()), sum(also_idle.values())) == (0, 0)
    assert few == many
    assert many["put"] == 1
    assert sum(many.values()) <= 4
    assert many["get"] == 0


def test_a_listing(url, capsys):
    """``ls``, ``best`` and ``last`` cost two listings and a read for each checkpoint."""
    filled(url, 5)
    assert cost("ls", url) == cost("best", url) == cost("last", url) == {"list": 2, "get": 5}


def test_a_second_listing_reads_nothing(s3, cached, capsys):
    """Where the server tells etags, what was read once is not read again, and what is new is."""
    url = f"s3://bucket/{secrets.token_hex(4)}"
    filled(url, 3)
    assert cost("ls", url, "--json") == {"list": 2, "get": 3}
    first = capsys.readouterr().out
    assert cost("ls", url, "--json") == {"list": 2}
    assert capsys.readouterr().out == first
    assert cost("prune", url, "--keep", "Latest(1)") == {"list": 2}


def test_a_file_that_was_written_anew_is_read_anew(s3, cached):
    """A name with other bytes, of the same size, is another file: nothing that was kept of the old one is told."""
    url, sizes = f"s3://bucket/{secrets.token_hex(4)}", set()
    for loss in (0.5, 0.7):
        words = {"every_n_train_steps": 1, "save_top_k": -1, "enable_version_counter": False, "async_save": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Checkpointer(url, model=torch.nn.Linear(2, 1), filename="same", **words) as ckpt:
                ckpt.step({"loss": loss})
        (found,) = catalog(url)
        assert found.metrics["loss"] == loss
        sizes.add(found.size)
    assert len(sizes) == 1


def test_verifying_and_loading(url):
    """To verify small checkpoints takes one read each, and a listing; to load one, a listing and a read."""
    filled(url, 5)
    one = catalog(url)[0].path
    assert cost("verify", one) == {"list": 1, "get": 1}
    unfinished = {} if url.startswith("memory") else {"uploads": 1}
    assert cost("verify", url) == {"list": 2, "get": 5, **unfinished}
    for use in (verify, load):
        with requests() as asked:
            use(one)
        assert asked.counts() == {"list": 1, "get": 1}


def test_one_checkpoint(s3, cached, tmp_path, capsys):
    """What people do with one checkpoint costs a few requests: a look at it, at what is said of it, or a write."""
    url = f"s3://bucket/{secrets.token_hex(4)}/run"
    filled(url, 3)
    one = catalog(url)[0].path
    assert cost("show", one) == {"list": 3}
    for count, word in enumerate((["tag", one, "paper"], ["pin", one], ["note", one, "why"])):
        # What is said of it is read before and after, a read each.
        assert cost(*word) == {"list": 4, "head": 1, "put": 1, "get": 2 * count + 1}
    assert cost("cp", one, str(tmp_path / "x.ckpt")) == {"list": 3, "get": 1 + 3}
    there = cost("cp", one, f"{url}/of/x.ckpt")  # and the three things that were said of it
    assert there == {"list": 3, "head": 3 + 3, "get": 2 + 3 * 2, "put": 1 + 3}


def test_three_requests_for_each_that_goes(s3, cached, capsys):
    """What rules drop is looked at, and its pins, and it goes with its signature: by ``prune`` and in a run."""
    url = f"s3://bucket/{secrets.token_hex(4)}"
    costs = []
    for count in (4, 8):
        filled(f"{url}/{count}", count)
        catalog(f"{url}/{count}")
        costs.append(cost("prune", f"{url}/{count}", "--keep", "Latest(1)", "--yes"))
        assert len(catalog(f"{url}/{count}")) == 1  # the newest, and the best
    assert {kind: costs[1][kind] - costs[0].get(kind, 0) for kind in costs[1]} == {"list": 8, "put": 0, "remove": 4}
    words = {"every_n_train_steps": 1, "save_top_k": 1, "monitor": "loss", "save_last": False}
    with requests() as asked, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Checkpointer(f"{url}/run", model=torch.nn.Linear(2, 1), **words) as ckpt:
            for step in range(3):
                ckpt.step({"loss": -float(step)})
                ckpt.wait()
                counts = asked.counts()
                asked.clear()
    assert counts["remove"] == counts["put"] == 1
    assert sum(counts.values()) <= 10


@pytest.mark.long
def test_a_thousand(s3, cached, capsys):
    """Of 1,100 checkpoints the second listing costs two pages, twice."""
    url = f"s3://bucket/{secrets.token_hex(4)}"
    filled(url, 1100)
    assert cost("ls", url) == {"list": 4, "get": 1100}
    assert cost("ls", url) == {"list": 4}
