"""What needs no server of Google's or Azure's: secrets in URLs and texts, errors, blocks."""

from __future__ import annotations

import fsspec
import pytest

from holdfast import ConfigurationError
from holdfast.storage import open_store
from holdfast.storage.options import remember
from holdfast.storage.remote import gcs
from holdfast.storage.remote.failures import translated
from holdfast.storage.remote.generic import FsspecObjects
from holdfast.storage.remote.redaction import redacted
from holdfast.storage.remote.retrying import Patience, Retrying, worth_another_try
from holdfast.storage.remote.uploading import upload_chunks

ODD = "c2VjcmV0+/Zm9y==AND%more"


@pytest.mark.parametrize("behind", ["sv=2021&sig={}", "X-Amz-Signature={}", "access_token={}"])
def test_a_signature_in_a_url_is_refused(behind):
    """A URL with a signature or a token behind it is an error that does not repeat it; a question mark is a name's."""
    with pytest.raises(ConfigurationError, match="sas_token") as caught:
        open_store("az://bucket/run?" + behind.format(ODD))
    assert ODD not in str(caught.value)
    assert open_store("memory://bucket/what?").root == "memory://bucket/what?"


@pytest.mark.parametrize(
    "text",
    [
        "connect with AccountName=me;AccountKey={};EndpointSuffix=x failed",
        "{} is refused",
        "GET /tokeninfo?access_token={} failed",
        "url: /x?sv=1&sig={}&sp=r",
    ],
)
def test_secrets_within_a_connection_string(text):
    """The key in a connection string is struck from every text, also as it stands in a URL."""
    from urllib.parse import quote

    remember("az://words", {"connection_string": f"AccountName=me;AccountKey={ODD};BlobEndpoint=http://x/me"})
    try:
        for one in (ODD, quote(ODD, safe="")):
            said = redacted(text.format(one))
            assert one not in said
            assert "***" in said
    finally:
        remember("az://words", {})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ServiceRequestError", ConnectionError),
        ("ServiceResponseError", ConnectionError),
        ("ServiceRequestTimeoutError", TimeoutError),
        ("CredentialUnavailableError", PermissionError),
        ("DefaultCredentialsError", PermissionError),
    ],
)
def test_errors_of_their_packages(name, kind):
    """A cut line and silence are worth another try, missing credentials are not."""
    made = translated(type(name, (Exception,), {})("said"), "put x")
    assert type(made) is kind
    assert worth_another_try(made) is (kind is not PermissionError)


@pytest.mark.parametrize("sizes", [[], [0], [5], [9, 0, 8, 3], [30], [8, 8], [7, 1, 1]])
def test_blocks(sizes, monkeypatch):
    """Whatever comes is sent in whole blocks, and the rest: no byte is lost, and none but the only one is empty."""
    monkeypatch.setattr(gcs, "_BLOCK", 8)
    data = bytes(range(sum(sizes)))
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    blocks = [*gcs._blocks(data[start : start + size] for start, size in zip(starts, sizes, strict=True))]
    assert b"".join(blocks) == data
    assert [len(one) for one in blocks[:-1]] == [8] * (len(blocks) - 1)
    assert len(blocks) == max(1, -(-len(data) // 8))


def test_a_small_object_is_tried_again_where_there_are_no_parts():
    """What comes as chunks and is small is sent as one, so that a server that fails once spoils nothing."""
    fails = [ConnectionError("busy"), TimeoutError("silent")]

    class Failing(FsspecObjects):
        def put(self, key, data, *, absent=False, match=""):
            if fails:
                raise fails.pop()
            return super().put(key, data, absent=absent, match=match)

    inner = Failing(fsspec.filesystem("memory"))
    objects = Retrying(inner, Patience(9, lambda _: None))
    gates = []
    head = upload_chunks(objects, "/tried/x.ckpt", iter([b"a", b"b"]), gate=lambda: gates.append(len(fails)))
    assert (head.size, gates, fails) == (2, [2], [])
    assert objects.get("/tried/x.ckpt", 0, 9) == b"ab"


def test_an_answer_that_was_cut_short():
    """Half of an answer is worth another try, and no error from inside."""
    with pytest.raises(ConnectionError, match="list x: the answer is no JSON: 4 bytes") as caught:
        gcs._parsed("list x", b'{"it')
    assert worth_another_try(caught.value)
    assert gcs._parsed("list x", b"{}") == {}
