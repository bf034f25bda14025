"""A Ceph of one node with its S3 gateway on this machine, that tests start, kill and start again.

Needs the daemons: ``apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-mgr ceph-common``.
Takes some 20 s and 700 MB to start; its disk is a sparse file of 6 GB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid

from tests.support.s3 import BUCKET, KEY, SECRET, Server, free_port, wait_for

NEEDED = ("ceph-mon", "ceph-osd", "ceph-mgr", "radosgw", "radosgw-admin", "monmaptool", "ceph")
DISK = 6 << 30
CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{mon}/0]
auth cluster required = none
auth service required = none
auth client required = none
auth supported = none
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
pid file = {folder}/run/$name.pid
log file = {folder}/log/$name.log
mon cluster log file = {folder}/log/cluster.log
crash dir = {folder}/run
setuser match path =
mon data = {folder}/mon
mgr data = {folder}/mgr
osd data = {folder}/osd
osd objectstore = bluestore
bluestore block size = {disk}
bluestore fsck on mount = false
osd memory target = 939524096
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw multipart min part size = 5242880
"""


def why_no_ceph():
    """Say what is missing for a Ceph; "" if nothing is."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"no {', '.join(missing)}" if missing else ""


class Ceph(Server):
    """``kill`` is ``kill -9`` of the gateway, ``kill_disk`` of the process that has the disk; ``close`` ends all."""

    def __init__(self, folder):
        self.folder = os.fspath(folder)
        self.port = free_port()
        self._running = {}
        super().__init__(f"http://127.0.0.1:{self.port}")

    @property
    def killable(self):
        return True

    def start(self):
        """Return when the gateway takes connections; the first time everything is made."""
        if "osd" not in self._running:
            self._make()
        self._daemon("radosgw", "radosgw", "-n", "client.rgw")
        wait_for(self.port, self._running["radosgw"], 60)
        return self

    def kill(self):
        self._kill("radosgw")

    def restart(self):
        self.kill()
        self.start()

    def kill_disk(self):
        self._kill("osd")

    def start_disk(self):
        """Start it; requests that came meanwhile are answered when it is back."""
        self._daemon("osd", "ceph-osd", "-i", "0")

    def unfinished(self):
        """None: an object is replaced in one step."""
        return 0

    def close(self):
        for name in [*self._running]:
            self._kill(name)

    def _make(self):
        for name in ("mon", "osd", "mgr", "run", "log"):
            os.makedirs(os.path.join(self.folder, name))
        words = {"fsid": uuid.uuid4(), "mon": free_port(), "folder": self.folder, "port": self.port, "disk": DISK}
        with open(self._conf, "w") as file:
            file.write(CONFIGURATION.format(**words))
        address = f"[v1:127.0.0.1:{words['mon']}]"
        self._do(
            "monmaptool", "--create", "--fsid", str(words["fsid"]), "--addv", "a", address, f"{self.folder}/monmap"
        )
        self._do("ceph-mon", "-i", "a", "--mkfs", "--monmap", f"{self.folder}/monmap")
        self._daemon("mon", "ceph-mon", "-i", "a")
        disk = str(uuid.uuid4())
        self._do("ceph", "osd", "new", disk)
        self._do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self.start_disk()
        self._daemon("mgr", "ceph-mgr", "-i", "x")
        user = ["user", "create", "--uid=test", "--display-name=test", f"--access-key={KEY}", f"--secret={SECRET}"]
        self._do("radosgw-admin", *user, patience=300)
        self._daemon("radosgw", "radosgw", "-n", "client.rgw")
        wait_for(self.port, self._running["radosgw"], 60)
        import s3fs

        s3fs.S3FileSystem(skip_instance_cache=True, **self.options).makedirs(BUCKET, exist_ok=True)
        self._kill("radosgw")

    @property
    def _conf(self):
        return os.path.join(self.folder, "ceph.conf")

    def _do(self, program, *arguments, patience=60):
        """Run a program to its end, again as long as the cluster is not ready for it."""
        until = time.monotonic() + patience
        while True:
            command = [program, "-c", self._conf, *arguments] if program != "monmaptool" else [program, *arguments]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
            except subprocess.TimeoutExpired as error:
                msg = f"{' '.join(command)} took too long"
                raise RuntimeError(msg) from error
            if done.returncode == 0:
                return
            if time.monotonic() > until:
                msg = f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}"
                raise RuntimeError(msg)
            time.sleep(0.5)

    def _daemon(self, name, program, *arguments):
        with open(os.path.join(self.folder, "log", f"{name}.out"), "a") as log:
            command = [program, "-c", self._conf, *arguments, "-f"]
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _kill(self, name):
        process = self._running.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()
