"""A store that somebody else has written: it passes the exam, and is the home of a run by a scheme of its own."""

from __future__ import annotations

import secrets
import sys
from importlib.metadata import EntryPoint

import pytest
import torch

from holdfast import Checkpointer, ConfigurationError, catalog, load, verify
from holdfast.cli import main
from holdfast.storage import open_store, register_store, schemes
from holdfast.testing import StoreSuite
from tests.storage.store_in_memory import StoreInMemory


class TestOwn(StoreSuite):
    """The exam, by a subclass as short as a third party's."""

    def make_store(self):
        return StoreInMemory(f"mine://{secrets.token_hex(8)}")

    def reopen(self, store):
        return StoreInMemory(store.root)


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.setattr(schemes, "_openers", {})
    register_store("mine", StoreInMemory)
    return f"mine://{secrets.token_hex(8)}"


def train(place, **words):
    with Checkpointer(place, model=torch.nn.Linear(2, 1), monitor="loss", every_n_train_steps=1, **words) as ckpt:
        start = ckpt.resume()
        for step in range(start.step, start.step + 3):
            ckpt.step({"loss": 1.0 / (step + 1)})
    return ckpt, start


def test_a_run_has_its_home_there(mine, capsys):
    """Saved, resumed, kept, loaded and verified in a registered store, and listed by the command."""
    ckpt, first = train(mine, save_top_k=2)
    ckpt, second = train(mine, save_top_k=2)
    assert (first.step, second.step) == (0, 3)
    assert [entry.step for entry in catalog(mine)] == [6, 5, 3]  # and the one that it went on from
    assert load(ckpt.best_model_path)["global_step"] == 6
    verify(ckpt.best_model_path)
    assert main(["ls", mine]) == 0
    assert "step=6" in capsys.readouterr().out


def test_it_is_a_mirror(mine):
    """A store that takes no parts is a mirror too: each checkpoint is put whole, and resumed from elsewhere."""
    train("here", mirror=mine)
    assert [entry.step for entry in catalog(mine)] == [3]  # what the rules drop goes there, too
    assert train("elsewhere", mirror=mine)[1].step == 3


class Rooted(StoreInMemory):
    """One whose roots have nothing above them: it knows of no files there."""

    def files(self, folder):
        if self.root in ("mine:", "mine:/"):
            raise FileNotFoundError(2, "there is no such root", self.root)
        return super().files(folder)


def test_nothing_is_above_its_root(mine, capsys):
    """The command takes the URL of a root also where the store knows nothing of what is above that."""
    register_store("mine", Rooted)
    train(mine)
    assert main(["cp", mine, "here"]) == 0
    assert len(catalog("here")) == 1
    assert main(["show", mine]) == 3
    assert "nothing of that name" in capsys.readouterr().err


def test_what_is_no_scheme():
    """A scheme that no URL can have, or that is this machine's files, is an error that names it."""
    for scheme in ("", "mine://", "1st", "file", "local", None):
        with pytest.raises(ConfigurationError, match="scheme"):
            register_store(scheme, StoreInMemory)


def test_a_package_brings_its_scheme(monkeypatch):
    """The entry point of an installed package opens the URLs of its scheme, and of no other."""
    point = EntryPoint("theirs", "tests.storage.store_in_memory:StoreInMemory", schemes.GROUP)
    known = {(schemes.GROUP, "theirs"): [point]}
    monkeypatch.setattr(schemes, "entry_points", lambda *, group, name: known.get((group, name), []))
    schemes._installed.cache_clear()
    try:
        assert isinstance(open_store("theirs://x"), StoreInMemory)
        assert not isinstance(open_store("memory://x"), StoreInMemory)
    finally:
        schemes._installed.cache_clear()


def test_a_package_that_lacks_something(monkeypatch):
    """What the opener cannot import is told as an error of the URL."""

    def lacking(url):
        raise ImportError("no module named 'theirs'")

    monkeypatch.setattr(schemes, "_openers", {})
    register_store("theirs", lacking)
    with pytest.raises(ConfigurationError, match=r"theirs://x.*no module named"):
        open_store("theirs://x")


def test_the_exam_says_what_it_needs(monkeypatch):
    """Without pytest the error names the extra; nothing else of ``holdfast.testing`` needs it."""
    for name in [name for name in sys.modules if name.startswith("holdfast.testing.store_suite")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r"holdfast\[testing\]"):
        from holdfast.testing import BundleSuite  # noqa: F401
