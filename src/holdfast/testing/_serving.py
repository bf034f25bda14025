"""The process that has imported what the runs need, and forks one for each line that it reads. See ``kills``."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from holdfast.testing._tracing import TracingError, Watch, follow, install_filter, seize


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a run prints is none of the answers
    warm, *modules = sys.argv[1:]
    for name in modules:
        importlib.import_module(name)
    if warm:
        _function(warm)()
    gc.collect()
    gc.freeze()  # a fork that collects garbage would copy all pages
    print("{}", file=answers, flush=True)
    for line in iter(sys.stdin.readline, ""):
        print(json.dumps(_run(json.loads(line))), file=answers, flush=True)


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def _run(order: dict[str, Any]) -> dict[str, Any]:
    watch = Watch(**order["watch"]) if order["watch"] else None
    gate, key = os.pipe()
    child = os.fork()
    if not child:
        os.close(key)
        _child(order, gate, traced=watch is not None)
    os.close(gate)
    try:
        if watch is not None:
            seize(child)
        os.write(key, b"x")
        status = follow(child, watch) if watch is not None else os.waitpid(child, 0)[1]
    except TracingError as error:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return {"error": str(error)}
    finally:
        os.close(key)
    seen = watch.seen if watch is not None else []
    reached = watch.reached if watch is not None else False
    return {"code": os.waitstatus_to_exitcode(status), "seen": seen, "reached": reached}


def _child(order: dict[str, Any], gate: int, *, traced: bool) -> None:
    """Be the run; end the process whatever happens."""
    code = 1
    said = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(value: Any) -> None:
        os.write(said, json.dumps(value).encode() + b"\n")

    try:
        signal.alarm(order["limit"])
        os.read(gate, 1)
        function = _function(order["function"])
        if traced:
            install_filter()
        function(tell, *order["arguments"])
        code = 0
    except BaseException as error:  # noqa: BLE001 - the run's end is told, whatever it is
        told = {"raised": type(error).__name__, "message": str(error), "errno": getattr(error, "errno", None)}
        tell({**told, "path": getattr(error, "path", None)})
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
