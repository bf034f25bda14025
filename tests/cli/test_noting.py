"""The verbs that say something of a checkpoint: tag, pin, unpin, note, metric."""

from __future__ import annotations

import json

import pytest

import holdfast
from holdfast.cli import main
from tests.support.files import content, save, torch_bytes

POLICY = {"monitor": "val_loss", "mode": "min", "save_top_k": 1}


@pytest.fixture
def path(tmp_path):
    """The second best of two checkpoints."""
    for sequence, score in enumerate((0.5, 0.25, 0.75)):
        names = {"ranked": f"{sequence}.ckpt"}
        metrics = {"val_loss": score}
        save(tmp_path / f"{sequence}.ckpt", names=names, sequence=sequence, metrics=metrics, policy=POLICY)
    return str(tmp_path / "0.ckpt")


def said(capsys):
    return json.loads(capsys.readouterr().out)


def test_tags_come_and_go(path, capsys):
    """``tag`` adds, ``tag --remove`` takes away, and both say what is there now; the file is never touched."""
    before = content(path)
    assert main(["tag", path, "paper", "figure 2", "--json"]) == 0
    assert said(capsys)[0]["tags"] == ["paper", "figure 2"]
    assert main(["tag", "--remove", path, "paper", "--json"]) == 0
    assert said(capsys)[0]["tags"] == ["figure 2"]
    assert content(path) == before


def test_pins_hold_against_rules(path, capsys):
    """What is pinned stays in a plan that would drop it, and goes again when it is unpinned; ``ls`` shows the pin."""
    folder = path.removesuffix("/0.ckpt")

    def dropped():
        assert main(["prune", folder, "--keep", "[]", "--json"]) == 0
        return {item["name"] for item in said(capsys) if not item["keep"]}

    assert dropped() == {"0.ckpt"}
    assert main(["pin", path]) == 0
    assert capsys.readouterr().out == f"{path}: pinned\n"
    assert dropped() == set()
    assert main(["ls", folder]) == 0
    assert any("0.ckpt" in line and "pinned" in line for line in capsys.readouterr().out.splitlines())
    assert main(["unpin", path]) == 0
    capsys.readouterr()
    assert dropped() == {"0.ckpt"}


def test_notes_stand_in_show(path, capsys):
    """``note`` adds a text, which ``show`` prints with its control characters escaped and its markup as it is."""
    assert main(["note", path, "[red]sent\x1b[2J"]) == 0
    capsys.readouterr()
    assert main(["show", path]) == 0
    shown = capsys.readouterr().out
    assert "[red]sent\\x1b[2J" in shown
    assert "\x1b" not in shown


def test_late_metrics_count(path, capsys):
    """A metric that is attached later makes another checkpoint the best, for ``best`` and for programs."""
    folder = path.removesuffix("/0.ckpt")
    assert main(["best", folder]) == 0
    assert capsys.readouterr().out == f"{folder}/1.ckpt\n"
    assert main(["metric", path, "val_loss=0.125", "a=b=nan"]) == 0
    capsys.readouterr()
    assert main(["best", folder]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert main(["best", folder, "--metric", "val_loss", "--mode", "max", "--json"]) == 0
    assert said(capsys) == {"path": f"{folder}/2.ckpt"}
    assert holdfast.open(path).metrics["val_loss"] == 0.125
    assert "a=b" in holdfast.open(path).late_metrics


@pytest.mark.parametrize("arguments", [["metric", "x"], ["metric", "=1"], ["metric", "x=one"], ["tag"]], ids=str)
def test_what_cannot_be_said(path, arguments, capsys):
    """What is no metric, and no tag at all, is wrong usage."""
    with pytest.raises(SystemExit) as ended:
        main([arguments[0], path, *arguments[1:]])
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_what_nobody_could_tell(tmp_path, capsys):
    """Nothing can be said of a file without a manifest (2), nor of what is not there (3)."""
    (tmp_path / "foreign.ckpt").write_bytes(torch_bytes({"x": 1}))
    assert main(["pin", str(tmp_path / "foreign.ckpt")]) == 2
    assert main(["pin", str(tmp_path / "none.ckpt")]) == 3
    assert main(["pin", str(tmp_path)]) == 3
    assert capsys.readouterr().out == ""
