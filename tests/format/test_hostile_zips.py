"""Files that somebody made to harm: the zip, its records and the JSON in it."""

from __future__ import annotations

import io
import resource
import struct
import zipfile

import pytest

import holdfast
from holdfast import DamagedCheckpointError
from holdfast.cli import main
from holdfast.format.manifest import MANIFEST_NAME
from holdfast.front.opening import checkpoints
from tests.format.strangers import GOOD, listed, own_records
from tests.support.files import assemble, line, listing, put, records, small_state, torch_bytes
from tests.support.files import with_manifest as written


def zipped(entries, compression=zipfile.ZIP_STORED):
    """A zip of named bytes as Python writes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return out.getvalue()


def patched(data, place, value):
    """The zip with a number in its first central entry, ``place`` bytes from its beginning, replaced."""
    at = data.index(b"PK\x01\x02") + place
    return data[:at] + value + data[at + len(value) :]


def overlapping():
    """A directory in which two names share one record."""
    data = zipped([("a/data.pkl", b"x" * 5000), ("a/data/0", b"x" * 5000)])
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    return data[: second + 42] + bytes(4) + data[second + 46 :]


SMALL = [("a/data.pkl", b"x" * 100), ("a/data/0", b"y" * 100)]
ZIPS = {
    "overlapping": (overlapping, "data"),
    "two of a name": (lambda: zipped([SMALL[0], SMALL[0]]), "two records of this name"),
    "an absolute name": (lambda: zipped([("/etc/passwd", b"x")]), "out of the archive"),
    "a name that climbs": (lambda: zipped([("a/../../b", b"x")]), "out of the archive"),
    "a bomb": (lambda: zipped([("a/data.pkl", bytes(1 << 27))], zipfile.ZIP_DEFLATED), "unpack to"),
    "many bombs": (lambda: zipped([(f"a/{i}", bytes(1 << 24)) for i in range(5)], zipfile.ZIP_DEFLATED), "unpack to"),
    "lzma": (lambda: zipped(SMALL, zipfile.ZIP_LZMA), "does not use"),
    "bzip2": (lambda: zipped(SMALL, zipfile.ZIP_BZIP2), "does not use"),
    "an unknown method": (lambda: patched(zipped(SMALL), 10, b"\x5d\0"), "does not use"),
    "encrypted": (lambda: patched(zipped(SMALL), 8, b"\1\0"), ""),
    "a huge packed size": (lambda: patched(zipped(SMALL), 20, b"\xf0\xff\xff\x7f"), "overlaps"),
    "a huge size": (lambda: patched(zipped(SMALL), 24, b"\xf0\xff\xff\x7f"), "unpack to"),
    "an offset outside": (lambda: patched(zipped(SMALL), 42, b"\xf0\xff\xff\x7f"), ""),
    "an offset into another": (lambda: patched(zipped(SMALL), 42, b"\x20\0\0\0"), ""),
    "a zip64 lie": (lambda: patched(zipped(SMALL), 20, b"\xff" * 8), ""),
    "a directory before the file": (lambda: zipped(SMALL)[:-6] + b"\xf0\xff\xff\xff\0\0", ""),
    "a directory of four gigabytes": (lambda: zipped(SMALL)[:-10] + b"\xf0\xff\xff\xff" + zipped(SMALL)[-6:], ""),
}


@pytest.mark.parametrize("name", ZIPS)
def test_a_hostile_zip_is_refused(tmp_path, name, capsys):
    """Each trick of a zip that is not ours is damage, found before anything is unpacked beyond the file's own size."""
    make, match = ZIPS[name]
    path = put(tmp_path / "x.ckpt", make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for use in (holdfast.verify, holdfast.load):
        with pytest.raises(DamagedCheckpointError, match=match):
            use(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
    assert main(["verify", path]) == 1
    assert main(["ls", str(tmp_path)]) in (0, 1)
    assert listing(tmp_path) == ["x.ckpt"]


@pytest.mark.parametrize("name", ["../../escaped", "/etc/escaped", "data/../x"])
def test_a_record_of_ours_with_a_hostile_name(tmp_path, name):
    """A record whose name climbs is at most another name in memory: nothing is ever unpacked to a file."""
    parts = [*records(torch_bytes(small_state())), (name, b"x" * 10)]
    path = put(tmp_path / "x.ckpt", assemble([*parts, (MANIFEST_NAME, line(GOOD) + listed(parts) + line([]))]))
    assert holdfast.verify(path) is not None
    assert holdfast.load(path)["global_step"] == 2
    assert listing(tmp_path) == ["x.ckpt"]


@pytest.mark.parametrize("claim", ["directory", "manifest"])
def test_a_file_of_holes(tmp_path, claim):
    """A file of a terabyte that takes no room, and claims that all of it is its directory or manifest, is refused."""
    size = 1 << 40
    data = assemble([("data.pkl", b"x"), (MANIFEST_NAME, b"y")])
    start = int.from_bytes(data[-50:-42], "little")
    if claim == "directory":
        end = bytearray(data[-98:])
        end[40:48], end[48:56] = (size - 98).to_bytes(8, "little"), bytes(8)
    else:
        end = bytearray(data[start:])
        at = end.rindex(b"PK\x01\x02")
        extra = struct.pack("<HHQQ", 1, 16, size - 10_000, size - 10_000)
        end[at + 20 : at + 28], end[at + 30 : at + 32] = b"\xff" * 8, len(extra).to_bytes(2, "little")
        end[-98:-98] = extra
        length, place = len(end) - 98, size - len(end)
        end[-58:-42] = length.to_bytes(8, "little") + place.to_bytes(8, "little")
    path = tmp_path / "x.ckpt"
    with open(path, "wb") as file:
        file.truncate(size - len(end))
        file.seek(size - len(end))
        file.write(bytes(end))
    for use in (holdfast.verify, holdfast.load):
        with pytest.raises(DamagedCheckpointError, match="claims"):
            use(path)
    assert "claims" in checkpoints(tmp_path)[0].problem


HEADS = {
    "a key twice": b'{"holdfast":1,"step":1,"epoch":0,"sequence":1,"step":2}',
    "a metric twice": b'{"holdfast":1,"step":1,"epoch":0,"sequence":1,"metrics":{"a":1,"a":2}}',
    "NaN": b'{"holdfast":1,"step":1,"epoch":0,"sequence":1,"metrics":{"a":NaN}}',
    "infinity": b'{"holdfast":1,"step":1,"epoch":0,"sequence":1,"metrics":{"a":-Infinity}}',
    "a step of 1e400": b'{"holdfast":1,"step":1e400,"epoch":0,"sequence":1}',
    "a step of 4000 digits": b'{"holdfast":1,"step":' + b"9" * 4000 + b',"epoch":0,"sequence":1}',
    "a step of 100000 digits": b'{"holdfast":1,"step":' + b"9" * 100_000 + b',"epoch":0,"sequence":1}',
    "a sequence without end": b'{"holdfast":1,"step":1,"epoch":0,"sequence":' + b"9" * 30 + b"}",
    "deep in a policy": b'{"holdfast":1,"step":1,"epoch":0,"sequence":1,"policy":{"x":'
    + b"[" * 900
    + b"]" * 900
    + b"}}",
    "deep": b"[" * 200_000,
    "UTF-16": '{"holdfast":1,"step":1,"epoch":0,"sequence":1}'.encode("utf-16"),
    "no text": b'{"holdfast":1,"reason":"\xff"}',
}


@pytest.mark.parametrize("name", HEADS)
def test_hostile_json_is_refused(tmp_path, name, capsys):
    """JSON that could be read in two ways, or costs what it should not, is a damaged manifest, in every command."""
    path = written(tmp_path / "x.ckpt", line(HEADS[name]) + own_records() + line([]))
    for use in (holdfast.verify, holdfast.load):
        with pytest.raises(DamagedCheckpointError) as caught:
            use(path)
        assert caught.value.record == "manifest"
    for arguments in (["ls", str(tmp_path)], ["ls", "--json", str(tmp_path)], ["show", path], ["verify", path]):
        assert main(arguments) == 1
