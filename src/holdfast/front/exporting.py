"""From a checkpoint to the weights alone, for other programs."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from holdfast.directories import is_sharded_at
from holdfast.engine.streaming import Promises, write_promised
from holdfast.errors import ConfigurationError, LoadError, SaveError, printable
from holdfast.front.dtypes import SAFETENSORS, Cast, parse_dtype
from holdfast.front.overwriting import refuse_own_source
from holdfast.front.provenance import versions
from holdfast.front.shards import SUFFIX, Shelf, write_shards
from holdfast.front.sizes import parse_size
from holdfast.front.stock import facts_of
from holdfast.front.weights import OPTIMIZERS, Weights, find_weights, is_dense, pick, read_state
from holdfast.records import Facts, Manifest
from holdfast.storage import Store, open_store, plain_path, split_path, use_options
from holdfast.telling import warn

_FORMS = ("safetensors", "torch", "checkpoint")
_TORCH_NAME = "pytorch_model.bin"  # in a directory; what Hugging Face's loader looks for
_PLAIN = (int, float, str, bool, bytes, complex, type(None))

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Exported:
    """What an export has written.

    Attributes:
        files: the paths or URLs; of several shards, the index last.
        size: the tensors' bytes in all.
        tensors: how many there are.
        tied: the names that are other names of a tensor, each with the one under which it was written.
        left_out: the names of what was not written: no tensors, or without the prefix.
        overflowed: the names of tensors with finite values that the new dtype cannot hold.

    """

    files: tuple[str, ...]
    size: int
    tensors: int
    tied: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    overflowed: tuple[str, ...] = ()


def export(  # noqa: PLR0913 - each is a choice of its own
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: str | None = None,
    max_shard_size: int | str = "5GB",
    dtype: str | torch.dtype | None = None,
    optimizer: bool = False,
    strip_prefix: str = "",
    entry: str | None = None,
    force: bool = False,
    allow: Sequence[Any] = (),
    allow_unsafe: bool = False,
    progress: Advance | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Exported:
    """Write the weights of a checkpoint for other programs. The checkpoint is verified and not touched.

    The bytes stream: memory of the largest tensor is enough, also where the checkpoint is a sharded directory, whose
    tensors are put together one by one. What plain DCP wrote has no digests to verify it by. Every file appears whole
    or not at all, and of several shards the index last. Tied tensors are written once.

    Args:
        path: a file or fsspec URL, or the directory of a sharded checkpoint; also one that holdfast did not save.
        out: for safetensors a directory, to hold ``model.safetensors`` or its shards and their index, or a name
            that ends so; for torch a file, or a directory that is there, to hold ``pytorch_model.bin``; for a
            checkpoint a file.
        to: ``"safetensors"``; ``"torch"``: one file that ``torch.load(weights_only=True)`` reads; ``"checkpoint"``:
            the whole state in one file, from which a single process resumes. None: a checkpoint if ``out`` ends in
            ``.ckpt``, else safetensors.
        max_shard_size: bytes in one safetensors file, or ``"5GB"``; a larger tensor has a file of its own.
        dtype: what to cast floating-point weights to; values that it cannot hold are warned of.
        optimizer: for torch: write ``{"state_dict": ..., "optimizer_states": ...}``, not the weights alone.
        strip_prefix: taken off the names, such as Lightning's ``"model."``; what lacks it is left out.
        entry: the key under which the state has its weights, if that is none of the usual ones.
        force: write over files that are there.
        allow: as for ``holdfast.load``.
        allow_unsafe: as for ``holdfast.load``.
        progress: called with the bytes of each piece.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        LoadError: as ``holdfast.load``; also if no weights are found.
        ConfigurationError: if an argument is wrong, a file is there already or is the source, or safetensors
            cannot hold a tensor.
        SaveError: if a file cannot be written.

    """
    use_options(storage_options, path, out)
    form = to if to is not None else "checkpoint" if os.fspath(out).endswith(".ckpt") else "safetensors"
    _check_form(form, optimizer=optimizer, changes=[dtype, strip_prefix or None, entry])
    asked = _Asked(
        os.fspath(out),
        form,
        parse_size(max_shard_size, "max_shard_size"),
        Cast(parse_dtype(dtype)),
        optimizer=optimizer,
        force=force,
        advance=progress or (lambda _: None),
    )
    source = _opened(path, allow, allow_unsafe=allow_unsafe)
    with _damage_told():
        if form == "checkpoint":
            return _whole(source, _torch_path(out), advance=asked.advance, force=force)
        return _weights_alone(source, asked, entry, strip_prefix)


@dataclass(frozen=True)
class _Asked:
    """What is to be written, and how."""

    out: str
    form: str
    limit: int  # bytes of one safetensors file
    cast: Cast
    optimizer: bool
    force: bool
    advance: Advance


@dataclass(frozen=True)
class _Source:
    """The state of a checkpoint, with stand-ins for those tensors that are read when their turn comes."""

    path: str
    state: Any
    manifest: Manifest | None
    promises: Promises


def _opened(path: str | os.PathLike[str], allow: Sequence[Any], *, allow_unsafe: bool) -> _Source:
    if is_sharded_at(path):
        from holdfast.engine import Whole  # noqa: PLC0415 - torch.distributed takes its time

        whole = Whole(path, allow, allow_unsafe=allow_unsafe)
        return _Source(os.fspath(path), whole.state, whole.manifest, whole.promises)
    return _Source(os.fspath(path), *read_state(path, allow=allow, allow_unsafe=allow_unsafe), Promises())


@contextmanager
def _damage_told() -> Iterator[None]:
    """Of an error that a source's tensor has met on its way, tell that, not only that nothing was written."""
    try:
        yield
    except SaveError as error:
        if isinstance(error.__cause__, LoadError):
            raise error.__cause__ from None
        raise


def _whole(source: _Source, path: str, *, advance: Advance, force: bool) -> Exported:
    """Write all of a state as one checkpoint, with the facts of its source."""
    refuse_own_source([path], [source.path])
    facts = replace(facts_of(source.state, source.manifest, source.path, "state"), versions=versions())
    own = replace(facts, names={}, reason=f"exported from {facts.reason or 'a checkpoint'}")
    store, name = _free(path, force=force)
    manifest = write_promised(store, name, source.state, own, source.promises, advance=advance)
    size = sum(record.size for record in manifest.records if record.name.startswith("data/"))
    return Exported((store.path(name),), size, len(manifest.tensors))


def _weights_alone(source: _Source, asked: _Asked, entry: str | None, prefix: str) -> Exported:
    """Write the weights of a state, without the prefix, in the form that is asked for."""
    place, found = find_weights(source.state, source.path, entry)
    weights, cast = pick(found, prefix), asked.cast
    facts = replace(facts_of(source.state, source.manifest, source.path, place), versions=versions())
    if asked.form == "safetensors":
        _check_holdable(weights, cast)
        shelf = _shelf(asked.out, force=asked.force)
        refuse_own_source(map(shelf.store.path, shelf.there()), [source.path])
        files, size = write_shards(shelf, weights, cast, facts, asked.limit, asked.advance, source.promises)
        dropped = list(weights.extras)
    else:
        files, size = _write_torch(source, asked, weights, facts)
        dropped = [name for name, value in weights.extras.items() if not _is_plain(value)]
    _warn_of(cast)
    left_out = (*weights.left_out, *(prefix + name for name in dropped))
    return Exported(files, size, len(weights.tensors), weights.tied, left_out, tuple(cast.overflowed))


def _check_form(to: str, *, optimizer: bool, changes: Sequence[object]) -> None:
    if to not in _FORMS:
        msg = f"`to` can be 'safetensors', 'torch' or 'checkpoint' but got {to!r}"
        raise ConfigurationError(msg)
    if to == "checkpoint" and any(change is not None for change in changes):
        msg = "a checkpoint is exported as it is: dtype, strip_prefix and entry go with to='safetensors' or to='torch'"
        raise ConfigurationError(msg)
    if optimizer and to == "safetensors":
        msg = "`optimizer`=True: a safetensors file holds weights alone; use to='torch' (--to torch)"
        raise ConfigurationError(msg)


def _check_holdable(weights: Weights, cast: Cast) -> None:
    for name, tensor in weights.tensors.items():
        problem = ""
        if not is_dense(tensor):
            kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else str(tensor.layout)
            problem = f"it is {kind.removeprefix('torch.')}"
        elif cast.result(tensor) not in SAFETENSORS:
            problem = f"it is of {tensor.dtype}"
        elif tensor.device.type == "meta":
            problem = "it has no data"
        if problem:
            msg = f"safetensors cannot hold the tensor {name}: {problem}. Use to='torch' (--to torch)"
            raise ConfigurationError(printable(msg))


def _shelf(out: str, *, force: bool) -> Shelf:
    if out.endswith(SUFFIX):
        root, name = split_path(out)
        return Shelf(open_store(root), name.removesuffix(SUFFIX), force=force)
    if os.path.isfile(plain_path(out)):
        msg = f"`out`={out!r} is a file: name a directory, or a file that ends in {SUFFIX}"
        raise ConfigurationError(msg)
    return Shelf(open_store(out), "model", force=force)


def _torch_path(out: str | os.PathLike[str]) -> str:
    text = os.fspath(out)
    if text.endswith("/") or os.path.isdir(plain_path(text)):
        return f"{text.rstrip('/')}/{_TORCH_NAME}"
    return text


def _optimizers(state: Mapping[str, Any], path: str) -> dict[str, Any]:
    name = next((name for name in OPTIMIZERS if name in state), None)
    if name is None:
        msg = f"`optimizer`=True, but {printable(path)} has no optimizer's state: none of {', '.join(OPTIMIZERS)}"
        raise ConfigurationError(msg)
    return {name: state[name]}


def _write_torch(source: _Source, asked: _Asked, weights: Weights, facts: Facts) -> tuple[tuple[str, ...], int]:
    more = _optimizers(source.state, source.path) if asked.optimizer else None
    path, cast = _torch_path(asked.out), asked.cast
    refuse_own_source([path], [source.path])
    store, name = _free(path, force=asked.force)
    promises, size = source.promises, 0
    state: OrderedDict[str, Any] = OrderedDict()
    for key in weights.order:
        tensor = weights.tensors.get(key)
        if tensor is None:
            value = state[weights.tied[key]] if key in weights.tied else weights.extras[key]
            if _is_plain(value):
                state[key] = value
        elif is_dense(tensor) and tensor.device.type != "meta":
            make = partial(_dense, cast, key, tensor, promises)
            state[key] = promises.promise(tensor.shape, cast.result(tensor), make)
            size += state[key].numel() * state[key].element_size()
        else:
            state[key] = tensor
    whole = state if more is None else {"state_dict": state, **more}
    own = replace(facts, names={}, weights_only=True, reason=f"exported from {facts.reason or 'a checkpoint'}")
    write_promised(store, name, whole, own, promises, advance=asked.advance)
    return (store.path(name),), size


def _free(path: str, *, force: bool) -> tuple[Store, str]:
    """Return the store and the name of a path under which a file may be written.

    Raises:
        ConfigurationError: if something is there.

    """
    root, name = split_path(path)
    store = open_store(root)
    if store.exists(name) and not force:
        msg = f"{store.path(name)} is there already: name another, or write over it with force=True (--force)"
        raise ConfigurationError(msg)
    return store, name


def _dense(cast: Cast, name: str, tensor: torch.Tensor, promises: Promises) -> torch.Tensor:
    return cast(name, promises.kept(tensor)).contiguous()


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return type(value) in (dict, OrderedDict) and all(map(_is_plain, [*value.keys(), *value.values()]))
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    return type(value) in _PLAIN or type(value) is torch.Tensor


def _warn_of(cast: Cast) -> None:
    if cast.overflowed:
        some = ", ".join(cast.overflowed[:5]) + (" ..." if len(cast.overflowed) > 5 else "")  # noqa: PLR2004
        warn(
            printable(
                f"{len(cast.overflowed)} tensors have finite values that {cast.dtype} cannot hold, which are infinite "
                f"or NaN in what was written: {some}. bfloat16 has the range of float32"
            )
        )
