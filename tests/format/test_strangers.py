"""A checkpoint from a stranger: no code, no hang, no allocation, nothing that a terminal would obey."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys

import pytest
import torch

import holdfast
from holdfast import Checkpointer, ConfigurationError, DamagedCheckpointError, HoldfastError, LoadError
from holdfast.cli import main
from holdfast.front.saving import remove_path, sweep
from tests.format.strangers import GOOD, listed, own_records, with_pickle
from tests.support.files import assemble, content, line, listing, put, records, save, small_state, torch_bytes
from tests.support.files import with_manifest as written

EVIL = "\x1b[2J\x1b]0;owned\x07\r\n\u202egnp\u200b\x9b31m<script>\ud800"
SEEN = "\\x1b[2J"


class Run:
    """Pickles to a call of ``os.system``."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def call(name, argument=b""):
    """The opcodes that call a global on a string."""
    return b"c" + name + b"\n(" + b"X" + struct.pack("<I", len(argument)) + argument + b"tR."


def storage(key=b"0", size=4, kind=b"torch\nFloatStorage"):
    """A persistent id as torch writes it, of a storage with this many elements."""
    number = b"\x8a\x09" + size.to_bytes(9, "little", signed=True)
    names = [b"X" + struct.pack("<I", len(text)) + text for text in (b"storage", key, b"cpu")]
    return b"\x80\x02(" + names[0] + b"c" + kind + b"\n" + names[1] + names[2] + number + b"tQ."


PICKLES = {
    "nothing": b"",
    "an end too early": b"\x80\x02}q",
    "no end": b"\x80\x02}",
    "a global": b"\x80\x02cos\nsystem\n.",
    "a call": b"\x80\x02" + call(b"os\nsystem", b"touch canary"),
    "a call by attribute": b"\x80\x02" + call(b"builtins\neval", b"open('canary','w')"),
    "exec": b"\x80\x02" + call(b"builtins\nexec", b"open('canary','w')"),
    "a stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R.",
    "an instance": b"(S'touch canary'\nios\nsystem\n.",
    "an object": b"(cos\nsystem\nS'touch canary'\no.",
    "a new object": b"\x80\x02cos\nsystem\nX\x0c\0\0\0touch canary\x85\x81.",
    "an extension": b"\x80\x02\x82\x01.",
    "torch's own loader": b"\x80\x02" + call(b"torch\nload", b"inner.pt"),
    "torch's library loader": b"\x80\x02" + call(b"torch.ops\nload_library", b"inner.so"),
    "getattr": b"\x80\x02cbuiltins\ngetattr\n(cos\nX\x06\0\0\0systemtR.",
    "a memo that is not there": b"\x80\x02j\xff\xff\xff\x7f.",
    "a string of two gigabytes": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "bytes of four thousand million": b"\x80\x03B\xff\xff\xff\xffabc.",
    "bytes of 2**60": b"\x80\x05\x8e" + (2**60).to_bytes(8, "little") + b"abc.",
    "a number of two gigabytes": b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
    "a frame of 2**60": b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"N.",
    "deep lists": b"\x80\x02" + b"(" * 20_000 + b"l" * 20_000 + b".",
    "an id that is a number": b"\x80\x02K\x01Q.",
    "an id of one word": b"\x80\x02X\x07\0\0\0storage\x85Q.",
    "a storage of 2**60": storage(size=2**60),
    "a storage of 2**69": storage(size=2**69),
    "a storage of less than nothing": storage(size=-4),
    "a storage that is not there": storage(key=b"77"),
    "a storage outside": storage(key=b"../../etc/passwd"),
    "a storage of no such kind": storage(kind=b"os\nsystem"),
}

# Of a mapped file torch takes what there is, instead of refusing; it goes nowhere beyond the file.
CUT_OFF = ("a storage of 2**60", "a storage of 2**69", "a storage of less than nothing")


@pytest.mark.parametrize("name", ["]r\xff\xff\xff\xff.", "\x80\xff]."], ids=["a memo of 2**32", "a protocol of 255"])
def test_a_claim_that_costs_nothing(tmp_path, name):
    """A place in the memo that would take gigabytes in an array, and a protocol that is none, cost nothing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert holdfast.load(with_pickle(tmp_path / "x.ckpt", name.encode("latin-1"))) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "torch's"])
@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle_is_refused(tmp_path, name, foreign):
    """Each trick of a pickle in a file that is whole is a ``LoadError``: nothing runs, and nothing is allocated."""
    path = with_pickle(tmp_path / "x.ckpt", PICKLES[name], foreign=foreign)
    torch.save({"x": Run(tmp_path / "canary")}, tmp_path / "inner.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for options in ({}, {"verify": False}):
        with pytest.raises(LoadError):
            holdfast.load(path, **options)
    if name not in CUT_OFF:
        with pytest.raises(LoadError):
            holdfast.load(path, mmap=True)
    else:
        assert holdfast.load(path, mmap=True).nbytes() <= os.path.getsize(path)
    with pytest.raises(LoadError):
        Checkpointer(tmp_path / "run", model=torch.nn.Linear(1, 1)).resume(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
    assert "canary" not in listing(tmp_path)


def test_a_pickle_in_a_pickle_stays_bytes(tmp_path):
    """A pickle as a string or an array of bytes inside the state is a value, and nobody unpickles it."""
    inner = pickle.dumps(Run(tmp_path / "canary"))
    path = save(tmp_path / "x.ckpt", {"inner": inner, "array": bytearray(inner), "tensor": torch.tensor(list(inner))})
    assert holdfast.load(path)["inner"] == inner
    assert "canary" not in listing(tmp_path)


def test_a_state_that_refers_to_itself_many_times_over(tmp_path):
    """Sixty lists, each twice in the next, are sixty lists: a resume does not walk 2**60 ways through them."""
    laughs = b"\x80\x02]q\0" + b"".join(
        b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60)
    )
    path = with_pickle(tmp_path / "x.ckpt", laughs + b".")
    assert isinstance(holdfast.load(path), list)
    with pytest.raises(LoadError):
        Checkpointer(tmp_path / "run", model=torch.nn.Linear(1, 1)).resume(path)


def test_only_the_word_opens_the_door(tmp_path):
    """``allow_unsafe=True`` runs the file's code; nothing else does, and a contradiction is an error."""
    canary = tmp_path / "canary"
    path = save(tmp_path / "x.ckpt", {"x": Run(canary)})
    for words in ({}, {"weights_only": None}, {"weights_only": True}, {"allow_unsafe": False}, {"allow": [Run]}):
        with pytest.raises(LoadError):
            holdfast.load(path, **words)
    with pytest.raises(ConfigurationError, match="contradicts"):
        holdfast.load(path, allow_unsafe=True, weights_only=True)
    assert not canary.exists()
    holdfast.load(path, allow_unsafe=True)
    assert canary.exists()


def test_yaml_beside_checkpoints_is_not_read(tmp_path):
    """A ``best_k_models.yaml`` with a call in it plays no part in listing, resuming and verifying."""
    save(tmp_path / "x.ckpt", {"model": {}})
    put(tmp_path / "best_k_models.yaml", b"!!python/object/apply:os.system ['touch canary']\n")
    assert main(["ls", str(tmp_path)]) == 0
    assert holdfast.newest(tmp_path) is not None
    assert "canary" not in listing(tmp_path)


def test_a_number_that_is_infinite_to_a_float(tmp_path):
    """A metric of 1e400 is infinite, as its like is in Python, and stays a float."""
    path = written(
        tmp_path / "x.ckpt",
        line(json.dumps({**GOOD, "metrics": {"a": 1}}).replace("1}", "1e400}").encode())
        + b""
        + own_records()
        + line([]),
    )
    assert holdfast.verify(path).facts.metrics == {"a": float("inf")}


def _harmless(text):
    assert all(char.isprintable() or char == "\n" for char in text), ascii(text)


def test_a_terminal_obeys_nothing(tmp_path, capsys):
    """Escapes, control characters, reversed writing, half surrogates, wherever a file has text, are shown as such."""
    facts = dict.fromkeys(("reason", "run", "owner", "kind", "time", "git_commit"), EVIL)
    facts |= {"metrics": {EVIL: 1.0}, "names": {"ranked": EVIL, EVIL: EVIL}, "versions": {EVIL: EVIL}}
    facts |= {"policy": {"monitor": EVIL}, "resumed_from": {"path": EVIL, "step": 1}}
    own = listed([(EVIL.replace("\ud800", ""), b""), *records(torch_bytes(small_state()))])
    written(tmp_path / "facts.ckpt", line({**GOOD, **facts}) + own + line([[EVIL, EVIL, [1], EVIL]]))
    os.rename(tmp_path / "facts.ckpt", tmp_path / "a\x1b[31m\nb\udcff.ckpt")
    path = str(tmp_path / "a\x1b[31m\nb\udcff.ckpt")
    for arguments in (["ls", str(tmp_path)], ["show", path], ["verify", path], ["verify", str(tmp_path)]):
        main(arguments)
        captured = capsys.readouterr()
        _harmless(captured.out + captured.err)
        assert "\\x1b[31m\\nb" in captured.out + captured.err or SEEN in captured.out
    main(["ls", "--json", str(tmp_path)])
    assert json.loads(capsys.readouterr().out)[0]["facts"]["reason"] == EVIL
    main(["show", str(tmp_path / "none\x1b[2J")])
    _harmless(capsys.readouterr().err)
    with pytest.raises(DamagedCheckpointError) as caught:
        holdfast.verify(path)
    _harmless(str(caught.value))


@pytest.mark.filterwarnings("ignore:.*have no manifest")
def test_a_warning_and_an_error_obey_nothing_either(tmp_path):
    """A damaged file of a hostile name is warned of, and a class of a hostile name refused, in harmless letters."""
    put(tmp_path / "a\x1b[2J.ckpt", content(save(tmp_path / "x.ckpt"))[:-1])
    with pytest.warns(UserWarning, match="passed over") as warned:
        holdfast.newest(tmp_path)
    _harmless("".join(str(item.message) for item in warned))
    name = "syst\x1b[2Jem"
    data = b"\x80\x04\x8c\x02os\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(LoadError) as caught:
        holdfast.load(with_pickle(tmp_path / "y.ckpt", data))
    _harmless(str(caught.value))


def test_a_name_that_the_terminal_has_no_letters_for(tmp_path):
    """Where the output has only ASCII, or a name is no text at all, the command shows escapes and does not fail."""
    os.makedirs(tmp_path / "run")
    save(tmp_path / "run" / "größe.ckpt", reason="é")
    os.rename(tmp_path / "run" / "größe.ckpt", os.fsencode(tmp_path / "run") + b"/\xff\xc3\xa9.ckpt")
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "ls", str(tmp_path / "run")],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\udcff\\xe9.ckpt" in done.stdout


def test_pipes_devices_and_loops_are_no_checkpoints(tmp_path):
    """Pipes, devices and links in circles neither end nor stop a listing or a search, and are no checkpoints."""
    folder = tmp_path / "run"
    save(folder / "whole.ckpt", {"model": torch.nn.Linear(1, 1).state_dict()})
    os.mkfifo(folder / "pipe.ckpt")
    os.mkfifo(folder / ".holdfast-0123456789abcdef.tmp")
    for name, target in (("zero", "/dev/zero"), ("loop", "loop.ckpt"), ("gone", "nowhere"), ("dir", "/etc")):
        os.symlink(target, folder / f"{name}.ckpt")
    os.symlink("..", folder / "up")
    os.symlink(put(tmp_path / "letter.txt", b"no checkpoint at all\n"), folder / "out.ckpt")
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(60)  # whatever waits is ended by the error
    try:
        assert sweep(str(folder)) == []
        assert (main(["ls", str(folder)]), main(["verify", str(folder)])) == (1, 1)  # both name them
        assert holdfast.newest(folder) == str(folder / "whole.ckpt")
        for name in ("pipe", "zero", "loop", "gone"):
            path = str(folder / f"{name}.ckpt")
            assert main(["show", path]) == main(["verify", path]) == (1 if name == "loop" else 3)
            for use in (holdfast.load, holdfast.verify):
                with pytest.raises(OSError, match=name):
                    use(path)
    finally:
        signal.alarm(0)


def _too_long(*_):
    raise TimeoutError


def test_links_are_read_and_never_followed_to_remove(tmp_path):
    """Of a link to a file, or to a directory with files, only the link is removed."""
    (tmp_path / "outside").mkdir()
    kept = save(tmp_path / "outside" / "kept.ckpt")
    (tmp_path / "run").mkdir()
    os.symlink(kept, tmp_path / "run" / "file.ckpt")
    os.symlink(tmp_path / "outside", tmp_path / "run" / "folder.ckpt")
    assert holdfast.load(tmp_path / "run" / "file.ckpt")["global_step"] == 2
    for name in ("file.ckpt", "folder.ckpt"):
        remove_path(tmp_path / "run" / name)
    assert listing(tmp_path / "run") == []
    assert listing(tmp_path / "outside") == ["kept.ckpt"]


def test_torchscript_and_tar_are_refused_by_default(tmp_path):
    """TorchScript, and torch's tar of before 2017, hold programs: the safe loader takes neither."""
    import tarfile

    parts = [("constants.pkl", b"\x80\x02)."), *records(torch_bytes(small_state()))]
    put(tmp_path / "script.ckpt", assemble(parts))
    with tarfile.open(tmp_path / "tar.ckpt", "w") as archive:
        info = tarfile.TarInfo("pickle")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"N."))
    for name in ("script", "tar"):
        with pytest.raises(HoldfastError):
            holdfast.load(tmp_path / f"{name}.ckpt")
