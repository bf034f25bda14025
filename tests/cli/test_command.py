"""The command ``holdfast``: what it prints, for people and programs, and how it ends."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import torch

import holdfast
from holdfast.cli import main
from holdfast.cli.verify import KEYS
from tests.support.files import content, put, save, small_state

POLICY = {"monitor": "val_loss", "mode": "min", "save_top_k": 1, "save_last": True}
LOOK_KEYS = {
    "name", "path", "size", "file_id", "run", "role", "kept", "problem", "damaged", "pinned", "tags", "notes",
    "metrics", "late_metrics", "monitor", "mode", "score", "mirrored", "facts",
}  # fmt: skip
FACT_KEYS = {
    "step", "epoch", "sequence", "time", "metrics", "reason", "kind", "weights_only",
    "run", "owner", "names", "policy", "resumed_from", "sources", "git_commit", "versions", "ranks",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A directory with a best, a newest, a last, an exception's and a foreign checkpoint."""
    folder = tmp_path / "run"
    folder.mkdir()
    for sequence, (name, score) in enumerate((("a.ckpt", 0.25), ("b.ckpt", 0.5)), 1):
        save(
            folder / name,
            metrics={"val_loss": score},
            step=sequence,
            sequence=sequence,
            policy=POLICY,
            reason="every epoch",
        )
    save(
        folder / "last.ckpt", names={"last": "last.ckpt"}, metrics={"val_loss": 0.75}, step=3, sequence=3, policy=POLICY
    )
    save(folder / "exception-c.ckpt", names={"exception": "exception-c.ckpt"}, step=4, sequence=4, policy=POLICY)
    torch.save(small_state(), folder / "foreign.ckpt")
    (folder / "notes.txt").write_text("not a checkpoint")
    return folder


def damage(path, at=None):
    data = bytearray(content(path))
    data[len(data) // 2 if at is None else at] ^= 1
    put(path, bytes(data))


def command(*arguments, **options):
    """Run the command as a program."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def test_ls_is_a_table_with_reasons(run, capsys):
    """``ls`` shows each checkpoint once, newest first, with its score and the reason why it is kept."""
    assert main(["ls", str(run)]) == 0
    head, *rows, total = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "step", "epoch", "metrics", "size", "age", "kept", "because"]
    assert total.startswith("5 checkpoints of 1 run, ")
    assert [row.split()[0] for row in rows] == ["exception-c.ckpt", "last.ckpt", "b.ckpt", "a.ckpt", "foreign.ckpt"]
    shown = {row.split()[0]: row for row in rows}
    assert "the lowest val_loss" in shown["a.ckpt"]
    assert "val_loss=0.25" in shown["a.ckpt"]
    assert "the newest" in shown["b.ckpt"]
    assert "the last state" in shown["last.ckpt"]
    assert "never removed" in shown["exception-c.ckpt"]
    assert "no manifest: not saved by holdfast" in shown["foreign.ckpt"]


def test_ls_as_json_has_stable_keys(run, capsys):
    """``ls --json`` is a list of objects whose keys are promised, with numbers as numbers."""
    assert main(["ls", "--json", str(run)]) == 0
    looks = json.loads(capsys.readouterr().out)
    assert [look["name"] for look in looks][:2] == ["exception-c.ckpt", "last.ckpt"]
    assert all(set(look) == LOOK_KEYS for look in looks)
    facts = {look["name"]: look["facts"] for look in looks}
    assert facts["foreign.ckpt"] is None
    assert set(facts["a.ckpt"]) == FACT_KEYS
    assert facts["a.ckpt"]["metrics"] == {"val_loss": 0.25}


def test_json_has_no_nan(tmp_path, capsys):
    """NaN and infinities, for which JSON has no number, stand as their names."""
    path = save(tmp_path / "x.ckpt", metrics={"a": math.nan, "b": -math.inf}, policy={**POLICY, "monitor": "a"})
    for arguments in (["ls", "--json", str(tmp_path)], ["show", "--json", path], ["ls", str(tmp_path)], ["show", path]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        if "--json" in arguments:
            assert json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert "nan" in out


def test_ls_of_an_empty_directory(tmp_path, capsys):
    """A directory without checkpoints is no error."""
    assert main(["ls", str(tmp_path)]) == 0
    assert main(["ls", "--json", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == []


def test_ls_looks_into_folders(tmp_path, capsys):
    """Runs in folders below are listed with their folders, each judged by its own policy."""
    for version in ("version_0", "version_1"):
        (tmp_path / version).mkdir()
        save(tmp_path / version / "x.ckpt", run=version, metrics={"val_loss": 1.0}, policy=POLICY)
    assert main(["ls", str(tmp_path)]) == 0
    first, second, total = capsys.readouterr().out.split("\n\n")
    for part, version in ((first, "version_1"), (second, "version_0")):
        title, _, row = part.splitlines()
        assert title.startswith(f"{version}: run {version}, 1 checkpoint, ")
        assert row.startswith("x.ckpt ")
        assert "the lowest val_loss" in row
    assert total.startswith("2 checkpoints of 2 runs, ")


def test_damaged_files_are_listed_as_such(run, capsys):
    """A file whose directory is damaged is listed as damaged, the others as ever, and the exit code is 1."""
    damage(run / "a.ckpt", at=-98)
    assert main(["ls", str(run)]) == 1
    rows = {row.split()[0]: row for row in capsys.readouterr().out.splitlines()[1:-1]}
    assert "damaged: central directory" in rows["a.ckpt"]
    assert len(rows) == 5
    assert main(["ls", "--json", str(run)]) == 1
    problems = {look["name"]: look["problem"] for look in json.loads(capsys.readouterr().out)}
    assert [name for name, problem in problems.items() if problem] == ["a.ckpt"]


def test_show_tells_the_whole_manifest(run, capsys):
    """``show`` prints step, reason, metrics, tensors with shapes and records with digests; ``--json`` all of it."""
    assert main(["show", str(run / "a.ckpt")]) == 0
    out = capsys.readouterr().out
    for part in (
        "step 1, epoch 0",
        "because: every epoch",
        "val_loss = 0.25",
        "state_dict  ",
        "    weight  ",
        "float32",
        "3x4",
        "data/0",
    ):
        assert part in out
    assert main(["show", "--records", str(run / "a.ckpt")]) == 0
    assert "data.pkl" in capsys.readouterr().out
    assert main(["show", "--json", str(run / "a.ckpt")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"path", "manifest", "pinned", "tags", "notes", "late_metrics", "mirrored"}
    assert set(shown["manifest"]) == {"facts", "records", "tensors", "format"}
    assert set(shown["manifest"]["records"][0]) == {"name", "size", "crc32"}
    assert set(shown["manifest"]["tensors"][0]) == {"name", "dtype", "shape", "record"}


def test_show_of_a_foreign_file(run, capsys):
    """A file without a manifest is said to have none, and is no error."""
    assert main(["show", str(run / "foreign.ckpt")]) == 0
    assert "no manifest" in capsys.readouterr().out
    assert main(["show", "--json", str(run / "foreign.ckpt")]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"] is None


def test_verify_a_directory_and_a_file(run, capsys):
    """``verify`` checks every byte of all checkpoints, or of one; whole ones end with 0."""
    assert main(["verify", str(run)]) == 0
    *rows, total = capsys.readouterr().out.splitlines()
    assert len(rows) == 5
    assert all(row.startswith("whole    ") for row in rows)
    assert total.startswith("5 whole: ")
    assert "zip's own checksums" in next(row for row in rows if "foreign" in row)
    assert main(["verify", str(run / "a.ckpt")]) == 0


def test_verify_names_what_is_damaged(run, capsys):
    """One flipped bit in a tensor: its file and record are named, the other files are still checked, exit code 1."""
    start = content(run / "a.ckpt").index(small_state()["state_dict"]["weight"].numpy().tobytes())
    damage(run / "a.ckpt", at=start)
    assert main(["verify", str(run)]) == 1
    *rows, total = capsys.readouterr().out.splitlines()
    assert total.startswith("4 whole, 1 damaged: ")
    (bad,) = (row for row in rows if row.startswith("DAMAGED"))
    assert str(run / "a.ckpt") in bad
    assert "record data/0 (state_dict.weight)" in bad
    assert len(rows) == 5
    assert main(["verify", "--json", str(run)]) == 1
    results = json.loads(capsys.readouterr().out)
    (result,) = (result for result in results if not result["whole"])
    assert (result["path"], result["record"]) == (str(run / "a.ckpt"), "record data/0 (state_dict.weight)")
    assert all(set(item) == set(KEYS) for item in results)
    assert main(["verify", "--quiet", str(run)]) == 1
    assert capsys.readouterr().out.splitlines()[0] == bad
    assert main(["verify", str(run / "a.ckpt")]) == 1
    assert main(["ls", str(run)]) == 0  # a listing reads no tensors


@pytest.mark.parametrize("verb", ["ls", "show", "verify"])
def test_nothing_there_is_3(tmp_path, capsys, verb):
    """A path at which there is nothing ends with 3 and a message that names it."""
    assert main([verb, str(tmp_path / "none")]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("holdfast: ")
    assert str(tmp_path / "none") in captured.err


def test_a_file_where_a_directory_belongs_and_the_other_way_round(run, capsys):
    """``ls FILE`` and ``show DIR`` end with 3 and say what is missing."""
    assert main(["ls", str(run / "a.ckpt")]) == 3
    assert main(["show", str(run)]) == 3
    assert capsys.readouterr().err.count("holdfast: there is no") == 2


@pytest.mark.parametrize("arguments", [[], ["ls"], ["fly", "x"], ["ls", "--yaml", "."], ["ls", "a", "b"]], ids=str)
def test_wrong_usage_is_2(arguments, capsys):
    """Wrong arguments end with 2 and the usage."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: holdfast" in capsys.readouterr().err


def test_an_unknown_kind_of_url_is_2(capsys):
    """A URL that no installed filesystem knows is wrong usage, and the message names it."""
    for verb in ("ls", "show", "verify"):
        assert main([verb, "nosuch://x/y"]) == 2
        assert "nosuch://x" in capsys.readouterr().err


def test_show_of_a_damaged_file_is_1(run, capsys):
    """A file whose manifest cannot be read ends with 1, and the message names the file and the place."""
    damage(run / "a.ckpt", at=-98)
    assert main(["show", str(run / "a.ckpt")]) == 1
    assert "a.ckpt is damaged: central directory" in capsys.readouterr().err


def test_an_unreadable_directory_is_a_message(monkeypatch, run, capsys):
    """An error of the system is a message and the code 1, not a traceback."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert main(["ls", str(run)]) == 1
    assert "Permission denied" in capsys.readouterr().err


def test_a_url(capsys):
    """The verbs take fsspec URLs as they take paths."""
    import fsspec

    save("memory://cli/x.ckpt", metrics={"val_loss": 1.0}, policy=POLICY)
    try:
        assert main(["ls", "memory://cli"]) == 0
        assert main(["verify", "memory://cli"]) == 0
        assert main(["show", "memory://cli/x.ckpt"]) == 0
        assert "memory://cli/x.ckpt" in capsys.readouterr().out
    finally:
        fsspec.filesystem("memory").store.clear()


def test_as_a_program(run):
    """The program exits with the code, keeps messages and results apart, and knows its version."""
    assert command("--version").stdout.strip() == f"holdfast {holdfast.__version__}"
    done = command("verify", run)
    assert (done.returncode, done.stderr) == (0, "")
    done = command("ls", run / "none")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_goes_away(run):
    """``holdfast ls DIR | head -0`` ends without a traceback and without a complaint of the interpreter."""
    for name in range(60):
        save(run / f"more-{name}.ckpt", reason="x" * 3000)
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "ls", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141  # as shells count; 1 would speak of the checkpoints
    assert errors == b""


@pytest.mark.parametrize("verb", ["ls", "show"])
def test_looking_imports_no_torch(run, verb):
    """Listing and showing are quick: neither torch nor NumPy nor Lightning nor fsspec is imported for a local path."""
    target = run if verb == "ls" else run / "a.ckpt"
    code = (
        "import sys; from holdfast.cli import main; code = main(sys.argv[1:]);"
        "print(code, sorted({'torch', 'numpy', 'lightning', 'fsspec'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, verb, str(target)], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0 []"


def test_renamed_and_copied_files(run, capsys):
    """A file that was renamed by hand is still listed with its facts, and said to be nobody's to remove."""
    os.rename(run / "a.ckpt", run / "mine.ckpt")
    assert main(["ls", str(run)]) == 0
    rows = {row.split()[0]: row for row in capsys.readouterr().out.splitlines()[1:]}
    assert "renamed or copied by hand" in rows["mine.ckpt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_output_that_takes_nothing(run, more, unbuffered):
    """A full disk under the output is one line on stderr and exit code 1, for programs too, whoever buffers it."""
    words = [sys.executable, "-m", "holdfast", "ls", str(run), *more]
    with open("/dev/full", "w") as full:
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (1, "holdfast: No space left on device\n")


def test_an_output_that_is_closed(run):
    """With no output at all a verb does its work, and its exit code says how it ended."""
    shell = 'exec "$0" -m holdfast "$@" >&-'
    for words, code in ((["ls", str(run)], 0), (["ls", str(run / "none")], 3), (["ls", str(run), "--json"], 0)):
        done = subprocess.run(["/bin/sh", "-c", shell, sys.executable, *words], stderr=subprocess.PIPE, check=False)
        assert done.returncode == code
        assert b"Traceback" not in done.stderr


def test_show_of_an_empty_file_is_a_problem(tmp_path, capsys):
    """Of a file in which nothing is, ``show`` says what ``ls`` says, and does not call it another program's."""
    put(tmp_path / "x.ckpt", b"")
    assert main(["show", str(tmp_path / "x.ckpt"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "HF320"
