"""The instruments themselves: each fault of the proxy is seen by a client as what it says it is."""

from __future__ import annotations

import hashlib
import secrets

import pytest

from tests.support import proxy_faults as faults
from tests.support.proxy import Proxy

pytest.importorskip("botocore")
pytestmark = pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning")


@pytest.fixture(scope="module")
def running(s3):
    with Proxy(s3.endpoint) as between:
        yield between


@pytest.fixture
def proxy(running):
    yield running
    running.no_rules()


@pytest.fixture(scope="module")
def client(s3, running):
    """botocore's client, which tries everything once."""
    import botocore.config
    import botocore.session

    config = botocore.config.Config(
        retries={"total_max_attempts": 1},
        read_timeout=1,
        s3={"addressing_style": "path"},
        response_checksum_validation="when_required",
    )
    made = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=running.endpoint,
        aws_access_key_id=s3.key,
        aws_secret_access_key=s3.secret,
        region_name="us-east-1",
        config=config,
    )
    yield made
    made.close()


@pytest.fixture
def there(s3, client):
    """Where an object of 3,000 bytes is."""
    where = {"Bucket": s3.bucket, "Key": f"proxy-{secrets.token_hex(4)}/x"}
    client.put_object(Body=b"x" * 3000, **where)
    return where


def read(client, there):
    return client.get_object(**there)["Body"].read()


def keys(client, there):
    found = client.list_objects_v2(Bucket=there["Bucket"], Prefix=there["Key"])
    return [item["Key"] for item in found.get("Contents", [])]


def test_without_rules_it_is_not_there(client, proxy, there):
    """Requests of all kinds come and go as without a proxy, and each is counted by what it is."""
    with proxy.watched() as counts:
        assert read(client, there) == b"x" * 3000
        upload = client.create_multipart_upload(**there)["UploadId"]
        part = client.upload_part(UploadId=upload, PartNumber=1, Body=b"y" * 4000, **there)["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
        client.complete_multipart_upload(UploadId=upload, MultipartUpload=parts, **there)
        assert client.head_object(**there)["ContentLength"] == 4000
        assert keys(client, there) == [there["Key"]]
        client.copy_object(CopySource=there, Bucket=there["Bucket"], Key=there["Key"] + "2")
        client.delete_objects(Bucket=there["Bucket"], Delete={"Objects": [{"Key": there["Key"]}]})
        assert keys(client, there) == [there["Key"] + "2"]
    once = ("get", "begin", "part", "complete", "head", "copy", "remove")
    assert counts == {**dict.fromkeys(once, 1), "list": 2}


@pytest.mark.parametrize("fault", [faults.refuse(), faults.expired()], ids=["503", "expired"])
def test_refusals(client, proxy, there, fault):
    """A refused request is answered with the error's code, was not done, and the next is."""
    from botocore.exceptions import ClientError

    rule = proxy.rule(fault, kinds={"put"}, times=1)
    with pytest.raises(ClientError, match=r"SlowDown|ExpiredToken"):
        client.put_object(Body=b"new", **there)
    assert read(client, there) == b"x" * 3000
    client.put_object(Body=b"new", **there)
    assert read(client, there) == b"new"
    assert rule.hits == 1


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        (faults.reset_request(100), False),
        (faults.hang(done=True), True),
        (faults.swallow(), True),
    ],
    ids=["reset", "hang", "swallow"],
)
def test_no_answer(client, proxy, there, fault, done):
    """A broken, hanging or swallowed request is an error of the connection; whether it was done is as it says."""
    from botocore.exceptions import HTTPClientError

    proxy.rule(fault, kinds={"put"})
    with pytest.raises(HTTPClientError):
        client.put_object(Body=b"n" * 3000, **there)
    assert read(client, there) == (b"n" if done else b"x") * 3000


def test_wrong_answers(client, proxy, there):
    """Answers are cut with and without a word, and altered, at the byte that was said."""
    from botocore.exceptions import BotoCoreError

    proxy.rule(faults.truncate(10), kinds={"get"}, times=1)
    proxy.rule(faults.flip(2), kinds={"get"}, times=1)
    proxy.rule(faults.reset_answer(10), kinds={"get"}, times=1)
    assert read(client, there) == b"x" * 10
    assert read(client, there) == b"xxh" + b"x" * 2997
    with pytest.raises((BotoCoreError, OSError)):
        read(client, there)
    assert read(client, there) == b"x" * 3000


def test_a_request_is_spoiled(client, proxy, there):
    """A byte of a request reaches the server wrong: it refuses that or, as rclone does, keeps it; the ETag tells."""
    from botocore.exceptions import ClientError

    meant, came = b"n" * 3000, b"nn~" + b"n" * 2997
    proxy.rule(faults.spoil_request(2), kinds={"put"})
    try:
        etag = client.put_object(Body=meant, **there)["ETag"].strip('"')
    except ClientError:
        assert read(client, there) == b"x" * 3000
    else:
        assert read(client, there) == came
        assert etag == hashlib.md5(came, usedforsecurity=False).hexdigest()


def test_stale_listings(client, proxy, there):
    """An object is missing in listings until so many requests have passed, and can be read all the while."""
    proxy.rule(faults.stale(3), kinds={"list"})
    assert keys(client, there) == []
    assert read(client, there) == b"x" * 3000
    assert keys(client, there) == []
    assert keys(client, there) == [there["Key"]]


def test_rules_are_the_same_in_each_run():
    """Which requests a rule takes by its dice is decided by the seed."""
    from holdfast.testing.faults import Rules
    from holdfast.testing.objects import Request

    def taken(seed):
        rules = Rules()
        rules.rule("fault", chance=0.3, seed=seed)
        return [number for number in range(50) if rules.fault_for(Request(number, "put", "x"))]

    assert taken(1) == taken(1) != taken(2)
    assert 5 < len(taken(1)) < 25
