"""``holdfast doctor``: each ailment is found, with its cure; what is well is not; and nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timezone

import pytest
import torch

import holdfast
from holdfast import Checkpointer, FakeClock, notes
from holdfast.cli import main
from holdfast.errors import CheckpointNotFoundError
from holdfast.front import ailing_place
from holdfast.records import Change
from holdfast.storage import RUN_LOCK, open_store
from holdfast.storage.abilities import Abilities, probe
from holdfast.storage.holders import holder_of
from holdfast.storage.locks import lock_for_life, unlock
from tests.support.files import content, listing, put, save, small_state, torch_bytes

POLICY = {"monitor": "loss", "mode": "min", "save_top_k": 2}
NOW = (datetime(2026, 1, 2, 4, tzinfo=timezone.utc) - datetime(2000, 1, 1, tzinfo=timezone.utc)).total_seconds()


@pytest.fixture
def run(tmp_path):
    """A directory in which all is well."""
    folder = tmp_path / "run"
    os.mkdir(folder)
    for step, loss in enumerate((0.5, 0.25), 1):
        name = f"epoch={step}-loss={loss:.2f}.ckpt"
        words = {"names": {"ranked": name}, "policy": POLICY, "metrics": {"loss": loss}}
        save(folder / name, step=step, epoch=step, sequence=step, time=f"2026-01-02T03:0{step}:00+00:00", **words)
    return folder


def kinds(folder, **words):
    """What is found, as (severity, kind, the file's name)."""
    findings = holdfast.doctor(folder, clock=FakeClock(NOW), **words)
    assert all(finding.what and finding.cure for finding in findings)
    return [
        (item.severity, item.kind, os.path.relpath(item.path, folder)) for item in findings if item.kind != "filesystem"
    ]


def snapshot(folder):
    return {name: (content(folder / name), os.stat(folder / name).st_mtime_ns) for name in listing(folder)}


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_well(run, capsys, deep):
    """Of a sound directory nothing is said, the exit code is 0, and nothing in it has changed."""
    before = snapshot(run)
    assert kinds(run, deep=deep) == []
    assert main(["doctor", str(run), *(["--deep"] * deep)]) == 0
    assert "all is well" in capsys.readouterr().out
    assert snapshot(run) == before


def test_a_real_run_is_well(tmp_path):
    """A directory that a training has just left is well, also after a resume, and with its last checkpoint."""
    model = torch.nn.Linear(2, 2)
    for epochs in (2, 4):
        with Checkpointer(
            "runs/x", model=model, monitor="loss", save_top_k=1, save_last=True, every_n_epochs=1
        ) as ckpt:
            start = ckpt.resume()
            for epoch in range(start.epoch, epochs):
                ckpt.step()
                ckpt.end_epoch({"loss": 1.0 / (epoch + 1)})
    found = [finding for finding in holdfast.doctor("runs/x") if finding.kind != "filesystem"]
    assert found == []


def _torn(run):
    put(run / "torn.ckpt", content(run / "epoch=1-loss=0.50.ckpt")[:-20])
    return "torn.ckpt"


def _empty(run):
    put(run / "empty.ckpt", b"")
    return "empty.ckpt"


def _garbage(run):
    put(run / "last.ckpt", b"garbage" * 50)
    return "last.ckpt"


def _dangling(run):
    os.symlink("nowhere", run / "x.ckpt")
    return "x.ckpt"


def _circle(run):
    os.symlink("x.ckpt", run / "x.ckpt")
    return "x.ckpt"


def _pipe(run):
    os.mkfifo(run / "x.ckpt")
    return "x.ckpt"


def _foreign(run):
    put(run / "x.ckpt", torch_bytes(small_state()))
    return "x.ckpt"


def _old_foreign(run):
    put(run / "x.ckpt", torch_bytes(small_state(), _use_new_zipfile_serialization=False))
    return "x.ckpt"


def _aside(run):
    put(run / "x.ckpt.damaged-2", b"x")
    return "x.ckpt.damaged-2"


def _leftover(run):
    put(run / ".holdfast-00ff.tmp", b"x")
    return ".holdfast-00ff.tmp"


def _signature(run):
    put(run / "gone.ckpt.sig", b"x")
    return "gone.ckpt.sig"


def _notes(run):
    notes.write(open_store(run), "", "0" * 32, Change(pin=True))
    return f".holdfast-notes/{'0' * 32}"


def _damaged_notes(run):
    name = "epoch=2-loss=0.25.ckpt"
    home = notes.identity(holdfast.verify(run / name).facts)
    path = notes.write(open_store(run), "", home, Change(pin=True))
    put(run / path, b"{}")
    return name


def _backwards(run):
    name = "epoch=3-loss=0.10.ckpt"
    words = {"names": {"ranked": name}, "policy": {**POLICY, "save_top_k": 3}, "metrics": {"loss": 0.1}}
    save(run / name, step=3, epoch=3, sequence=3, time="2026-01-02T03:01:30+00:00", **words)
    return name


def _future(run):
    name = "epoch=3-loss=0.10.ckpt"
    words = {"names": {"ranked": name}, "policy": {**POLICY, "save_top_k": 3}, "metrics": {"loss": 0.1}}
    save(run / name, step=3, epoch=3, sequence=3, time="2027-01-02T03:01:30+00:00", **words)
    return name


def _lying_name(run):
    os.rename(run / "epoch=1-loss=0.50.ckpt", run / "epoch=1-loss=0.05.ckpt")
    return "epoch=1-loss=0.05.ckpt"


def _too_many(run):
    for step in (3, 4):
        name = f"{step}.ckpt"
        words = {"names": {"ranked": name}, "policy": POLICY, "metrics": {"loss": 0.1}}
        save(run / name, step=step, sequence=step, time=f"2026-01-02T03:0{step}:00+00:00", **words)
    os.unlink(run / "epoch=2-loss=0.25.ckpt")
    return "epoch=1-loss=0.50.ckpt"


def _no_score(run):
    save(
        run / "3.ckpt", step=3, sequence=3, time="2026-01-02T03:03:00+00:00", policy=POLICY, names={"ranked": "3.ckpt"}
    )
    return "3.ckpt"


def test_rules_keep_some_without_a_score(tmp_path):
    """Where ``keep=`` decides, one that was never measured is kept for another reason: nothing is wrong."""
    policy = {**POLICY, "keep": "Latest(2) | Best(1, 'loss')"}
    for step, metrics in ((1, {"loss": 0.5}), (2, {})):
        words = {"policy": policy, "names": {"ranked": f"{step}.ckpt"}, "metrics": metrics}
        save(tmp_path / f"{step}.ckpt", step=step, sequence=step, time=f"2026-01-02T03:0{step}:00+00:00", **words)
    assert [finding for finding in holdfast.doctor(tmp_path) if finding.kind == "score"] == []


def _not_a_number(run):
    words = {"policy": {**POLICY, "save_top_k": 3}, "names": {"ranked": "3.ckpt"}, "metrics": {"loss": float("nan")}}
    save(run / "3.ckpt", step=3, sequence=3, time="2026-01-02T03:03:00+00:00", **words)
    return "3.ckpt"


def _two_runs(run):
    words = {"policy": POLICY, "names": {"ranked": "3.ckpt"}, "metrics": {"loss": 0.1}, "run": "bbbb"}
    save(run / "3.ckpt", step=3, sequence=3, time="2026-01-02T03:03:00+00:00", **words)
    return "."


def _copy(run):
    shutil.copy(run / "epoch=1-loss=0.50.ckpt", run / "precious.ckpt")
    return "precious.ckpt"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_torn, ("problem", "damaged")),
        (_empty, ("problem", "damaged")),
        (_garbage, ("problem", "garbage")),
        (_dangling, ("problem", "unreadable")),
        (_circle, ("problem", "unreadable")),
        (_pipe, ("problem", "unreadable")),
        (_foreign, ("note", "foreign")),
        (_old_foreign, ("note", "foreign")),
        (_aside, ("warning", "set-aside")),
        (_leftover, ("warning", "leftover")),
        (_signature, ("warning", "orphan-signature")),
        (_notes, ("note", "orphan-notes")),
        (_damaged_notes, ("warning", "damaged-notes")),
        (_backwards, ("warning", "clock")),
        (_future, ("warning", "clock")),
        (_lying_name, ("warning", "name")),
        (_too_many, ("warning", "not-kept")),
        (_no_score, ("warning", "score")),
        (_not_a_number, ("note", "score")),
        (_two_runs, ("warning", "runs")),
        (_copy, ("note", "renamed")),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_each_ailment(run, make, expected):
    """What is wrong is found at its place, with its severity; nothing that is well is blamed; nothing changes."""
    name = make(run)
    before = sorted(os.listdir(run))
    found = kinds(run)
    assert (*expected, name) in found
    beside = {("renamed", name), ("copy", name)} if make in (_lying_name, _copy) else set()
    assert {(kind, path) for _, kind, path in found} - beside == {(expected[1], name)} - beside
    assert sorted(os.listdir(run)) == before


def test_flipped_bits_are_found_by_looking_deep(run):
    """A flipped bit in a tensor is found with ``deep``, and the record is named."""
    name = "epoch=1-loss=0.50.ckpt"
    data = bytearray(content(run / name))
    data[data.index(torch.rand(3, 4, generator=torch.Generator().manual_seed(0)).numpy().tobytes())] ^= 1
    put(run / name, bytes(data))
    assert kinds(run) == []
    (finding,) = [item for item in holdfast.doctor(run, deep=True, clock=FakeClock(NOW)) if item.kind == "damaged"]
    assert "record data/0" in finding.what


def test_a_living_writer_is_left_alone(run):
    """A temporary whose writer lives is a note, and stays locked by it."""
    put(run / ".holdfast-00ff.tmp", b"x")
    descriptor = os.open(run / ".holdfast-00ff.tmp", os.O_RDWR)
    assert lock_for_life(descriptor)
    try:
        assert kinds(run) == [("note", "leftover", ".holdfast-00ff.tmp")]
    finally:
        unlock(descriptor)
        os.close(descriptor)
    assert kinds(run) == [("warning", "leftover", ".holdfast-00ff.tmp")]


HOLD = """
import sys, time
from holdfast.storage import own_directory
held = own_directory(sys.argv[1], run="living", since="2026-01-02")
print("held", flush=True)
time.sleep(60)
"""


def test_who_is_there(run):
    """A run that lives is told by its process; one that was killed is told to be dead; its lock is never touched."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        assert kinds(run) == [("note", "run-alive", RUN_LOCK)]
        assert holder_of(run / RUN_LOCK).pid == str(process.pid)
    finally:
        process.kill()
        process.communicate()
    assert kinds(run) == [("note", "run-dead", RUN_LOCK)]
    put(run / RUN_LOCK, b'{"host": "another", "pid": 3}')
    assert kinds(run) == [("note", "run-alive", RUN_LOCK)]
    assert holder_of(run / RUN_LOCK).alive is None


@pytest.mark.parametrize("text", [b"", b"garbage", b"[]", b"null", b'{"pid": {}}', b"[" * 5000, b"\xff\xfe"])
def test_a_lock_file_that_says_nothing(run, text):
    """Whatever stands in a lock file, it is told of and nothing fails."""
    put(run / RUN_LOCK, text)
    assert [kind for _, kind, _ in kinds(run)] in (["run-dead"], ["run-alive"])


def test_what_a_filesystem_cannot_do(run, monkeypatch):
    """Each ability that is missing is told with what follows from it; so is a disk that is too full."""
    lacking = Abilities("", "EPERM", "EIO", "EINVAL", "ENOLCK", "EOPNOTSUPP", "EINVAL", 10)
    monkeypatch.setattr(ailing_place, "probe", lambda folder: lacking)
    found = holdfast.doctor(run, clock=FakeClock(NOW))
    assert [(item.severity, item.kind) for item in found] == [
        *[("problem", "filesystem")] * 3,
        ("problem", "space"),
        ("warning", "filesystem"),
        *[("note", "filesystem")] * 2,
    ]
    monkeypatch.setattr(ailing_place, "probe", lambda folder: Abilities(writing="Permission denied"))
    (finding,) = holdfast.doctor(run, clock=FakeClock(NOW))
    assert (finding.severity, finding.kind) == ("warning", "read-only")


def test_the_probe_leaves_nothing(tmp_path):
    """The probe of a real folder tells that it can be written, replaced in, synced and linked, and leaves nothing."""
    abilities = probe(str(tmp_path))
    assert (abilities.writing, abilities.replacing, abilities.syncing, abilities.linking) == ("", "", "", "")
    assert abilities.free > 0
    assert listing(tmp_path) == []
    assert probe(str(tmp_path / "nothing")).writing != ""


AS_NOBODY = """
import contextlib, io, os, sys
from holdfast.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["doctor", sys.argv[1]])  # all that is imported, while it may be read
os.setgid(65534)
os.setuid(65534)
sys.exit(main(["doctor", "--json", sys.argv[1]]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_what_may_not_be_read():
    """A file and a folder without permission are told, and that nothing can be written; there is no traceback."""
    with tempfile.TemporaryDirectory() as folder:  # not among pytest's own, which are closed to others
        os.chmod(folder, 0o755)  # noqa: S103 - the other user is to come as far as this
        os.mkdir(f"{folder}/closed")
        for place, name in enumerate(("a.ckpt", "closed/b.ckpt", "c.ckpt")):
            save(f"{folder}/{name}", sequence=place)
        for name in ("a.ckpt", "closed"):
            os.chmod(f"{folder}/{name}", 0)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, folder], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert done.returncode == 1
        found = {(item["kind"], os.path.relpath(item["path"], folder)) for item in json.loads(done.stdout)}
        assert {("unreadable", "a.ckpt"), ("unreadable", "closed"), ("read-only", ".")} <= found


def test_a_directory_full_of_trouble(run, capsys):
    """Stock files, torn ones, loops and garbage together: each has its line and its cure, and the exit code is 1."""
    for make in (_torn, _garbage, _aside, _leftover, _signature, _notes, _backwards, _two_runs, _copy):
        make(run)
    put(run / "stock.ckpt", torch_bytes(small_state()))
    os.symlink("loop.ckpt", run / "loop.ckpt")
    os.symlink(run, run / "again")
    put(run / "\x1b[2Jcls.ckpt", b"x")
    assert main(["doctor", str(run)]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("-> ") >= 12
    assert main(["doctor", "--json", str(run)]) == 1
    values = json.loads(capsys.readouterr().out)
    assert all(set(value) == {"severity", "what", "path", "cure", "kind"} for value in values)
    order = [value["severity"] for value in values]
    assert order == sorted(order, key=["problem", "warning", "note"].index)


def test_elsewhere(run):
    """A remote directory is looked through as well; where there is nothing, that is said."""
    holdfast.copy(run, "memory://doctor-test/run")
    kinds = [finding.kind for finding in holdfast.doctor("memory://doctor-test/run", clock=FakeClock(NOW))]
    assert kinds == ["conditions"]
    late = FakeClock(NOW - 86400)
    assert {item.kind for item in holdfast.doctor("memory://doctor-test/run", clock=late)} == {"clock", "conditions"}
    with pytest.raises(CheckpointNotFoundError):
        holdfast.doctor(run / "nothing")


def test_imports_come_from_many_runs(tmp_path):
    """Of imports, the one of a higher step may well be older: no clock is blamed for it."""
    for step, day in ((1, 2), (2, 1)):
        save(tmp_path / f"{step}.ckpt", step=step, time=f"2026-01-0{day}T00:00:00+00:00")
        holdfast.import_checkpoint(tmp_path / f"{step}.ckpt", tmp_path / "run" / f"{step}.ckpt")
    assert kinds(tmp_path / "run") == []
