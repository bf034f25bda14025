"""The part of ``ModelCheckpoint`` that has a second tier: where it is, what it uploads, what only it has."""

from __future__ import annotations

from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.front.mirror_words import MirrorWords, check_apart, make_mirror_words
from holdfast.front.planning import Run
from holdfast.front.preemption import asked, hurried
from holdfast.front.remaining import Remaining
from holdfast.front.second_tier import SecondTier
from holdfast.front.uploads import ENDING, Uploads
from holdfast.front.words import join_path, left_for_uploads, open_store
from holdfast.integrations.callback_state import StateMixin

NEEDED, ELSEWHERE = "needed", "elsewhere"  # why retention here leaves a file alone


class MirrorMixin(StateMixin):
    """Knows the mirror; on rank 0 carries what is committed to it."""

    _remaining: Remaining
    _mirror_words: MirrorWords | None = None
    _uploads: Uploads | None = None  # rank 0 only, while it trains
    _second: SecondTier | None = None  # what the mirror had as the run was looked for

    def _init_mirror(self, mirror: Any, keep: Any, bandwidth: Any, wait: Any, *, recycles: bool) -> None:
        try:
            self._mirror_words = make_mirror_words(
                self.dirpath, mirror, keep=keep, bandwidth=bandwidth, wait=wait, recycles=recycles
            )
        except ConfigurationError as error:
            raise self._misconfiguration(str(error)) from None

    def _path(self, name: str) -> str:
        if name in self._elsewhere and self._mirror_words is not None:
            return join_path(self._mirror_words.url, name)
        return super()._path(name)

    def _look_for_second(self, dirpath: str) -> SecondTier | None:
        """Return the mirror as it is now, as a place to go on from; None without one."""
        words = self._mirror_words
        self._second = None if words is None else SecondTier(words.url, open_store(dirpath))
        return self._second

    def _begin_mirror(self, run: Run) -> None:
        """Rank 0 only: from here on what is committed is carried there.

        Raises:
            ConfigurationError: if the mirror is the directory of the run.

        """
        if self._mirror_words is None:
            return
        check_apart(self.dirpath, self._mirror_words.url)
        self._uploads = Uploads(
            self._mirror_words, run.store, run.clock, lambda: self._protected, lambda: self._run_id, run.depth
        )
        if self._second is not None:
            style, depth = run.settings.style, run.depth
            self._uploads.catch_up(style.extension, depth, self._second.copied(style.extension, depth))

    def _why_minded(self, name: str) -> str:
        """Rank 0 only: why a file that retention drops is left alone; "" if it is not."""
        if self._uploads is not None and self._uploads.needs(name):
            return NEEDED
        return ELSEWHERE if name in self._elsewhere else ""

    def _end_mirror(self, *, failed: bool) -> frozenset[str]:
        """Rank 0 only: wait for the uploads, as long as is meant; return what only they still needed here.

        After an exception a moment, and after a second Ctrl-C none at all: what is left is handed over.
        """
        uploads, self._uploads, self._second = self._uploads, None, None
        if uploads is None:
            return frozenset()
        limit = 0.0 if hurried() else self._moment_left() if failed else None
        uploads.finish(lambda: bool(asked) or hurried(), limit)
        return frozenset() if hurried() else frozenset(uploads.spared)

    def _moment_left(self) -> float:
        """Seconds that the uploads have when the run is about to be ended."""
        grace = self._remaining.grace
        return ENDING if grace is None else left_for_uploads(grace, self._remaining.took)
