"""What a terminal is shown, on a real one: colours, tables, bars; and what of a file never reaches it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from tests.support.files import save
from tests.support.running import PYTHONPATH

POLICY = {"monitor": "val_loss", "mode": "min", "save_top_k": 1}
WITHOUT_RICH = "import sys; sys.modules['rich'] = None; sys.modules['rich.console'] = None;"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(*arguments, columns=160, rich=True, **environment):
    """Run the command with stdout and stderr on a terminal; return what it has shown."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    code = ("" if rich else WITHOUT_RICH) + "from holdfast.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": PYTHONPATH, "TERM": "xterm", **environment}
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=follower, stderr=follower, env=known
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        os.close(leader)
        assert process.wait(timeout=60) in (0, 1)
    return shown.decode().replace("\r\n", "\n")


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "plain.ckpt", metrics={"val_loss": 0.5}, policy=POLICY)
    return tmp_path


@pytest.mark.parametrize("rich", [True, False])
def test_colour_is_for_terminals(folder, rich):
    """On a terminal the head of a table is bold, with rich and without; with NO_COLOR or a dumb one nothing is."""
    assert COLOUR.search(on_terminal("ls", folder, rich=rich))
    assert not re.search(r"\x1b\[3[0-9]", on_terminal("ls", folder, rich=rich, NO_COLOR="1"))
    assert "\x1b" not in on_terminal("ls", folder, rich=rich, TERM="dumb")


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("columns", [60, 160])
def test_names_are_shown_as_they_are(tmp_path, rich, columns):
    """Markup, links and escape sequences in names, metrics and tags are letters, and nothing of them is obeyed."""
    names = ("[red]x.ckpt", "[link=file:x]y[/link].ckpt", "\x1b[2J\x1b]0;title\x07.ckpt", ":skull:.ckpt")
    for sequence, name in enumerate(names):
        save(tmp_path / name, metrics={"[bold]m": 1.0}, policy=POLICY, names={"ranked": name}, sequence=sequence)
    shown = COLOUR.sub("", on_terminal("ls", tmp_path, rich=rich, columns=columns))
    for part in ("[red]x.ckpt", "[link=file:x]y[/link].ckpt", "\\x1b[2J\\x1b]0;title\\x07.ckpt", ":skull:.ckpt"):
        assert part in shown.replace("\n", "")
    assert "[bold]m=1" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


@pytest.mark.parametrize("rich", [True, False])
def test_a_bar_leaves_no_trace(folder, rich):
    """A bar is shown on a terminal, and is gone at the end: the verdict stands on a line of its own."""
    shown = on_terminal("verify", folder, rich=rich)
    last = re.split(r"\n|\x1b\[2?K|\r", COLOUR.sub("", shown).rstrip("\n"))[-1]
    assert last == f"whole    {folder / 'plain.ckpt'}"
    assert "\x1b[" in shown


def test_pipes_have_no_bars(folder):
    """In a pipe stderr stays empty."""
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "verify", str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_a_path_for_scripts_is_exact(tmp_path):
    """``last`` prints the very bytes of a name in a pipe, and its escapes on a terminal."""
    name = os.fsdecode(b"caf\xe9 \xff.ckpt")
    save(tmp_path / name, policy=POLICY, names={"ranked": "cafe.ckpt"})
    command = [sys.executable, "-m", "holdfast", "last", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == os.fsencode(tmp_path / name) + b"\n"
    assert "\\udcff.ckpt" in on_terminal("last", tmp_path)
