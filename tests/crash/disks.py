"""Real filesystems whose power can be cut: an image of a disk, mounted, and shut down in the middle of what it does."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess

_SHUTDOWN = 0x8004587D  # linux/fs.h: FS_IOC_SHUTDOWN
_WITHOUT_THE_LOG = 2  # what has not reached the journal on the disk is lost
_SIZES = {"ext4": 64 << 20, "xfs": 320 << 20}  # the least that mkfs takes, with room


class Disk:
    """A filesystem in a file."""

    def __init__(self, kind, folder):
        self.place = os.path.join(folder, "mounted")
        self._image = os.path.join(folder, f"{kind}.image")
        self._mounted = False
        os.makedirs(self.place)
        with open(self._image, "wb") as file:
            file.truncate(_SIZES[kind])
        _call(f"mkfs.{kind}", "-q", self._image)
        self.mount()

    def mount(self):
        _call("mount", "-o", "loop", self._image, self.place)
        self._mounted = True  # what is shut down cannot be asked

    def unmount(self):
        """Take it away, whatever state it is in."""
        if self._mounted:
            _call("umount", self.place)
        self._mounted = False

    def restart(self):
        """Come back after the cut, as the next boot would: the journal is replayed."""
        self.unmount()
        self.mount()

    def new_folder(self, name):
        """Make a folder that is durable, and make what was there before it go."""
        for old in os.listdir(self.place):
            if old != "lost+found":
                shutil.rmtree(os.path.join(self.place, old))
        path = os.path.join(self.place, name)
        os.mkdir(path)
        _call("sync", "-f", path)
        return path


def cut(path):
    """Cut the power of the filesystem that holds a path: nothing more reaches it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_THE_LOG))
    finally:
        os.close(descriptor)


def why_not(kind, folder):
    """Why there can be no such disk here; "" if there can."""
    missing = [tool for tool in (f"mkfs.{kind}", "mount", "umount") if shutil.which(tool) is None]
    if missing:
        return f"no {missing[0]} here (apt-get install {'xfsprogs' if kind == 'xfs' else 'e2fsprogs mount'})"
    try:
        disk = Disk(kind, folder)
    except subprocess.CalledProcessError as error:
        return f"no disk can be mounted here, for which one has to be root: {error.stderr.strip()}"
    try:
        cut(disk.place)
    except OSError as error:
        return f"the filesystem cannot be shut down here: {error}"
    finally:
        disk.unmount()
    return ""


def _call(*command):
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
