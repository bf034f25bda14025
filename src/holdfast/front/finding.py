"""What was found out about a directory: values, from the checks to whoever shows them."""

from __future__ import annotations

from dataclasses import dataclass

PROBLEM, WARNING, NOTE = "problem", "warning", "note"  # to be done; to be looked at; to be known
ORDER = {PROBLEM: 0, WARNING: 1, NOTE: 2}


@dataclass(frozen=True)
class Finding:
    """One thing about a directory, and what to do.

    Attributes:
        severity: ``"problem"``: something is broken or soon will be; ``"warning"``: somebody should look;
            ``"note"``: nothing needs doing.
        what: what it is, in a sentence without its end.
        path: where.
        cure: what to do; of a note why nothing needs doing.
        kind: the same for findings of one kind, for programs: ``"damaged"``, ``"clock"`` and so on.

    """

    severity: str
    what: str
    path: str
    cure: str
    kind: str
