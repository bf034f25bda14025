"""The libraries that speak to servers draw their chance from a generator of their own, not from the training's.

Before another try they wait for a random time, drawn from Python's global generator. A training that draws from it,
too, would go on differently after each fault of the network: a run with checkpoints and one without would not compute
the same. So their modules get another generator under the name ``random``. Nothing else about them changes.
"""

from __future__ import annotations

import inspect
import random
import sys
from typing import Any

_STORES = ("adlfs", "aiobotocore", "azure", "botocore", "gcsfs", "google", "paramiko", "s3fs", "s3transfer")
_OTHERS = ("aiohttp", "requests", "tenacity", "urllib3")
_OWN = random.Random()  # noqa: S311 - how long to wait, no secret
_GLOBAL = random.random.__self__  # type: ignore[attr-defined]
_seen: set[str] = set()
_loaded = [0]  # how many modules there were at the last look


def keep_apart() -> None:
    """See to all modules of those libraries that are loaded by now. Cheap where none is new."""
    if len(sys.modules) == _loaded[0]:
        return
    _loaded[0] = len(sys.modules)
    for name in [name for name in sys.modules if name not in _seen and name.partition(".")[0] in (*_STORES, *_OTHERS)]:
        _seen.add(name)
        module = sys.modules.get(name)
        if module is not None and getattr(module, "random", None) is random:
            vars(module)["random"] = _OWN
            for kind in [value for value in vars(module).values() if inspect.isclass(value)]:
                _replace_default(kind)


def _replace_default(kind: type[Any]) -> None:
    """Give a class whose constructor has one of the global generator's methods as a default another one's."""
    made = vars(kind).get("__init__")
    defaults = getattr(made, "__defaults__", None) or ()
    if any(_is_global(value) for value in defaults):
        made.__defaults__ = tuple(getattr(_OWN, value.__name__) if _is_global(value) else value for value in defaults)


def _is_global(value: object) -> bool:
    return getattr(value, "__self__", None) is _GLOBAL
