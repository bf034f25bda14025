"""A child of this process is stopped by the kernel at each system call that touches files: ptrace and seccomp.

A filter that the child installs has the kernel stop it at the calls of ``_calls`` and at no others, so
that a run costs little more than without. Every thread and every process it forks is stopped as well.
The figures are those of ``linux/ptrace.h``, ``linux/seccomp.h`` and ``linux/filter.h``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
from collections import Counter
from dataclasses import dataclass

from holdfast.testing._calls import BY_NUMBER, EVERYWHERE, Call

_SEIZE, _CONT, _SYSCALL = 0x4206, 7, 24
_GETREGS, _SETREGS, _SYSCALL_INFO = 12, 13, 0x420E
_SYSGOOD, _FORK, _VFORK, _CLONE, _SECCOMP, _EXITKILL = 0x1, 0x2, 0x4, 0x8, 0x80, 0x100000
_EVENT_SECCOMP, _EVENT_STOP = 7, 128
_WAIT_ALL = 0x40000000
_AT_SYSCALL = signal.SIGTRAP | 0x80
_RAX, _ORIG_RAX = 10, 15
_ARGUMENT_REGISTERS = (14, 13, 12, 7, 9, 8)  # rdi, rsi, rdx, r10, r8, r9
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_LOAD, _IF_EQUAL, _ANSWER = 0x20, 0x15, 0x06
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000
_AUDIT_X86_64 = 0xC000003E
_PAGE = 4096
_LONGEST = 4096  # bytes of a path
_WORD = (1 << 64) - 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class TracingError(Exception):
    """The kernel does not let this process trace its children."""


@dataclass
class Watch:
    """What to do with a child.

    Attributes:
        folder: calls that touch what is in it, or itself, are counted.
        call, number: the call that the fault meets; "" for none.
        do: ``"kill"``, ``"torn"``, ``"short"``, or the name of an error.
        reached: whether it came to that.
        seen: every call that was counted: its name and what it touched.

    """

    folder: str
    call: str = ""
    number: int = 0
    do: str = ""

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        self.reached = False
        self.seen: list[tuple[str, str]] = []
        self.counts: Counter[str] = Counter()


def install_filter() -> None:
    """Have the kernel stop this process at each call that touches files: only when it is traced already."""
    checks = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, _AUDIT_X86_64), (_ANSWER, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    numbers = sorted(BY_NUMBER)
    jumps = [(_IF_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    program = [*checks, *jumps, (_ANSWER, 0, 0, _ALLOW), (_ANSWER, 0, 0, _TRACE)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.prctl(_SET_SECCOMP, _FILTER_MODE, header, 0, 0):
        message = f"no filter for system calls could be installed: {os.strerror(ctypes.get_errno())}"
        raise TracingError(message)


def seize(child: int) -> None:
    """Become the tracer of a child that waits.

    Raises:
        TracingError: if the kernel does not allow it.

    """
    options = _SYSGOOD | _FORK | _VFORK | _CLONE | _SECCOMP | _EXITKILL
    if _libc.ptrace(_SEIZE, child, None, options) < 0:
        message = f"process {child} cannot be traced: {os.strerror(ctypes.get_errno())}"
        raise TracingError(message)


def follow(child: int, watch: Watch) -> int:
    """Let a seized child run to its end, with the fault where it was ordered; return its wait status."""
    others = set()
    while True:
        who, status = os.waitpid(-1, _WAIT_ALL)
        if not os.WIFSTOPPED(status):
            others.discard(who)
            if who == child:
                break
            continue
        if who != child:
            others.add(who)
        _go_on(who, child, status, watch)
    for who in others:  # what it forked and left behind
        with contextlib.suppress(ProcessLookupError):
            os.kill(who, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while others:
            others.discard(os.waitpid(-1, _WAIT_ALL)[0])
    return status


def _go_on(who: int, child: int, status: int, watch: Watch) -> None:
    """Answer one stop."""
    event, sent = status >> 16, os.WSTOPSIG(status)
    if event == _EVENT_SECCOMP:
        _at_call(who, child, watch)
    elif sent == _AT_SYSCALL:  # the torn write has been made
        os.kill(child, signal.SIGKILL)
    else:
        _continue(who, 0 if event else sent)


def _continue(who: int, sent: int = 0, how: int = _CONT) -> None:
    if _libc.ptrace(how, who, None, sent) < 0 and ctypes.get_errno() != errno.ESRCH:  # killed meanwhile
        message = f"process {who} does not go on: {os.strerror(ctypes.get_errno())}"
        raise TracingError(message)


def _at_call(who: int, child: int, watch: Watch) -> None:
    """Count a call; do what is ordered where it is the one."""
    call, arguments = _call_of(who)
    touched = _touched(who, call, arguments, watch.folder) if call else ""
    if call is None or not touched:
        _continue(who)
        return
    watch.counts[call.name] += 1
    watch.seen.append((call.name, touched))
    if watch.reached or (call.name, watch.counts[call.name]) != (watch.call, watch.number):
        _continue(who)
        return
    watch.reached = True
    _strike(who, child, watch.do, call, arguments)


def _strike(who: int, child: int, do: str, call: Call, arguments: tuple[int, ...]) -> None:
    if do == "kill":
        os.kill(child, signal.SIGKILL)
    elif do in ("short", "torn"):
        less = _shortened(who, call, arguments)
        if less:
            _change(who, {_ARGUMENT_REGISTERS[call.length]: less})
        _continue(who, how=_SYSCALL if do == "torn" else _CONT)
    else:
        _change(who, {_ORIG_RAX: _WORD, _RAX: -getattr(errno, do) & _WORD})  # no call, and this for its answer
        _continue(who)


def _shortened(who: int, call: Call, arguments: tuple[int, ...]) -> int:
    """Return half of what a call is to write, in whole pages where the file is written directly; 0: cannot be."""
    if call.length < 0:
        return 0
    half = arguments[call.length] // 2
    with open(f"/proc/{who}/fdinfo/{arguments[0]}", encoding="ascii") as file:
        flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags"))
    return half // _PAGE * _PAGE if flags & os.O_DIRECT else half


def _change(who: int, registers: dict[int, int]) -> None:
    held = (ctypes.c_ulonglong * 27)()
    _libc.ptrace(_GETREGS, who, None, ctypes.addressof(held))
    for place, value in registers.items():
        held[place] = value
    _libc.ptrace(_SETREGS, who, None, ctypes.addressof(held))


def _call_of(who: int) -> tuple[Call | None, tuple[int, ...]]:
    """Return the call at which a thread stands, and its arguments; None if the thread is gone."""
    answer = ctypes.create_string_buffer(88)
    if _libc.ptrace(_SYSCALL_INFO, who, len(answer), ctypes.addressof(answer)) <= 0:
        return None, ()
    number, *arguments = struct.unpack_from("7Q", answer, 24)
    return BY_NUMBER.get(number), tuple(arguments)


def _touched(who: int, call: Call, arguments: tuple[int, ...], folder: str) -> str:
    """Return what a call touches in the folder, or the folder; "" if nothing."""
    if call.name in EVERYWHERE:
        return folder
    for place in call.descriptors:
        path = _link(f"/proc/{who}/fd/{arguments[place]}")
        if _is_in(path, folder):
            return path
    for place, base in call.paths:
        path = _text(who, arguments[place])
        if not path.startswith("/"):
            at = ctypes.c_int(arguments[base]).value if base >= 0 else -100
            path = os.path.join(_link(f"/proc/{who}/cwd" if at < 0 else f"/proc/{who}/fd/{at}"), path)
        if _is_in(os.path.normpath(path), folder):
            return path
    return ""


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _text(who: int, address: int) -> str:
    """Read a string of the child's; not beyond the end of a page, behind which there may be nothing."""
    found = b""
    try:
        memory = os.open(f"/proc/{who}/mem", os.O_RDONLY)
    except OSError:
        return ""
    try:
        while b"\0" not in found and len(found) < _LONGEST:
            found += os.pread(memory, _PAGE - (address + len(found)) % _PAGE, address + len(found))
    except OSError:
        return ""
    finally:
        os.close(memory)
    return os.fsdecode(found.partition(b"\0")[0])
