"""Whether what failed may have been done all the same: a server whose answer did not come may have taken it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def put_in_doubt(error: BaseException) -> None:
    """Take down that an earlier try, whose answer was lost, may have done what this error says has failed."""
    vars(error)["in_doubt"] = True


@contextmanager
def already_done() -> Iterator[None]:
    """Put what fails meanwhile in doubt: what it belongs to has been done, and is only being looked at or tidied up."""
    try:
        yield
    except OSError as error:
        put_in_doubt(error)
        raise


def is_in_doubt(error: BaseException) -> bool:
    """Tell whether what an error ended may have been done: no answer came to the last try, or to one before it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (ConnectionError, TimeoutError)) or vars(seen).get("in_doubt"):
            return True
        seen = seen.__cause__
    return False
