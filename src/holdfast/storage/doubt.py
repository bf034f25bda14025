"""Whether what failed may have been done all the same: a server whose answer did not come may have taken it."""

from __future__ import annotations


def put_in_doubt(error: BaseException) -> None:
    """Take down that an earlier try, whose answer was lost, may have done what this error says has failed."""
    vars(error)["in_doubt"] = True


def is_in_doubt(error: BaseException) -> bool:
    """Tell whether what an error ended may have been done: no answer came to the last try, or to one before it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (ConnectionError, TimeoutError)) or vars(seen).get("in_doubt"):
            return True
        seen = seen.__cause__
    return False
