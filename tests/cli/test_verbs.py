"""What holds for every verb: its help, its example, its JSON, its place in the documentation and in the completion."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli import main
from holdfast.cli.helping import GROUPS
from holdfast.cli.main import VERBS, build_parser, verb_module

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
SPEAKS_NO_JSON = {"completion"}  # its output is a shell's


def help_of(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_and_the_exit_codes(verb, capsys):
    """Each verb's help begins with how it is called, and ends with an example of just that verb and its exit codes."""
    text = help_of(verb, capsys)
    assert text.startswith(f"usage: holdfast {verb} ")
    example = re.search(r"^examples?:\n((?:  .*\n)+)", text, re.MULTILINE)
    assert example is not None
    assert all(f"holdfast {verb}" in line for line in example[1].splitlines())
    assert re.search(r"^exit codes: 0 ", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("verb", sorted(set(VERBS) - SPEAKS_NO_JSON))
def test_json_is_offered(verb, capsys):
    """Each verb that prints a result can print it as JSON."""
    assert "--json" in help_of(verb, capsys)


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_tells_of_it(verb):
    """Each verb has a section in docs/cli.md, with a command line of it."""
    page = PAGE.read_text()
    assert re.search(rf"^##+ .*`{verb}`", page, re.MULTILINE)
    assert f"holdfast {verb}" in page


def test_the_page_tells_of_no_other():
    """No section of docs/cli.md is about what is no verb."""
    told = re.findall(r"^### `(\S+)`$", PAGE.read_text(), re.MULTILINE)
    assert set(told) <= {name for _, names in GROUPS for name in names}


@pytest.mark.parametrize("verb", VERBS)
def test_each_is_in_one_group(verb):
    """Each verb stands in one group of the help, and no group names it twice."""
    assert sum(names.count(verb) for _, names in GROUPS) == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_completion_knows_all(shell, capsys):
    """The script of each shell has every verb; the shell itself, where it is installed, can read it."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(verb in script for verb in VERBS)
    if shell == "bash":
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)  # noqa: S607
        assert (done.returncode, done.stderr) == (0, "")


def test_completion_without_its_extra(monkeypatch, capsys):
    """Without the package, completion names the extra and ends with 1."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'holdfast[cli]'" in capsys.readouterr().err


def test_alone_it_prints_its_help(capsys):
    """``holdfast`` alone prints the help, as for any wrong usage on stderr and with the code 2."""
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(f"  {verb} " in captured.err for verb in VERBS)


def test_a_slip_of_the_pen(capsys):
    """A wrong verb is answered with the nearest one; one that is near to none with where they are listed."""
    for wrong, answer in (("verfy", "did you mean `holdfast verify`?"), ("xyzzy", "`holdfast --help` lists them")):
        with pytest.raises(SystemExit) as ended:
            main([wrong, "runs"])
        assert ended.value.code == 2
        assert answer in capsys.readouterr().err


def test_an_error_is_json_too(tmp_path, capsys):
    """With ``--json`` an error is one JSON document on stdout, with the error's code and the exit code."""
    for arguments, code, exit_code in (
        (["ls", str(tmp_path / "none")], "HF310", 3),
        (["ls", "nosuch://x"], "HF100", 2),
    ):
        assert main([*arguments, "--json"]) == exit_code
        captured = capsys.readouterr()
        error = json.loads(captured.out)["error"]
        assert (error["code"], error["exit_code"]) == (code, exit_code)
        assert captured.err == f"holdfast: {error['message']}\n"


def test_a_verb_imports_only_its_own():
    """The parser for one verb imports no other verb's module, so that each starts as fast as it can."""
    code = (
        "import sys; from holdfast.cli.main import build_parser, VERBS; build_parser('last');"
        "print(sorted(v for v in VERBS if 'holdfast.cli.' + v in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['last']"


@pytest.mark.parametrize("verb", VERBS)
def test_modules_are_found_by_name(verb):
    """Each verb's module has what the command asks of it."""
    module = verb_module(verb)
    assert callable(module.run)
    assert callable(module.add_arguments)
    assert build_parser(verb) is not None
