"""File names from templates such as ``{epoch}-{val_loss:.2f}``.

A template is literal text with groups ``{key}`` or ``{key:spec}``. The key is everything up to the
first colon, so it may hold dots, slashes and brackets; the spec is Python's format specification.
``{{`` and ``}}`` stand for braces. A key that was not logged counts as 0.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

from holdfast.errors import ConfigurationError

_LONGEST_NAME = 255  # bytes, the limit of the common filesystems
_LONGEST_VALUE = 100  # characters


@dataclass(frozen=True)
class NameStyle:
    """The joints of a name: the class attributes of ``ModelCheckpoint``."""

    join: str = "-"
    equals: str = "="
    last: str = "last"
    extension: str = ".ckpt"
    starting_version: int = 1


@dataclass(frozen=True)
class Group:
    """One ``{key:spec}`` of a template."""

    key: str
    spec: str


@lru_cache(maxsize=256)
def parse_template(template: str) -> tuple[str | Group, ...]:
    """Split a template into literal text and groups.

    Raises:
        ConfigurationError: for an unbalanced brace, an empty key or a ``!r`` conversion.

    """
    parts: list[str | Group] = []
    rest = template
    while rest:
        text, brace, after = _until_brace(rest)
        if text:
            parts.append(text)
        if not brace:
            break
        inside, closed, rest = after.partition("}")
        if brace == "}" or not closed:
            msg = f"the template {template!r} has a brace without its partner: write {{{{ or }}}} for a brace"
            raise ConfigurationError(msg)
        parts.append(_group(inside, template))
    return tuple(parts)


def _until_brace(rest: str) -> tuple[str, str, str]:
    """Return literal text, the brace that ends it, and what follows; doubled braces are text."""
    text = ""
    while True:
        match = re.search(r"[{}]", rest)
        if match is None:
            return text + rest, "", ""
        at = match.start()
        brace = rest[at]
        if rest[at + 1 : at + 2] != brace:
            return text + rest[:at], brace, rest[at + 1 :]
        text, rest = text + rest[: at + 1], rest[at + 2 :]


def _group(inside: str, template: str) -> Group:
    key, _, spec = inside.partition(":")
    if not key or "{" in inside:
        msg = f"the template {template!r} has a group without the name of a metric: {{{inside}}}"
        raise ConfigurationError(msg)
    if re.search(r"![rsa]$", key):
        msg = f"the template {template!r} asks for a conversion, {key[-2:]!r}: use a format such as :.2f"
        raise ConfigurationError(msg)
    return Group(key, spec)


def render(template: str, metrics: Mapping[str, float | str], *, auto_insert: bool, equals: str) -> str:
    """Fill in a template: ``{val_loss:.2f}`` becomes ``val_loss=0.12`` (``0.12`` without insertion).

    Never fails for a number: where a float meets an integer's format, an integral one is shown as
    an integer and any other in its shortest form, so that training does not stop for a name.
    """
    return "".join(
        part
        if isinstance(part, str)
        else (part.key + equals if auto_insert else "") + _show(metrics.get(part.key, 0), part.spec)
        for part in parse_template(template)
    )


def _show(value: float | str, spec: str) -> str:
    if isinstance(value, str):
        return value[:_LONGEST_VALUE]
    text = _format(value, spec)
    # 1e300 has 301 digits in the format :f, and no file's name has room for them.
    return text if len(text) <= _LONGEST_VALUE else format(value, "g")


def _format(value: float, spec: str) -> str:
    """Format a number as an integer or a float, whichever the format takes; else in its shortest form."""
    number = int(value) if isinstance(value, float) and value.is_integer() else float(value)
    for shown, form in ((value, spec), (number, spec), (float(value), spec[:-1] + "g")):
        with contextlib.suppress(ValueError, OverflowError):
            return format(shown, form)
    return format(value, "g")


def check_template(template: str | None, style: NameStyle, *, auto_insert: bool, argument: str) -> None:
    """Refuse, before training starts, a template that could fail or lead astray later.

    Raises:
        ConfigurationError: for a wrong type, syntax or format, or a name outside the directory.

    """
    if template is None:
        return
    if not isinstance(template, str):
        msg = f"`{argument}` must be a str or None, but got {template!r}"
        raise ConfigurationError(msg)
    for part in parse_template(template):
        if isinstance(part, Group):
            _check_spec(part, template)
    sample = render(template, {}, auto_insert=auto_insert, equals=style.equals)
    check_inside(sample + style.extension, f"`{argument}`={template!r}")


def _check_spec(group: Group, template: str) -> None:
    for sample in (0, 0.0):
        try:
            format(sample, group.spec)
        except ValueError:
            continue
        return
    msg = (
        f"the template {template!r} has a format that fits no number: {group.spec!r} of {group.key!r}. "
        "A metric whose name has a colon cannot stand in a file name"
    )
    raise ConfigurationError(msg)


def check_inside(name: str, origin: str) -> str:
    """Return the name if it stays inside the checkpoint directory.

    Raises:
        ConfigurationError: if it is absolute, climbs with ``..``, has an empty or over-long part or
            a control character.

    """
    parts = name.split("/")
    problem = ""
    if any(part in ("", ".", "..") for part in parts) or PurePosixPath(name).is_absolute():
        problem = "leads outside the checkpoint directory, or has an empty part"
    elif any(ord(character) < ord(" ") for character in name) or "\\" in name:
        problem = "has a control character or a backslash"
    elif any("\ud800" <= character <= "\udfff" for character in name):
        problem = "has half of a surrogate pair, which is no character"
    elif any(len(part.encode()) > _LONGEST_NAME for part in parts):
        problem = f"has a part longer than {_LONGEST_NAME} bytes"
    if problem:
        msg = f"{origin} gives the file name {name!r}, which {problem}"
        raise ConfigurationError(msg)
    return name


def file_name(  # noqa: PLR0913 - one parameter for each part of a name
    template: str | None,
    metrics: Mapping[str, float | str],
    style: NameStyle,
    *,
    auto_insert: bool,
    version: int | None = None,
    prefix: str | None = None,
) -> str:
    """Return the file name for these metrics, with its extension, relative to the directory."""
    template = template or "{epoch}" + style.join + "{step}"
    stem = render(template, metrics, auto_insert=auto_insert, equals=style.equals)
    if prefix is not None:
        stem = style.join.join((prefix, stem))
    if version is not None:
        stem = style.join.join((stem, f"v{version}"))
    return stem + style.extension


def template_keys(template: str | None, style: NameStyle) -> list[str]:
    """Return the keys of a template (None: the default one), in its order."""
    parts = parse_template(template or "{epoch}" + style.join + "{step}")
    return [part.key for part in parts if isinstance(part, Group)]


def name_pattern(template: str, style: NameStyle, *, auto_insert: bool) -> re.Pattern[str]:
    """Return the pattern of all names that a template can give, version counter included."""
    pieces = []
    for part in parse_template(template):
        if isinstance(part, str):
            pieces.append(re.escape(part))
        else:
            pieces.append((re.escape(part.key + style.equals) if auto_insert else "") + r"[^/]+?")
    version = "(?:" + re.escape(style.join + "v") + r"\d+)?"
    return re.compile("".join(pieces) + version + re.escape(style.extension))


def depth(template: str | None) -> int:
    """Return how many folders below the directory the names of a template lie."""
    return (template or "").count("/")
