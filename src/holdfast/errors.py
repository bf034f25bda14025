"""Every error that holdfast raises on purpose, and the exit codes of the command.

::

    HoldfastError
    ├── ConfigurationError (also ValueError)        HF100  a wrong argument
    ├── MissingMetricError (also ConfigurationError) HF110  the monitored metric was never logged
    ├── SaveError (also OSError)                    HF200  a checkpoint could not be committed
    │   └── ChangedStateError                       HF210  the state was changed before it was copied
    ├── LoadError                                   HF300  a checkpoint could not be loaded
    │   ├── CheckpointNotFoundError (FileNotFoundError) HF310  there is none at that path
    │   ├── DamagedCheckpointError                  HF320  its bytes are not those that were saved
    │   ├── UnsafeCheckpointError                   HF330  it needs classes that were not allowed
    │   ├── NewerFormatError                        HF340  a later holdfast wrote it
    │   └── SignatureError                          HF350  it is not signed with the key that was asked for
    ├── MissingExtraError (also ImportError)        HF400  an optional dependency is not installed
    ├── DirectoryInUseError                         HF500  another run saves to the directory
    └── RankError                                   HF600  a rank failed, is gone, or does something else

Codes are append-only: a code never changes its meaning.
"""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_PROBLEM: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOT_FOUND: Final = 3

UNTOUCHED: Final = "What was committed before is untouched"


def printable(text: str) -> str:
    """Return a text in which whatever a terminal could obey, or a reader not see, stands as its escape.

    Names and reasons come from files: one with an escape sequence in it could clear a screen, hide a line,
    or write a false one. Also what cannot be encoded, such as half of a surrogate pair.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class HoldfastError(Exception):
    """Base of all errors raised by holdfast; ``code`` identifies the kind for good."""

    code: str = "HF000"


class ConfigurationError(HoldfastError, ValueError):
    """An argument is wrong: the message names the value and what would be right."""

    code = "HF100"


class MissingMetricError(ConfigurationError):
    """The monitored metric is not among those that were logged."""

    code = "HF110"


class SaveError(HoldfastError, OSError):
    """A checkpoint was not committed; nothing that was committed before has been touched.

    Attributes:
        path: where the checkpoint was to be written.
        errno: the operating system's number of the cause, where it has one.

    """

    code = "HF200"

    def __init__(self, message: str, *, path: str = "", errno: int | None = None) -> None:
        """Keep the message whole: ``OSError`` would reformat two positional arguments."""
        super().__init__(message)
        self.path = path
        self.errno = errno

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip from a spawned process."""
        return _rebuild_save_error, (self.args[0], self.path, self.errno)


def _rebuild_save_error(message: str, path: str, errno: int | None) -> SaveError:
    return SaveError(message, path=path, errno=errno)


class ChangedStateError(SaveError):
    """An overlapped save was given up: tensors were changed before they were copied.

    Attributes:
        names: the tensors.

    """

    code = "HF210"

    def __init__(self, path: str, names: tuple[str, ...]) -> None:
        """Name the file that was not written and the tensors."""
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004
        super().__init__(
            f"the checkpoint {path} was not saved: {some} changed between the save and the next optimizer step, "
            "before being copied. From now on such tensors are copied at once. If the optimizer is not one of "
            f"torch's, call fence() before its step; overlap=False copies everything at once. {UNTOUCHED}",
            path=path,
        )
        self.names = names

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip from a spawned process."""
        return ChangedStateError, (self.path, self.names)


class LoadError(HoldfastError):
    """A checkpoint could not be loaded."""

    code = "HF300"


class CheckpointNotFoundError(LoadError, FileNotFoundError):
    """There is no checkpoint where one was asked for."""

    code = "HF310"


class DamagedCheckpointError(LoadError):
    """The file is not what was saved, so nothing of it was loaded.

    Attributes:
        path: the file.
        record: the part of the file that is wrong, such as ``data/3``.

    """

    code = "HF320"

    def __init__(self, path: str, record: str, problem: str) -> None:
        """Name the file, the record in it and what is wrong with it."""
        super().__init__(path, record, problem)
        self.path = path
        self.record = record
        self.problem = problem

    def __str__(self) -> str:
        """Say what happened, where, and what to do."""
        return (
            f"{printable(self.path)} is damaged: {printable(self.record)}: {printable(self.problem)}. "
            "Nothing was loaded from it. "
            "Use another checkpoint of the run (`holdfast verify DIR` tells which are whole)."
        )


class UnsafeCheckpointError(LoadError):
    """The checkpoint needs classes or functions that the safe loader does not allow.

    Attributes:
        needs: their full names.

    """

    code = "HF330"

    def __init__(self, message: str, needs: tuple[str, ...] = ()) -> None:
        """Keep the names for programs, beside the message for people."""
        super().__init__(message)
        self.needs = needs


class NewerFormatError(LoadError):
    """The file is of a format that only a later version of holdfast reads. That is no damage.

    Attributes:
        path: the file.
        problem: which format it has, and which can be read.

    """

    code = "HF340"

    def __init__(self, path: str, problem: str) -> None:
        """Name the file and its format."""
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        """Say what happened, where, and what to do."""
        what = f"{printable(self.path)} cannot be read: its {printable(self.problem)}"
        return f"{what}. Install a newer holdfast to load it."


class SignatureError(LoadError):
    """A checkpoint has no signature, or none of the given key, or one of other bytes.

    Attributes:
        path: the checkpoint.
        problem: which of these it is.

    """

    code = "HF350"

    def __init__(self, path: str, problem: str) -> None:
        """Name the checkpoint and what is wrong with its signature."""
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        """Say what happened, where, and what to do."""
        return (
            f"{printable(self.path)} is not known to be genuine: {printable(self.problem)}. If you trust the file, "
            "sign it (`holdfast sign FILE --key PRIVATE`)"
        )


class MissingExtraError(HoldfastError, ImportError):
    """A part of holdfast was imported whose optional dependency is missing."""

    code = "HF400"

    def __init__(self, package: str, extra: str) -> None:
        """Name the missing package and the extra that brings it."""
        super().__init__(
            f"this part of holdfast needs the package {package!r}, which is not installed: "
            f"pip install 'holdfast[{extra}]'"
        )
        self.package = package
        self.extra = extra


class DirectoryInUseError(HoldfastError):
    """Another process saves to this directory: nothing in it was touched.

    Attributes:
        path: the directory.
        run, host, pid, since: who has it: the run's identifier, the machine, the process there, and since when
            (ISO 8601 in UTC); "" for what could not be read.

    """

    code = "HF500"

    def __init__(self, path: str, run: str = "", host: str = "", pid: str = "", since: str = "") -> None:
        """Name the directory and who has it."""
        super().__init__(path, run, host, pid, since)
        self.path, self.run, self.host, self.pid, self.since = path, run, host, pid, since

    def __str__(self) -> str:
        """Say what happened, who has the directory, and what to do."""
        run = f" {self.run}" if self.run else ""
        who = f"process {self.pid or '?'} on host {self.host or '?'}, since {self.since or '?'}"
        return (
            f"the directory {self.path} belongs to another run{run}, which is alive: {who}. Two runs in one directory "
            "would take each other's names and remove each other's checkpoints. Give this one a directory of its "
            "own, or end the other one first; nothing was touched. If these are ranks of one run, set up "
            "torch.distributed before the Checkpointer"
        )


class RankError(HoldfastError):
    """One of several ranks failed, is gone, or does something else than the others.

    Attributes:
        rank: which, from 0; -1 where that is not known.

    """

    code = "HF600"

    def __init__(self, message: str, *, rank: int = -1) -> None:
        """Keep which rank it was."""
        super().__init__(message)
        self.rank = rank
