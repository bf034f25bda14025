"""``holdfast plan``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from holdfast.cli import main
from holdfast.cli.plan import bar

RUN = ("--steps", "1e5", "--every", "500", "--size", "14GB")
KEYS = {
    "rules", "steps", "saves", "size", "written", "written_per_day", "seconds", "stride",
    "peak", "end", "kept", "points", "metrics",
}  # fmt: skip


def test_plan_is_a_table_and_a_chart(capsys):
    """The numbers, a row with a bar for each time, and what is kept in the end with its reason."""
    assert main(["plan", "--rules", "Latest(3) | EverySteps(10000)", *RUN, "--step-seconds", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "200 saves of 14.0 GB in 100,000 steps" in out
    assert "written: 2.8 TB in 13:53:20, 4.8 TB a day" in out
    assert "at the end: 12 files, 168.0 GB" in out
    assert "at most: 13 files, 182.0 GB" in out
    chart = [line.split() for line in out.splitlines() if line.endswith("#")]
    assert len(chart) == 20
    assert chart[-1] == ["100,000", "12", "168.0", "GB", "#" * 40]
    assert "step 90,000      the first from step 90000" in out


def test_plan_as_json_has_stable_keys(capsys):
    """``--keep`` is the same as ``--rules``; the values are numbers."""
    metric = ("--metric", "val_loss=2.5:0.4:0")
    assert main(["plan", "--keep", "Best(2, 'val_loss')", *RUN, *metric, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert set(value) == KEYS
    assert [item["step"] for item in value["kept"]] == [100_000, 99_500]
    assert value["end"] == {"step": 100_000, "files": 2, "size": 28 * 10**9}
    assert len(value["points"]) == 200


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--rules", "Latst(3)", *RUN), "Latst(3)' means nothing here"),
        (("--rules", "Newer('7d')", *RUN), "step_seconds"),
        (("--rules", "Latest(1)", *RUN, "--metric", "val_loss"), "val_loss=2.5:0.4"),
        (("--rules", "Latest(1)", *RUN, "--metric", "a=1:nan"), "finite"),
        (("--rules", "Latest(1)", *RUN, "--size", "big"), "'big'"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, says, capsys):
    """A wrong argument is named in one line, with exit code 2."""
    assert main(["plan", *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("steps", ["0", "1.5", "-3", "many", "inf", "nan"])
def test_steps_are_whole_numbers(steps, capsys):
    """A number of steps that is none is refused by the parser."""
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "--rules", "Latest(1)", "--steps", steps, "--every", "1", "--size", "1GB"])
    assert "whole number of steps" in capsys.readouterr().err


def test_plan_imports_no_torch():
    """The simulation needs neither torch nor numpy."""
    code = (
        "import sys; from holdfast.cli import main; "
        f"main(['plan', '--rules', 'Latest(1)', *{RUN!r}]); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bars_are_as_long_as_their_share():
    """A bar has eighths of a character on a terminal, and whole ones elsewhere."""
    assert bar(10, 10, blocks=True) == "█" * 40
    assert bar(1, 320, blocks=True) == "▏"
    assert bar(0, 10, blocks=True) == bar(0, 0, blocks=False) == ""
    assert bar(5, 10, blocks=False) == "#" * 20
