"""Checkpoints as tables of HTML, for notebooks. Whatever comes from a file stands escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from holdfast.errors import printable
from holdfast.front.catalog import Catalog
from holdfast.front.checkpoint import Checkpoint
from holdfast.front.sizes import amount

_ROWS = 200  # of a catalog: more than that nobody reads, and a browser would take seconds


def catalog_html(catalog: Catalog) -> str:
    """Return the table of a directory."""
    rows = [_row(item) for item in catalog[:_ROWS]]
    head = ("name", "step", "epoch", "metrics", "size", "saved", "tags", "kept because")
    parts = [f"<b>{_text(catalog.path)}</b>: {len(catalog)} checkpoints, {amount(catalog.size)}", _table(head, rows)]
    if len(catalog) > _ROWS:
        parts.append(f"… and {len(catalog) - _ROWS} older ones")
    if catalog.aside:
        parts.append(f"{len(catalog.aside)} damaged, set aside and not counted")
    return "<div>" + "<br>".join(parts) + "</div>"


def checkpoint_html(item: Checkpoint) -> str:
    """Return what there is to say of one checkpoint, one fact a row."""
    known = item.facts
    rows = [("path", _text(item.path)), ("size", amount(item.size)), ("is", _what(item))]
    if known is not None:
        rows += [
            ("step, epoch", f"{item.step}, {item.epoch}"),
            ("saved", _text(f"{known.time}: {known.reason}")),
            ("run", _text(item.run)),
            ("metrics", "<br>".join(_metrics(item))),
        ]
        if known.resumed_from is not None:
            rows.append(("resumed from", _text(known.resumed_from.path)))
    if item.tags or item.pinned:
        rows.append(("tags", _tags(item)))
    rows += [("note", _text(f"{note.time} {note.text}".strip())) for note in item.notes]
    rows += [("cannot be read", _text(text)) for text in item.damaged_notes]
    return _table((), rows)


def _row(item: Checkpoint) -> tuple[str, ...]:
    known = item.facts
    if known is None:
        return (_text(item.name), "", "", "", amount(item.size), "", _tags(item), _what(item))
    shown = (_text(item.name), str(item.step), str(item.epoch), "<br>".join(_metrics(item)), amount(item.size))
    return (*shown, _text(known.time), _tags(item), _text(item.kept))


def _what(item: Checkpoint) -> str:
    if item.problem:
        return f"<b>{'damaged' if item.damaged else 'cannot be read'}</b>: {_text(item.problem)}"
    return _text(item.kept if item.facts is not None else "no manifest: not saved by holdfast")


def _metrics(item: Checkpoint) -> Iterable[str]:
    """Yield each metric, the monitored one first and bold, later ones marked."""
    for name, value in sorted(item.metrics.items(), key=lambda pair: (pair[0] != item.monitor, pair[0])):
        number = f"{value:.5g}" if math.isfinite(value) else repr(value)
        late = " (late)" if name in item.late_metrics else ""
        text = f"{_text(name)} = {number}{late}"
        yield f"<b>{text}</b>" if name == item.monitor else text


def _tags(item: Checkpoint) -> str:
    return _text(", ".join((*(["pinned"] if item.pinned else []), *item.tags)))


def _text(text: str) -> str:
    return escape(printable(text))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>" if head else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{top}{body}</table>"
