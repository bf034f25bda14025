"""The thread of one save: write, commit, link."""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from typing import Any

from holdfast.engine.commit import finisher, save_errors
from holdfast.engine.flight import Flight
from holdfast.engine.order import Order
from holdfast.errors import UNTOUCHED, SaveError
from holdfast.snapshot.image import HostImage


def started(thread: threading.Thread) -> bool:
    """Start a thread; tell whether that was possible."""
    try:
        thread.start()
    except RuntimeError:  # out of threads, or the interpreter starts none any more
        return False
    return True


def copy_beside(flight: Flight, image: Any) -> None:
    """Have a thread copy what was left for later, beside the one that writes."""
    if flight.taken.later:
        copier = threading.Thread(target=flight.copy_rest, args=(image,), name="holdfast-copy")
        if not started(copier):
            copier.run()


def carry_out(flight: Flight, image: HostImage, order: Order) -> None:
    """Copy what is left, write, commit, link: the thread of one save. Saves are committed in their order."""
    if not flight.claim():
        return
    store, earlier = order.store, flight.earlier
    try:
        with save_errors(flight.path):
            copy_beside(flight, image)
            if earlier is not None:
                earlier.join()
            finish = finisher(order.facts, flight.snapshot, flight.keep)
            gate = partial(_gate, flight, order)
            chunks = image.seal(flight.snapshot, flight.taken, finish)
            store.put(order.name, chunks, over=order.over, gate=gate, size=image.size)
        flight.committed, flight.stamp = True, store.stamp(order.name)
    except SaveError as error:
        flight.error = error
    except BaseException as error:  # noqa: BLE001 - told on the training thread
        msg = f"the checkpoint {flight.path} was not saved: {type(error).__name__}: {error}. {UNTOUCHED}"
        flight.error = SaveError(msg, path=flight.path)
    else:
        _link(flight, order)
        if order.after is not None:
            order.after()
        order.stats.commit_seconds = time.perf_counter() - flight.begun
    finally:
        if order.over and not flight.committed:
            with contextlib.suppress(OSError):  # a sweep removes it
                store.remove(order.over)
        flight.finish()


def _gate(flight: Flight, order: Order) -> None:
    """Just before the commit: wait until the state is known to be whole, and ask whether the name is still free."""
    flight.gate()
    if order.consent is not None:
        order.consent()


def _link(flight: Flight, order: Order) -> None:
    if order.also:
        try:
            with save_errors(order.store.path(order.also)):
                order.store.link(order.name, order.also)
        except SaveError as error:
            flight.link_error = error
