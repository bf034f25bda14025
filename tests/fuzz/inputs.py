"""What the fuzzer feeds to the readers, and what may come of it.

Whatever the bytes, only holdfast's errors and the system's, in little time and memory. The first byte of an input
chooses what the others are, so that a fuzzer gets past the checksums: most of them are put right.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import zlib

import holdfast
from holdfast import HoldfastError
from holdfast.cli import main as command
from holdfast.format import signature
from holdfast.format.manifest import MANIFEST_NAME, ManifestError, decode, decode_facts
from holdfast.front.opening import checkpoints
from holdfast.testing.damage import regions
from tests.support.files import assemble, content, line, put, records, save, small_state, torch_bytes

FOLDER = tempfile.mkdtemp(prefix="holdfast-fuzz-")
PATH = os.path.join(FOLDER, "x.ckpt")
WHOLE = content(save(PATH, small_state(), metrics={"val_loss": 0.5}))
FOREIGN = torch_bytes(small_state())
PARTS = records(WHOLE)
TEXTS = [
    b'{"holdfast":1,"step":1,"epoch":0,"sequence":1,"time":"t","metrics":{"a":1.5},"names":{"ranked":"x.ckpt"}}',
    b'[["data.pkl",100,"00000000"],["data/0",48,"00000000"]]',
    b'[["a","float32",[3,4],"data/0"]]',
]


def manifest_of(data):
    """Three lines with true checksums, of what the input divides by zero bytes; those it lacks are good ones."""
    texts = data.split(b"\0")[:3]
    return b"".join(line(text) for text in texts + TEXTS[len(texts) :])


def spliced(base, data):
    """A real file with pieces of the input over it: two bytes of place, one of length, the piece."""
    made = bytearray(base)
    while len(data) > 3:
        at, length = int.from_bytes(data[:2], "little") % len(base), 1 + data[2] % 64
        made[at : at + length] = data[3 : 3 + length]
        data = data[3 + length :]
    return bytes(made)


def made_of(data):
    """The file that an input stands for."""
    kind, rest = data[0] % 6, data[1:]
    if kind == 0:
        return rest
    if kind == 1:
        return assemble([*PARTS, (MANIFEST_NAME, manifest_of(rest))])
    if kind == 2:  # a pickle of the fuzzer's own, in a file that is whole
        parts = [(name, rest if name == "data.pkl" else part) for name, part in PARTS]
        own = [[name, len(part), f"{zlib.crc32(part):08x}"] for name, part in parts]
        return assemble([*parts, (MANIFEST_NAME, line(TEXTS[0]) + line(own) + line([]))])
    if kind == 3:
        return spliced(WHOLE, rest)
    if kind == 4:
        return spliced(FOREIGN, rest)
    return WHOLE[: int.from_bytes(rest[:2], "little")] + rest[2:] + WHOLE[-98:]


def one(data):
    """Read one input at every door."""
    if not data:
        return
    for read in (decode, decode_facts):
        with contextlib.suppress(ManifestError):
            read(manifest_of(data[1:]) if data[0] % 2 else data[1:])
    with contextlib.suppress(signature.SignatureFormError):
        signature.decode(data[1:])
    made = made_of(data)
    assert sum(region.size for region in regions(made)) == len(made)
    put(PATH, made)
    for read in (holdfast.verify, holdfast.load, _mapped, lambda path: checkpoints(os.path.dirname(path))):
        with contextlib.suppress(HoldfastError, OSError):
            read(PATH)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for arguments in (["ls", FOLDER], ["ls", "--json", FOLDER], ["show", PATH], ["verify", FOLDER]):
            assert command(arguments) in (0, 1)


def _mapped(path):
    return holdfast.load(path, mmap=True)


def seeds():
    """An input of each kind to begin with."""
    pickle = dict(PARTS)["data.pkl"]
    rests = (WHOLE, b"\0".join(TEXTS), pickle, b"\1\0\4abcde", b"\1\0\4abcde", b"\0\4PK\5\6")
    return [bytes([kind]) + rest for kind, rest in enumerate(rests)]
