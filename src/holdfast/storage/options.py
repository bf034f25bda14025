"""What the user said of a URL's filesystem: ``storage_options``, for every URL at or below one, in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

_remembered: dict[str, dict[str, Any]] = {}
_lock = threading.Lock()


def remember(url: str, options: Mapping[str, Any] | None) -> None:
    """Use these options for the URL and all below it, from now on; None changes nothing, an empty one forgets."""
    if options is None:
        return
    with _lock:
        if options:
            _remembered[url.rstrip("/")] = dict(options)
        else:
            _remembered.pop(url.rstrip("/"), None)


def options_for(url: str) -> dict[str, Any]:
    """Return the options of the longest URL at or above this one; none where nothing was said."""
    with _lock:
        above = [known for known in _remembered if url == known or url.startswith(f"{known}/")]
        return dict(_remembered[max(above, key=len)]) if above else {}
