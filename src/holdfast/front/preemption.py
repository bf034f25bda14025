"""Signals that ask a training to end: saved at the next step boundary, then the signal's own meaning.

The handler does nothing but take a note. It never acts in the middle of a step, a save or a resume: the training
looks at the notes after each step. Every checkpointer of the process shares the one handler of a signal.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from torch.utils.data import get_worker_info

from holdfast.errors import ConfigurationError, SaveError
from holdfast.policy.settings import Settings
from holdfast.storage import end_waiting, end_waiting_by, give_up_all, wait_again
from holdfast.telling import warn

log = logging.getLogger("holdfast")

_USUAL = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
_NEVER = ("SIGKILL", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGCHLD")
_SHARE = 0.9  # of the time that a signal leaves, in which a server may be waited for; the rest is to end in
_KILLS_AT_ONCE = (signal.SIGTERM,)  # what parents end their children by: no child may be slow to answer it

asked: list[int] = []  # the signals that came and were not honoured yet; empty but for a step or two
agreed: list[int] = []  # of several ranks: those that all ranks know of, the same at the same step; not honoured yet

_listeners: WeakKeyDictionary[Any, frozenset[int]] = WeakKeyDictionary()
_together: WeakKeyDictionary[Any, frozenset[int]] = WeakKeyDictionary()  # those on several ranks; alike on every rank
_graces: WeakKeyDictionary[Any, float] = WeakKeyDictionary()  # seconds that a signal leaves those who were told
_answered: WeakSet[Any] = WeakSet()
_handlers: dict[int, _Handler] = {}
_state = {"delivering": False, "hurried": False}


class _Handler:
    """Takes a note of a signal.

    Attributes:
        earlier: the handler that it stands in for.

    """

    def __init__(self, earlier: Any) -> None:
        self.earlier = earlier

    def __call__(self, number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and number in asked
        if _state["delivering"] or again or not _is_wanted(number):
            self._act_at_once(number, frame, again=again)
        elif number not in asked:
            asked.append(number)
            _leave_time()

    def _act_at_once(self, number: int, frame: FrameType | None, *, again: bool) -> None:
        if again:
            asked.remove(number)
            _state["hurried"] = True
            end_waiting()
            _answered.clear()
            signal.signal(number, self.earlier)
        if not _in_loader_worker(number):
            self.hand_on(number, frame)

    def hand_on(self, number: int, frame: FrameType | None) -> None:
        """Do what would have been done without us."""
        if callable(self.earlier):
            self.earlier(number, frame)
        elif not _state["delivering"]:  # else one that stands above us has been given the word
            signal.signal(number, self.earlier)
            signal.raise_signal(number)


def make_signals(value: object) -> frozenset[int]:
    """Return the signals that a user means: True all usual ones that exist here, False or () none, or which.

    Raises:
        ConfigurationError: for what is no signal, or none that a program may wait with.

    """
    if isinstance(value, bool):
        return frozenset(int(getattr(signal, name)) for name in _USUAL if value and hasattr(signal, name))
    never = {int(getattr(signal, name)) for name in _NEVER if hasattr(signal, name)}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        numbers = list(value)
        if all(isinstance(number, int) and number in signal.valid_signals() - never for number in numbers):
            return frozenset(int(number) for number in numbers)
    msg = (
        f"`save_on_signal` is True, False or a sequence of signals that a program can wait with, such as "
        f"[signal.SIGTERM], but got {value!r}"
    )
    raise ConfigurationError(msg)


def signals_of(settings: Settings, given: object) -> frozenset[int]:
    """Return the signals at which a run saves: those of its ``OnSignal``, else those of ``save_on_signal``.

    Raises:
        ConfigurationError: for what is no signal, and if both name some.

    """
    named = settings.when.signals
    if named is None:
        return make_signals(given)
    if given is True:
        return make_signals(named)
    msg = f"`save_on_signal`={given!r} stands beside an OnSignal in `save_when`: both say at which signals to save"
    raise ConfigurationError(msg)


def prepare(one: object, signals: frozenset[int]) -> None:
    """Put the handlers in place, which let every signal act at once until ``listen`` is called.

    So a loader's workers that are forked before the first step have them, too: see ``_in_loader_worker``.
    """
    if signals and _on_main_thread():
        _listeners.setdefault(one, frozenset())
        for number in signals:
            _install(number)


def listen(one: object, signals: frozenset[int], *, together: bool = False, grace: float | None = None) -> None:
    """Have signals wait for this one's next step. Only on the main thread: elsewhere Python hears none.

    ``together``: it is one of several ranks, which have to agree on each signal before they answer it. ``grace``: the
    seconds between a signal and the end of the process, where that is known: no server is waited for beyond.
    """
    if not signals:
        return
    if grace is not None:
        _graces[one] = grace
    if together:
        _together[one] = signals
    if not _on_main_thread():
        return
    _state["hurried"] = False
    wait_again()
    prepare(one, signals)
    _listeners[one] = signals


def leave(one: object) -> None:
    """End that, and put the earlier handlers back; a signal that nobody will answer any more acts now."""
    _together.pop(one, None)
    _graces.pop(one, None)
    if _listeners.pop(one, None) is None or not _on_main_thread():
        return
    _answered.discard(one)
    left = dict.fromkeys((*asked, *agreed))
    if not _together:
        agreed.clear()
    try:
        _deliver([number for number in left if not _is_wanted(number)])
    finally:
        for number in [number for number in _handlers if not _is_wanted(number)]:
            handler = _handlers.pop(number)
            if _stands(number, handler):
                signal.signal(number, handler.earlier)


def answer(one: object, save: Callable[[], None]) -> None:
    """At a step boundary of one who listens: save, and once all have, let each signal act.

    One who does not come to a step of its own keeps the others from that for one step, and no longer.
    A save that fails is warned of, and the signal acts all the same.
    """
    numbers = [number for number in asked if number in _listeners.get(one, ())]
    if not numbers or not _on_main_thread():
        return
    if not _save_once(one, numbers, save, _listeners):
        return
    _answered.clear()
    _deliver(numbers)


def agree_on(numbers: Iterable[int]) -> None:
    """Take note of signals that all ranks have heard of at this very step: called on every rank alike."""
    agreed.extend(number for number in numbers if number not in agreed)


def answer_together(one: object, save: Callable[[], None], meet: Callable[[], None]) -> None:
    """The same on several ranks, for the signals that all have agreed on: each rank saves, and has each signal act.

    Also on the ranks that were not sent it, so that all end alike.

    Args:
        one: who is at a step boundary, on every rank.
        save: called on every rank.
        meet: comes back once all ranks have saved: none may end while another one still needs it.

    """
    numbers = [number for number in agreed if number in _together.get(one, ())]
    if not numbers or not _save_once(one, numbers, save, _together):
        return
    _answered.clear()
    agreed[:] = [number for number in agreed if number not in numbers]
    meet()
    if _on_main_thread():
        _deliver(numbers)


def _save_once(
    one: object, numbers: Collection[int], save: Callable[[], None], listeners: WeakKeyDictionary[Any, frozenset[int]]
) -> bool:
    """Save, unless this one has; tell whether the signals may act: all others have saved, or had a step to do so."""
    if one in _answered:
        return True
    _answered.add(one)
    log.warning("%s: saving before it acts", " and ".join(_name(number) for number in numbers))
    try:
        save()
    except SaveError as error:
        warn(f"not saved before the signal acts: {error}")
    return all(other in _answered for other, signals in list(listeners.items()) if signals.intersection(numbers))


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal, which has only a number
        return f"signal {number}"


def will_end() -> bool:
    """Tell whether one of the signals that are being answered ends the process at once: no code of Python comes back.

    Not Ctrl-C and what has a handler of the user's: what they raise ends the run as an exception does.
    """
    handlers = (_handlers.get(number) for number in (*asked, *agreed))
    return any(handler is not None and handler.earlier is signal.SIG_DFL for handler in handlers)


def hurried() -> bool:
    """Tell whether a second Ctrl-C came: nothing is to be saved or waited for any more."""
    return _state["hurried"]


def _deliver(numbers: list[int]) -> None:
    for number in numbers:
        for notes in (asked, agreed):
            if number in notes:
                notes.remove(number)
        if number in _handlers:
            _act(number, _handlers[number])
    if not asked:
        end_waiting_by(math.inf)  # who is still here was not ended


def _leave_time() -> None:
    """Of a signal that has come: have no server waited for when its time is nearly over."""
    graces = list(_graces.values())
    if graces:
        end_waiting_by(time.monotonic() + _SHARE * min(graces))


def _act(number: int, handler: _Handler) -> None:
    """Let a signal do what it does without us; listen again if that was to go on."""
    _state["delivering"] = True
    try:
        if not _stands(number, handler):  # somebody's own handler stands above ours, and was called
            handler.hand_on(number, None)
            return
        signal.signal(number, handler.earlier)
        if handler.earlier is signal.SIG_DFL:
            _prepare_to_end()
        signal.raise_signal(number)
        if _stands(number, handler.earlier):
            signal.signal(number, handler)
    finally:
        _state["delivering"] = False


def _prepare_to_end() -> None:
    """Before a signal that ends the process: leave no lock behind, and no printed line unwritten."""
    give_up_all()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def _install(number: int) -> None:
    current = signal.getsignal(number)
    if current is None or current is signal.SIG_IGN or current is _handlers.get(number):
        return
    if current is signal.SIG_DFL and _has_native_handler(number):
        return  # faulthandler's, say: it would be lost, and the signal would end a run that it now does not
    handler = _handlers[number] = _Handler(current)
    signal.signal(number, handler)


def _has_native_handler(number: int) -> bool:
    """Tell whether a handler was set past Python, which knows nothing of it. Only Linux says so."""
    try:
        with open("/proc/self/status") as status:
            caught = next((line.split()[1] for line in status if line.startswith("SigCgt:")), "0")
    except OSError:
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)


def _stands(number: int, handler: Any) -> bool:
    return signal.getsignal(number) is handler


def _is_wanted(number: int) -> bool:
    return any(number in signals for signals in list(_listeners.values()))


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _in_loader_worker(number: int) -> bool:
    """Tell whether this is a loader's worker, forked from a run that answers this signal itself.

    Ctrl-C and a scheduler's signals reach them as well: a run whose loader has died comes to no step boundary.
    """
    return number not in _KILLS_AT_ONCE and get_worker_info() is not None


def _forget() -> None:
    """In a forked child, which has no training to save."""
    asked.clear()
    agreed.clear()
    _listeners.clear()
    _together.clear()
    _graces.clear()
    _answered.clear()
    _state.update(delivering=False, hurried=False)
    for number in _KILLS_AT_ONCE:
        handler = _handlers.get(number)
        if handler is not None and _stands(number, handler):
            signal.signal(number, handler.earlier)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
