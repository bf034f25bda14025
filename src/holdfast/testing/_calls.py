"""The system calls that touch files: their numbers, and where their arguments name what they touch.

Linux on x86-64 and no other: numbers and registers differ from machine to machine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One system call.

    Attributes:
        name: as the manual has it.
        number: what the kernel knows it by.
        descriptors: which of its arguments are descriptors of what it touches.
        paths: which are paths, each with the argument that has the folder it is relative to (-1: the
            working folder).
        length: which says how many bytes it is to write; -1 if it writes none.

    """

    name: str
    number: int
    descriptors: tuple[int, ...] = ()
    paths: tuple[tuple[int, int], ...] = ()
    length: int = -1


_ALL = (
    Call("read", 0, (0,)),
    Call("pread64", 17, (0,)),
    Call("preadv", 295, (0,)),
    Call("getdents64", 217, (0,)),
    Call("write", 1, (0,), length=2),
    Call("pwrite64", 18, (0,), length=2),
    Call("writev", 20, (0,)),
    Call("pwritev", 296, (0,)),
    Call("pwritev2", 328, (0,)),
    Call("sendfile", 40, (0, 1), length=3),
    Call("copy_file_range", 326, (0, 2), length=4),
    Call("open", 2, paths=((0, -1),)),
    Call("creat", 85, paths=((0, -1),)),
    Call("openat", 257, paths=((1, 0),)),
    Call("openat2", 437, paths=((1, 0),)),
    Call("close", 3, (0,)),
    Call("truncate", 76, paths=((0, -1),)),
    Call("ftruncate", 77, (0,)),
    Call("fallocate", 285, (0,)),
    Call("ioctl", 16, (0,)),
    Call("flock", 73, (0,)),
    Call("msync", 26),
    Call("fsync", 74, (0,)),
    Call("fdatasync", 75, (0,)),
    Call("sync_file_range", 277, (0,)),
    Call("rename", 82, paths=((0, -1), (1, -1))),
    Call("renameat", 264, paths=((1, 0), (3, 2))),
    Call("renameat2", 316, paths=((1, 0), (3, 2))),
    Call("link", 86, paths=((0, -1), (1, -1))),
    Call("linkat", 265, paths=((1, 0), (3, 2))),
    Call("symlink", 88, paths=((1, -1),)),
    Call("symlinkat", 266, paths=((2, 1),)),
    Call("unlink", 87, paths=((0, -1),)),
    Call("unlinkat", 263, paths=((1, 0),)),
    Call("mkdir", 83, paths=((0, -1),)),
    Call("mkdirat", 258, paths=((1, 0),)),
    Call("rmdir", 84, paths=((0, -1),)),
    Call("chmod", 90, paths=((0, -1),)),
    Call("fchmod", 91, (0,)),
    Call("io_uring_enter", 426),
)
BY_NUMBER = {call.number: call for call in _ALL}
EVERYWHERE = ("msync", "io_uring_enter")  # what they touch cannot be seen: they always count
READING = ("read", "pread64", "preadv", "getdents64")
