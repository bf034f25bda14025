"""A small disk of its own, that can be filled and emptied."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess

_BLOCK = 1 << 14


class NoDiskError(Exception):
    """No small disk can be made here."""


class SmallDisk:
    """An ext4 filesystem in a file, mounted for the length of a ``with`` block: needs root.

    Attributes:
        folder: where it is mounted.

    """

    def __init__(self, place, megabytes):
        self.image = os.path.join(place, "disk.img")
        self.folder = os.path.join(place, "disk")
        self._ballast = os.path.join(self.folder, "ballast")
        self._megabytes = megabytes

    def __enter__(self):
        os.mkdir(self.folder)
        with open(self.image, "wb") as file:
            file.truncate(self._megabytes << 20)
        _must("mkfs.ext4", "-q", "-F", "-m", "0", self.image)
        _must("mount", "-o", "loop", self.image, self.folder)
        return self

    def __exit__(self, *reason):
        _must("umount", "--lazy", self.folder)
        os.unlink(self.image)

    def fill(self, leave):
        """Take all blocks but about so many bytes."""
        block = bytes(_BLOCK)
        with open(self._ballast, "ab", buffering=0) as file:
            try:
                while self.free > leave:
                    file.write(block)
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def empty(self):
        """Give them back."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._ballast)

    @property
    def free(self):
        """Bytes that can be written."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    @property
    def inodes(self):
        """Files and folders that are there."""
        found = os.statvfs(self.folder)
        return found.f_files - found.f_ffree

    @property
    def used(self):
        """Bytes that are taken, the ballast's left out."""
        found = os.statvfs(self.folder)
        with contextlib.suppress(FileNotFoundError):
            return (found.f_blocks - found.f_bfree) * found.f_frsize - os.stat(self._ballast).st_blocks * 512
        return (found.f_blocks - found.f_bfree) * found.f_frsize


def _must(command, *arguments):
    found = shutil.which(command)
    if found is None or os.geteuid() != 0:
        message = f"a small disk needs root and {command}: run this as root where mkfs.ext4 and mount are installed"
        raise NoDiskError(message)
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{command} {' '.join(arguments)} failed: {done.stderr.strip()}"
        raise NoDiskError(message)
