"""A pickle of DCP's metadata, obeyed without trust: its own classes, built from plain values, and nothing besides.

C's unpickler asks which classes may be named, and no more: a pickle could set attributes of these very classes (all
that are saved later would have them), take all memory by a number, or make a key whose hash takes for ever. Here each
opcode that does more than hold a value looks at what it is given first.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties

from holdfast.errors import UnsafeCheckpointError, printable

_LONGEST_PATH = 2**16  # characters of where a checkpoint was saved

_CLASSES = {
    ("torch.distributed.checkpoint.metadata", name): getattr(dcp, name)
    for name in (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
    )
} | {("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _StorageInfo}
_DTYPES = {
    ("torch", str(value).partition(".")[2]): value for value in vars(torch).values() if type(value) is torch.dtype
}
_PATHS = frozenset({"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"})


def _joined(*parts: str) -> str:
    """Make of a path a text: where it was saved says nothing of where it is."""
    if sum(map(len, parts)) > _LONGEST_PATH:
        msg = "a path of so many characters"
        raise ValueError(msg)
    return "/".join(parts)


def _layout(name: str) -> torch.layout:
    if name != "torch.strided":
        msg = f"a tensor of the layout {name!r:.80}"
        raise ValueError(msg)
    return torch.strided


_CALLED = {
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): _layout,
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"): dcp._MEM_FORMAT_ENCODING,  # noqa: SLF001 - DCP pickles it
} | {(module, name): _joined for module in ("pathlib", "pathlib._local") for name in _PATHS}
_KNOWN = _CLASSES | _DTYPES | _CALLED
_BUILT = frozenset(_CLASSES.values())
_CALLABLE = frozenset(map(id, _CALLED.values()))

# What DCP's pickles have, and what protocols 2 to 5 have besides that only holds a value.
_PLAIN = (
    pickle.MARK + pickle.STOP + pickle.POP + pickle.POP_MARK + pickle.PROTO + pickle.FRAME
    + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE
    + pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.LONG1 + pickle.BINFLOAT
    + pickle.BINUNICODE + pickle.SHORT_BINUNICODE + pickle.BINUNICODE8
    + pickle.BINBYTES + pickle.SHORT_BINBYTES + pickle.BINBYTES8
    + pickle.EMPTY_LIST + pickle.EMPTY_DICT + pickle.EMPTY_TUPLE
    + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3
    + pickle.BINGET + pickle.LONG_BINGET + pickle.BINPUT + pickle.LONG_BINPUT + pickle.MEMOIZE
    + pickle.GLOBAL + pickle.STACK_GLOBAL
)  # fmt: skip


class Unpickler(pickle._Unpickler):  # noqa: SLF001 - the one of Python's two whose opcodes can be looked at
    """Builds what DCP's metadata consist of.

    Raises:
        UnsafeCheckpointError: if the pickle names anything else.
        Exception: whatever else the bytes of a stranger lead to.

    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names."""
        found = _KNOWN.get((module, name))
        if found is None:
            needs = f"{module}.{name}"
            msg = f"it names {printable(needs)[:200]}"
            raise UnsafeCheckpointError(msg, (needs,))
        return found

    def _append(self) -> None:
        value = self.stack.pop()
        _exact(self.stack[-1], list).append(value)

    def _appends(self) -> None:
        values = self.pop_mark()
        _exact(self.stack[-1], list).extend(values)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _exact(self.stack[-1], dict)[_key(key)] = value

    def _setitems(self) -> None:
        values = self.pop_mark()
        _exact(self.stack[-1], dict).update(zip(map(_key, values[::2]), values[1::2], strict=True))

    def _newobj(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if arguments != () or type(kind) is not type or kind not in _BUILT:
            msg = "it makes an object of what is no class of DCP's"
            raise ValueError(msg)
        self.stack.append(object.__new__(kind))

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if id(function) not in _CALLABLE:
            msg = "it calls what is not called here"
            raise ValueError(msg)
        self.stack[-1] = function(*_exact(arguments, tuple))

    def _build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is TensorProperties:
            made.__setstate__(state)  # type: ignore[no-untyped-call]
        elif type(made) in _BUILT:
            vars(made).update(_exact(state, dict))
        else:
            msg = "it changes what it has not made"
            raise ValueError(msg)

    def _refused(self) -> None:
        msg = "it has an opcode that is not obeyed here"
        raise ValueError(msg)

    dispatch: dict[int, Callable[[Any], None]] = (  # type: ignore[misc] # as the base has it, but each looked at
        dict.fromkeys(range(256), _refused)
        | {code: pickle._Unpickler.dispatch[code] for code in _PLAIN}  # noqa: SLF001 - as above
        | {
            pickle.APPEND[0]: _append,
            pickle.APPENDS[0]: _appends,
            pickle.SETITEM[0]: _setitem,
            pickle.SETITEMS[0]: _setitems,
            pickle.NEWOBJ[0]: _newobj,
            pickle.REDUCE[0]: _reduce,
            pickle.BUILD[0]: _build,
        }
    )


def _exact(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        msg = f"a {type(value).__name__} stands where a {kind.__name__} should"
        raise ValueError(msg)
    return value


def _key(value: Any) -> Any:
    """See that a key's hash is soon known: that of tuples within tuples may take for ever."""
    if type(value) is MetadataIndex:
        _exact(value.fqn, str)
        if value.offset is not None:
            _exact(value.offset, torch.Size)
    elif type(value) not in (str, int):
        msg = f"a {type(value).__name__} stands where a key should"
        raise ValueError(msg)
    return value
