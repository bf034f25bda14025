"""A nested state as flat names and values, the way ``torch.distributed.checkpoint`` flattens it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

KEYS_FILE = "holdfast.keys"

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Leaf:
    """A value of a nested state, and where it is kept.

    Attributes:
        name: its keys and places, joined by dots.
        path: the same one by one, as DCP notes them: keys as text, places in lists as numbers.
        value: the value.
        holder: the container that it is in.
        key: its own key there, of whatever type.

    """

    name: str
    path: Path
    value: Any
    holder: Any
    key: Any


@dataclass
class Keys:
    """What DCP's flat names lose of a nested state: it knows texts as keys alone, and no empty mappings.

    Attributes:
        numbered: the paths of the mappings whose keys are whole numbers.
        empty: the paths of the mappings that have nothing in them.

    """

    numbered: set[Path] = field(default_factory=set)
    empty: set[Path] = field(default_factory=set)

    def add(self, other: Keys) -> None:
        """Take over another rank's."""
        self.numbered |= other.numbered
        self.empty |= other.empty

    def encode(self) -> bytes:
        """Return the bytes of the file; nothing if there is nothing to say."""
        if not self.numbered and not self.empty:
            return b""
        rows = {key: sorted(map(list, paths), key=str) for key, paths in vars(self).items()}
        return json.dumps(rows).encode()

    @classmethod
    def decode(cls, data: bytes) -> Keys:
        """Read the file.

        Raises:
            ValueError: if it does not have the form of one.

        """
        rows = json.loads(data)
        try:
            paths = {key: {tuple(path) for path in rows[key]} for key in ("numbered", "empty")}
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from error
        if any(type(part) not in (str, int) for known in paths.values() for path in known for part in path):
            msg = "a path in it has other parts than keys and places"
            raise ValueError(msg)
        return cls(**paths)


def leaves(state: Mapping[Any, Any], keys: Keys | None = None) -> Iterator[Leaf]:
    """Yield the values of a state: into mappings, and into lists that hold mappings or tensors.

    ``keys`` takes what their names do not say.
    """
    yield from _below((), state, None, None, keys or Keys())


def unflatten(
    paths: Mapping[str, Path], values: Mapping[str, Any], keys: Keys
) -> tuple[dict[Any, Any], dict[str, Leaf]]:
    """Return the nested state that flat names come from, with their values, and where each is kept.

    Raises:
        ValueError: if there is no such state.

    """
    state: dict[Any, Any] = {}
    found: dict[str, Leaf] = {}
    room = sum(map(len, paths.values())) + sum(map(len, keys.empty))  # places in lists: each leads to something
    for name, path in paths.items():
        if name != ".".join(map(str, path)):
            msg = f"{name!r:.120} is said to be at {path!r:.120}"
            raise ValueError(msg)
        holder, key, room = _way(state, path, keys, room)
        if key in holder if type(holder) is dict else holder[key] is not None:
            msg = f"{name!r:.120} is a value and has others in it"
            raise ValueError(msg)
        holder[key] = values[name]
        found[name] = Leaf(name, path, values[name], holder, key)
    for path in filter(None, keys.empty):
        holder, key, room = _way(state, path, keys, room)
        if isinstance(holder, list):
            holder[key] = {} if holder[key] is None else holder[key]
        else:
            holder.setdefault(key, {})  # it may be empty on one rank alone
    return state, found


def _way(state: dict[Any, Any], path: Path, keys: Keys, room: int) -> tuple[Any, Any, int]:
    """Return the container on a path, made where there is none, the last key, and what is left of the room."""
    holder: Any = state
    for depth, part in enumerate(path):
        key: Any = int(part) if path[:depth] in keys.numbered else part
        if type(holder) is list:
            more = key + 1 - len(holder) if type(key) is int and key >= 0 else room + 1
            if more > room:
                msg = f"{path!r:.120} leads to no place in a list"
                raise ValueError(msg)
            holder.extend([None] * more)
            room -= max(more, 0)
        elif type(holder) is not dict:
            msg = f"{path!r:.120} leads through a value"
            raise ValueError(msg)
        if depth + 1 == len(path):
            return holder, key, room
        following: Any = [] if type(path[depth + 1]) is int else {}
        if type(holder) is list:
            holder[key] = following if holder[key] is None else holder[key]
            holder = holder[key]
        else:
            holder = holder.setdefault(key, following)
    msg = "there is no path without a part"
    raise ValueError(msg)


def _below(path: Path, value: Any, holder: Any, key: Any, keys: Keys) -> Iterator[Leaf]:
    if isinstance(value, Mapping):
        if not value:
            keys.empty.add(path)
        elif all(type(inner) is int for inner in value):
            keys.numbered.add(path)
        for inner, item in value.items():
            yield from _below((*path, str(inner)), item, value, inner, keys)
    elif isinstance(value, list) and _is_nested(value):
        for place, item in enumerate(value):
            yield from _below((*path, place), item, value, place, keys)
    else:
        yield Leaf(".".join(map(str, path)), path, value, holder, key)


def _is_nested(values: list[Any]) -> bool:
    return any(
        isinstance(item, (Mapping, torch.Tensor)) or (isinstance(item, list) and _is_nested(item)) for item in values
    )
