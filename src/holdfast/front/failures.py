"""What becomes of a save that failed: a loud warning and another try, until too many have failed in a row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from holdfast.errors import ChangedStateError, ConfigurationError, SaveError
from holdfast.storage import is_in_doubt


@dataclass
class Failures:
    """Counts the saves that failed with no commit in between, and decides what each failure leads to.

    Every rank asks with the same errors in the same order, so that all decide the same.

    Attributes:
        on_error: ``"warn"`` or ``"raise"``.
        max_failures: the failure in a row that is raised in any case.
        in_a_row: how many there have been since the last commit.
        ending: whether no further trigger will come.

    """

    on_error: str
    max_failures: int
    in_a_row: int = 0
    ending: bool = False
    _asked: bool = False

    def committed(self) -> None:
        """Take note of a commit."""
        self.in_a_row = 0

    @contextmanager
    def asked_for(self, *, by_name: bool = True) -> Iterator[None]:
        """Raise whatever fails meanwhile, if the user has asked for the save by name, and waits for it."""
        before, self._asked = self._asked, by_name
        try:
            yield
        finally:
            self._asked = before

    def judge(self, error: SaveError, *, spared: bool) -> str:
        """Return the warning for a save that failed.

        Args:
            error: what it failed of.
            spared: whether an exception of the user's is on its way, which this one must not replace.

        Raises:
            SaveError: if training is not to go on.

        """
        # A state that changed too early is no fault of the disk, and the next save is made another way.
        if spared or isinstance(error, ChangedStateError):
            return str(error)
        self.in_a_row += 1
        if self.on_error == "raise" or self._asked:
            raise error
        if self.in_a_row >= self.max_failures:
            msg = (
                f"{error}. It is failure {self.in_a_row} in a row, with no commit in between, and "
                f"max_failures={self.max_failures}"
            )
            raise SaveError(msg, path=error.path, errno=error.errno) from error
        count = f"failure {self.in_a_row} of {self.max_failures} in a row"
        if self.ending:
            lost = "" if is_in_doubt(error) else ", and this state is not saved"
            return f"{error}. Training has ended{lost} ({count})"
        return f"{error}. Training goes on and will try again at the next trigger; {count}"


class FailureWords:
    """The words on failing saves, as attributes of both front doors."""

    _failures: Failures

    @property
    def on_error(self) -> str:
        """``"warn"`` or ``"raise"``: what a failed save leads to."""
        return self._failures.on_error

    @property
    def on_save_error(self) -> str:
        """The older name of ``on_error``."""
        return self._failures.on_error

    @property
    def max_failures(self) -> int:
        """How many saves may fail in a row: the last of them is raised."""
        return self._failures.max_failures


def make_failures(*, on_error: Any, on_save_error: Any, max_failures: Any) -> Failures:
    """Check the words.

    Raises:
        ConfigurationError: for a value that cannot be meant; the message names it and the cure.

    """
    for name, value in (("on_error", on_error), ("on_save_error", on_save_error)):
        if value not in (None, "warn", "raise"):
            msg = f"`{name}` can be 'warn' or 'raise' but got {value!r}"
            raise ConfigurationError(msg)
    if None not in (on_error, on_save_error) and on_error != on_save_error:
        msg = (
            f"`on_save_error`={on_save_error!r} is an older name of `on_error`={on_error!r}: give only the latter, "
            "or the same to both"
        )
        raise ConfigurationError(msg)
    if isinstance(max_failures, bool) or not isinstance(max_failures, int) or max_failures < 1:
        msg = f"`max_failures` must be an integer of at least 1 (1 raises the first failure), but got {max_failures!r}"
        raise ConfigurationError(msg)
    return Failures(on_error or on_save_error or "warn", max_failures)
