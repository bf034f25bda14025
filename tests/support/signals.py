"""Signals as a process has them that nobody has listened in."""

from __future__ import annotations

import signal

from holdfast.front import preemption


def forget_listeners():
    """End what other tests of this process have left open, or dropped without closing it: no handler of ours stays."""
    for one in list(preemption._listeners):
        preemption.leave(one)
    preemption.asked.clear()
    preemption._handlers.clear()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        while isinstance(handler, preemption._Handler):
            handler = handler.earlier
            signal.signal(number, handler)
