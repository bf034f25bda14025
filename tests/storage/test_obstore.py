"""The faster client reads what it can, and whatever it cannot the other one does."""

from __future__ import annotations

import http.client
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from holdfast.errors import ConfigurationError
from holdfast.storage import open_store
from holdfast.storage.options import remember
from holdfast.storage.remote.obstore_client import FastObjects

obstore = pytest.importorskip("obstore")
DATA = os.urandom(3 << 20)


class _Partial(BaseHTTPRequestHandler):
    """Passes GETs on, and answers ranges with the status that belongs to them: rclone says 200."""

    protocol_version = "HTTP/1.1"
    seen = None

    def do_GET(self):
        there = http.client.HTTPConnection(*self.server.behind)
        there.request("GET", self.path, headers=dict(self.headers))
        answer = there.getresponse()
        body = answer.read()
        self.send_response(206 if answer.getheader("Content-Range") else answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("date", "server", "transfer-encoding"):
                self.send_header(name, value)
        self.server.seen.append(self.headers.get("User-Agent", ""))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def partial_server(s3):
    from fsspec.config import conf

    host, _, port = conf["s3"]["client_kwargs"]["endpoint_url"].rpartition("//")[2].partition(":")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Partial)
    server.behind, server.seen = (host, int(port)), []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _store(url, **options):
    remember(url, {"client": "obstore", **options})
    try:
        return open_store(url)
    finally:
        remember(url, {})


def _read(store, name, start, length):
    memory = bytearray(length)
    return bytes(memory[: store.read_into(name, start, memoryview(memory))])


def test_ranges_come_by_obstore_with_the_other_clients_credentials(s3, partial_server, tmp_path):
    """Each range is the right one, also at the end, is asked for by obstore, and signed so that the server takes it."""
    url = f"s3://bucket/{tmp_path.name}"
    open_store(url).put("x", [DATA])
    endpoint = {"endpoint_url": f"http://127.0.0.1:{partial_server.server_port}"}
    store = _store(url, client_kwargs=endpoint)
    assert store.objects.client == "s3fs and obstore"
    for start, length in ((0, len(DATA)), (77, 1000), (len(DATA) - 5, 5)):
        assert _read(store, "x", start, length) == DATA[start : start + length]
    assert len(partial_server.seen) == 3
    assert all("object_store" in agent for agent in partial_server.seen)


def test_what_obstore_refuses_the_other_client_does(s3, tmp_path):
    """A server whose answers obstore refuses is read by the other client, and obstore is not asked for ever."""
    store = _store(f"s3://bucket/{tmp_path.name}")
    store.put("x", [DATA])
    for start, length in ((0, len(DATA)), (77, 1000), (len(DATA) - 5, 50), (len(DATA), 9)):
        assert _read(store, "x", start, length) == DATA[start : start + length]
    with pytest.raises(FileNotFoundError):
        _read(store, "y", 0, 9)
    assert store.objects.client == "s3fs"


def test_a_forked_child_reads_by_the_other_client(s3, partial_server, tmp_path):
    """A child of a process that has read by obstore, whose threads it lacks, reads all the same."""
    url = f"s3://bucket/{tmp_path.name}"
    store = _store(url, client_kwargs={"endpoint_url": f"http://127.0.0.1:{partial_server.server_port}"})
    open_store(url).put("x", [DATA])
    assert _read(store, "x", 5, 10) == DATA[5:15]
    child = os.fork()
    if not child:
        os._exit(0 if _read(store, "x", 5, 10) == DATA[5:15] else 1)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        threading.Event().wait(0.05)
    else:
        os.kill(child, 9)
        pytest.fail("the child hangs")
    assert status == 0


def test_options_that_obstore_is_not_told_of_are_refused(s3, tmp_path):
    """What would be ignored without a word is an error that names it, and not its value."""
    with pytest.raises(ConfigurationError, match="s3_additional_kwargs") as caught:
        _store(f"s3://bucket/{tmp_path.name}", s3_additional_kwargs={"SSECustomerKey": "sesame"})
    assert "sesame" not in str(caught.value)


def test_without_a_word_it_is_not_used(s3, tmp_path, monkeypatch):
    """The option and the environment choose it; else the other client does everything."""
    url = f"s3://bucket/{tmp_path.name}"
    assert not isinstance(open_store(url).objects, FastObjects)
    monkeypatch.setenv("HOLDFAST_CLIENT", "obstore")
    assert open_store(url).objects.client == "s3fs and obstore"
