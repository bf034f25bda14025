"""The part of ``Checkpointer`` that has a second tier: begun with the run, waited for at its end.

Rank 0 uploads; the others know where the mirror is.
"""

from __future__ import annotations

from holdfast.front.loop_deciding import LoopDeciding
from holdfast.front.preemption import asked, hurried, will_end
from holdfast.front.uploads import ENDING, Uploads
from holdfast.mirroring import Mirror
from holdfast.policy import haste


class LoopMirror(LoopDeciding):
    """Carries what is committed to the mirror, if there is one."""

    _closed: bool

    @property
    def mirror(self) -> Mirror | None:
        """What carries the checkpoints to the mirror, with its ``status``; None without one, and on ranks but 0."""
        return None if self._uploads is None else self._uploads.mirror

    def _begin_mirror(self) -> None:
        """Rank 0 only."""
        if self._mirror_words is not None:
            self._uploads = Uploads(
                self._mirror_words,
                self._run.store,
                self._run.clock,
                lambda: self._run.protected,
                lambda: self._run.run,
                self._run.depth,
            )

    def _end_mirror(self, *, failed: bool) -> None:
        """Rank 0 only: wait for the uploads, as long as is meant; then let go what only they still needed.

        After an exception a moment, and after a second Ctrl-C none at all: what is left is handed over.
        """
        uploads, self._uploads = self._uploads, None
        if uploads is None:
            return
        limit = 0.0 if hurried() else self._moment_left() if failed else None
        uploads.finish(lambda: bool(asked) or hurried(), limit)
        for name in uploads.spared if not hurried() else ():
            self._remove(name, self._ledger, self._ledger)

    def _moment_left(self) -> float:
        """Seconds that the uploads have when the run is about to be ended."""
        grace = self._remaining.grace
        return ENDING if grace is None else haste.left_for_uploads(grace, self._remaining.took)

    def _save_for_signal(self) -> None:
        super()._save_for_signal()
        if self._uploads is not None and will_end():  # nobody comes back from it to close
            uploads, self._uploads = self._uploads, None
            uploads.finish(hurried, self._moment_left())
