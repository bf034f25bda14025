"""Under which key a callback's state is stored, and how states under older keys are found.

The key of Lightning 2.6 has five words, that of 1.5 six. Ours has the six and then what tells two
callbacks apart that share them; the directory comes last, because a run may be moved.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Identity:
    """What tells one callback from another."""

    name: str
    seed: Mapping[str, Any]
    detail: Mapping[str, Any]
    dirpath: str | None

    @property
    def key(self) -> str:
        """The key of the callback's state in a checkpoint."""
        return f"{self.name}{ {**self.seed, **self.detail, 'dirpath': self.dirpath}!r}"

    @property
    def owner(self) -> str:
        """The same without the directory: what the files in the directory carry."""
        return f"{self.name}{ {**self.seed, **self.detail}!r}"

    @property
    def kin(self) -> str:
        """How the keys and owners begin of this callback with another ``save_top_k``."""
        return f"{self.key_of_1_5[:-1]}, 'filename': {self.detail['filename']!r}, "

    def is_heir_of(self, owner: str) -> bool:
        """Tell whether an owner differs from this one in its policy alone: when it saves, what it keeps, by what."""
        begins = owner.startswith(f"{self.name}{{")
        same = (f"{word!r}: {self.detail[word]!r}" for word in ("filename", "save_weights_only"))
        return begins and owner != self.owner and all(part in owner for part in same)

    @property
    def key_of_1_5(self) -> str:
        """The key that Lightning 1.5 gave this callback."""
        return f"{self.name}{dict(self.seed)!r}"

    @property
    def key_of_2(self) -> str:
        """The key that Lightning 2.x gives this callback."""
        words = {word: value for word, value in self.seed.items() if word != "save_on_train_epoch_end"}
        return f"{self.name}{words!r}"


def find_state(me: Identity, stored: Iterable[Any], siblings: Sequence[Identity]) -> str | None:
    """Return the stored key whose state is this callback's, or None.

    First its own key; then that of the same callback in another directory (the run was moved); then
    that of a callback with another ``save_top_k``; then Lightning's keys, which only the first of several
    callbacks that they fit takes. A key that is another callback's own is left to it.
    """
    keys = [key for key in stored if isinstance(key, str)]
    if me.key in keys:
        return me.key
    taken = {sibling.key for sibling in siblings}
    free = [key for key in keys if key not in taken]
    moved = [key for key in free if key.startswith(me.owner[:-1] + ", 'dirpath': ")]
    if len(moved) > 1:
        moved = [key for key in moved if _folder(key) == os.path.basename(str(me.dirpath).rstrip("/"))]
    if moved:
        return moved[0] if len(moved) == 1 else None
    changed = [key for key in free if key.startswith(me.kin)]
    if len(changed) == 1 and not any(other.seed == me.seed for other in siblings):
        return changed[0]
    rivals = [other for other in siblings if other.seed == me.seed and other.dirpath == me.dirpath]
    if any(other.key < me.key for other in rivals if other.key not in keys):
        return None  # Lightning had one callback of these words: its files get one master, not two that drop them
    return next((key for key in (me.key_of_2, me.key_of_1_5) if key in free), None)


def _folder(key: str) -> str:
    return os.path.basename(key.rpartition("'dirpath': ")[2].rstrip("}").strip("'\"").rstrip("/"))
