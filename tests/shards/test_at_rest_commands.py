"""Committed sharded checkpoints in the hands of commands and of other runs: listed, pruned, copied, loaded."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest
import torch

import holdfast
from holdfast import DamagedCheckpointError, LoadError, scanning
from holdfast.cli.main import main
from holdfast.format import directory
from holdfast.front.planning import entry_of
from holdfast.front.reopening import is_ours
from holdfast.policy.ledger import Ledger
from holdfast.storage import open_store
from tests.shards.folders import SHARD, bytes_of, folder
from tests.support.shards import damage, save_plain, save_sharded, state


def test_the_command_takes_it_as_any_checkpoint(made, capsys):
    """Every verb that looks or notes works with its path as with a file's, and exits with 0."""
    save_sharded(os.path.join(folder(made), "b.ckpt"), sequence=2, step=6, metrics={"val_loss": 0.7})
    run = folder(made)
    for arguments in (
        ["show", made],
        ["pin", made],
        ["unpin", made],
        ["tag", made, "good"],
        ["note", made, "fine"],
        ["metric", made, "acc=0.5"],
        ["prune", run, "--keep", "Latest(1)"],
        ["doctor", run],
        ["doctor", run, "--deep"],
        ["verify", run],
        ["ls", run],
    ):
        assert main(arguments) == 0, (arguments, capsys.readouterr())
    out = capsys.readouterr().out
    assert "a.ckpt" in out
    assert "b.ckpt" in out
    assert main(["best", run, "--metric", "val_loss", "--mode", "min"]) == 0
    assert capsys.readouterr().out.strip().endswith("a.ckpt")
    assert main(["last", run]) == 0
    assert capsys.readouterr().out.strip().endswith("b.ckpt")
    assert main(["show", "--json", made]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["manifest"]["records"]) == 3
    assert holdfast.open(made).tags == ("good",)
    assert holdfast.open(made).sharded


def test_prune_removes_whole_directories(made):
    """``prune`` removes what the rules drop, directory and notes, and keeps what is pinned."""
    run = folder(made)
    pinned = save_sharded(os.path.join(run, "b.ckpt"), sequence=2)
    save_sharded(os.path.join(run, "c.ckpt"), sequence=3)
    newest = save_sharded(os.path.join(run, "d.ckpt"), sequence=4)
    holdfast.open(pinned).pin()
    holdfast.open(made).note("to go")
    gone = [item.name for item in holdfast.prune(run, "Latest(1)", dry_run=False) if item.removed]
    assert sorted(gone) == ["a.ckpt", "c.ckpt"]
    assert [item.path for item in holdfast.catalog(run)] == [newest, pinned]
    assert sorted(os.listdir(run)) == [".holdfast-notes", "b.ckpt", "d.ckpt"]


def test_a_run_knows_its_own_again(made):
    """What a run would remove is its own by its stamp or its manifest, and no longer if another save has the name."""
    store = open_store(folder(made))
    run = SimpleNamespace(store=store, run="aaaa", bare=False)
    ledger = Ledger(entries=(entry_of("a.ckpt", scanning.look(store, "a.ckpt").facts),))
    stamps = {"a.ckpt": store.stamp("a.ckpt")}
    assert is_ours(run, ledger, "a.ckpt", stamps)
    assert is_ours(run, ledger, "a.ckpt", {})
    save_sharded(made, sequence=8)
    assert not is_ours(run, ledger, "a.ckpt", {"a.ckpt": (0, 0, 0)})
    save_sharded(made, sequence=1, run="bbbb")
    assert not is_ours(run, ledger, "a.ckpt", {})
    damage(made, directory.MANIFEST_FILE, 20)
    assert not is_ours(run, ledger, "a.ckpt", {})


def test_a_copy_is_the_same(made, tmp_path):
    """One directory is copied, byte for byte, and again is skipped; with its notes, and over another only by force."""
    holdfast.open(made).tag("good")
    target = str(tmp_path / "there" / "z.ckpt")
    assert holdfast.copy(made, target).copied[:1] == (target,)
    assert bytes_of(target) == bytes_of(made)
    assert holdfast.copy(made, target).skipped[:1] == (target,)
    other = save_sharded(tmp_path / "other.ckpt", state(seed=9))
    with pytest.raises(holdfast.ConfigurationError, match="force"):
        holdfast.copy(other, target)
    holdfast.copy(other, target, force=True)
    assert bytes_of(target) == bytes_of(other)


def test_a_damaged_one_is_not_copied(made, tmp_path):
    """A damaged directory is an error of the source, and nothing is left at the target."""
    damage(made, SHARD, 300)
    with pytest.raises(DamagedCheckpointError, match=rf"run/a\.ckpt is damaged: {SHARD}"):
        holdfast.copy(made, tmp_path / "there" / "z.ckpt")
    assert os.listdir(tmp_path / "there") == []


def test_a_directory_of_runs_is_copied_with_its_second_names(made, tmp_path):
    """A copy of a whole directory has each sharded checkpoint once, its second name as links, and plain DCP's files."""
    run = folder(made)
    open_store(run).link("a.ckpt", "last.ckpt")
    save_plain(os.path.join(run, "plain.ckpt"))
    there = str(tmp_path / "there")
    done = holdfast.copy(run, there)
    assert done.problems == ()
    assert bytes_of(there) == bytes_of(run)
    assert os.path.samefile(os.path.join(there, "a.ckpt", SHARD), os.path.join(there, "last.ckpt", SHARD))
    assert holdfast.copy(run, there).copied == ()


def test_load_gives_the_whole_state(made, tmp_path):
    """``holdfast.load`` of a directory, ours or plain DCP's, is the nested state of one process, bit for bit."""
    plain = save_plain(tmp_path / "plain.ckpt")
    expected = state()
    for path in (made, plain):
        loaded = holdfast.load(path)
        assert list(loaded) == ["state_dict", "global_step"]
        assert loaded["global_step"] == 7
        for name in ("weight", "bias"):
            assert torch.equal(loaded["state_dict"][name], expected[f"state_dict.{name}"])
            assert loaded["state_dict"][name].dtype == expected[f"state_dict.{name}"].dtype
    assert holdfast.load(made, map_location="meta")["state_dict"]["weight"].device.type == "meta"
    assert torch.equal(holdfast.open(made).load()["state_dict"]["bias"], expected["state_dict.bias"])
    for words in ({"allow_unsafe": True}, {"map_location": {"cpu": "cuda:0"}}):
        with pytest.raises(holdfast.ConfigurationError):
            holdfast.load(made, **words)
    damage(made, SHARD, 300)
    with pytest.raises(DamagedCheckpointError):
        holdfast.load(made)


@pytest.mark.parametrize("use", ["statistics", "diff", "tensor"])
def test_what_takes_single_files_says_so(made, use):
    """What cannot look into a directory is one clear error that says what can."""
    from holdfast.front import tensors

    calls = {
        "statistics": lambda: holdfast.statistics(made),
        "diff": lambda: holdfast.diff(made, made),
        "tensor": lambda: tensors.tensor(made, "state_dict.weight"),
    }
    with pytest.raises(LoadError, match=r"is a sharded checkpoint.*holdfast export"):
        calls[use]()


def test_it_can_be_asked_for_what_it_is(made, tmp_path):
    """``holdfast.catalog`` of a checkpoint's own directory says that it is one; ``remove_path`` takes it away whole."""
    from holdfast.front.saving import remove_path

    with pytest.raises(holdfast.CheckpointNotFoundError, match="sharded checkpoint: `holdfast show`"):
        holdfast.catalog(made)
    remove_path(made)
    assert os.listdir(folder(made)) == []
    plain = save_plain(tmp_path / "plain.ckpt")
    remove_path(plain)
    assert not os.path.exists(plain)
