"""What the table of faults has found, each in a small test of its own."""

from __future__ import annotations

import contextlib
import json
import random
import secrets

import pytest
import torch

import holdfast
from holdfast import Checkpointer
from holdfast.front.failures import Failures
from holdfast.storage import is_in_doubt, open_store
from holdfast.storage.marks import marked
from holdfast.storage.remote import RemoteStore, retrying
from holdfast.storage.remote import parts as cutting
from holdfast.storage.remote.claims import claim
from holdfast.storage.remote.objects import PartRules
from holdfast.storage.remote.s3 import S3Objects
from holdfast.testing import FaultyObjects, wrapping
from holdfast.testing import object_faults as faults
from tests.support import proxy_faults
from tests.support.bucket import Bucket

URL = "memory://bucket/run"


@pytest.fixture
def faulty():
    bucket = Bucket()
    made = FaultyObjects(bucket)
    with wrapping(lambda _: FaultyObjects(bucket, like=made)):
        yield made


def test_a_busy_server_draws_nothing_from_the_dice_of_the_script(monkeypatch):
    """Pauses between tries are random, and leave Python's seeded generator, and so the training, as it was."""
    pauses = []
    monkeypatch.setattr(retrying, "_FIRST", 0.2)
    faulty = FaultyObjects(Bucket())
    objects = retrying.Retrying(faulty, retrying.Patience(60, pauses.append))
    faulty.rule(faults.refused(), times=6)
    random.seed(7)
    before = random.getstate()
    objects.put("b/x", b"x")
    assert random.getstate() == before
    assert len(set(pauses)) == 6
    assert all(0 <= pause <= 10 for pause in pauses)


def test_a_name_that_cannot_be_looked_for_is_a_save_that_fails(faulty):
    """Where the server does not say whether a name is free nothing is written, which is told; training goes on."""
    with Checkpointer(URL, model=torch.nn.Linear(1, 1), every_n_train_steps=1, save_top_k=-1) as ckpt:
        ckpt.step()
        ckpt.wait()
        faulty.rule(faults.refused(), kinds={"head"})
        with pytest.warns(
            UserWarning, match=f"not saved in {URL}: it could not be seen whether its name is free: .*503"
        ):
            ckpt.step()
        with pytest.raises(holdfast.SaveError, match="503 SlowDown"):
            ckpt.save_checkpoint()
        faulty.no_rules()
        ckpt.step()
    assert [item.step for item in holdfast.catalog(URL)] == [3, 1]


@pytest.mark.parametrize("raises", [False, True])
def test_failures_to_look_are_counted(faulty, raises):
    """A look that fails counts as any failed save does: the last that may fail in a row is raised."""
    words = {"on_error": "raise"} if raises else {"max_failures": 2}
    ckpt = Checkpointer(URL, model=torch.nn.Linear(1, 1), every_n_train_steps=1, **words)
    faulty.rule(faults.refused(), kinds={"head"})
    if not raises:
        with pytest.warns(UserWarning, match="failure 1 of 2"):
            ckpt.step()
    with pytest.raises(holdfast.SaveError, match="503 SlowDown"):
        ckpt.step()


@pytest.mark.parametrize("conditions", [True, False])
def test_a_claim_that_could_not_be_removed_is_no_rival_here(conditions):
    """A claim given up while the server was away does not keep the same process from the prefix."""
    bucket = Bucket(conditions=conditions)
    faulty = FaultyObjects(bucket)
    mine = claim(faulty, "bucket/run", URL, run="r", since="")
    faulty.rule(faults.refused(), kinds={"remove"})
    mine.give_up()
    faulty.no_rules()
    assert [found.key for found in bucket.list("bucket/run/")]
    claim(faulty, "bucket/run", URL, run="other", since="").give_up()


def _bundle(store, name, value):
    draft = store.draft(name)
    data = marked(f"x{value}.distcp", draft.mark)
    try:
        store.put(f"{name}/{data}", (b"%d" % value,))
        draft.add(".metadata", b"of %d" % value)
        draft.add("holdfast.manifest", json.dumps([data, ".metadata"]).encode())
        draft.settle({data: 1})
    finally:
        draft.drop()
    return data


def _whole(store, name):
    """The files that the seal names are there; return what the small one says."""
    for file in json.loads(store.read(f"{name}/holdfast.manifest", 0, 1000)):
        assert store.size(f"{name}/{file}")
    return store.read(f"{name}/.metadata", 0, 100)


@pytest.mark.parametrize("changes", [1, 2, 3, 4])
@pytest.mark.parametrize("times", [1, None])
def test_a_listing_that_lags_harms_no_bundle(faulty, changes, times):
    """Whatever listings show, the bundle that is there stays whole, or is replaced by another that is."""
    store = open_store(URL)
    _bundle(store, "x.ckpt", 1)
    for skip in range(4):
        faulty.no_rules()
        before = _whole(store, "x.ckpt")
        faulty.rule(faults.lagging(changes), kinds={"list"}, skip=skip, times=times)
        for act in (lambda value=skip + 2: _bundle(store, "x.ckpt", value), lambda: store.link("x.ckpt", "y.ckpt")):
            with contextlib.suppress(OSError):
                act()
        faulty.no_rules()
        assert _whole(store, "x.ckpt") in (before, b"of %d" % (skip + 2))
        if store.exists("y.ckpt"):
            _whole(store, "y.ckpt")


@pytest.mark.parametrize("fault", [faults.short(3), faults.flipped(5), faults.flipped(12)])
def test_wrong_bytes_are_neither_copied_nor_gone_by(faulty, fault):
    """A small file that is read wrong makes no copy that is wrong, and no sweep that removes what is committed."""
    store = open_store(URL)
    _bundle(store, "x.ckpt", 1)
    for skip in range(3):
        rule = faulty.rule(fault, kinds={"get"}, skip=skip, times=1)
        with contextlib.suppress(ConnectionError):
            store.link("x.ckpt", "y.ckpt")
        store.sweep()
        faulty.no_rules()
        assert rule.seen
        assert _whole(store, "x.ckpt") == b"of 1"
        if store.exists("y.ckpt"):
            assert _whole(store, "y.ckpt") == b"of 1"
            store.remove("y.ckpt")


class _Plain(Bucket):
    """A server whose objects have the MD5 of their bytes as etag, however they were made, as rclone's."""

    def complete(self, key, upload, etags, *, absent=False):
        super().complete(key, upload, etags, absent=absent)
        return self.put(key, self.get(key, 0, 1 << 30))


def test_a_lost_answer_to_the_end_of_an_upload_where_etags_tell_nothing(monkeypatch):
    """What was made is recognised by its bytes; what the server has forgotten instead is sent once more."""
    monkeypatch.setattr(cutting, "PART", 1000)
    monkeypatch.setattr(cutting, "_ROUND", 1)
    bucket = _Plain()
    faulty = FaultyObjects(bucket)
    objects = retrying.Retrying(faulty, retrying.Patience(60, lambda _: None))
    store = RemoteStore(URL, "bucket/run", objects)
    faulty.rule(faults.lost(), kinds={"complete"}, times=1)
    data = bytes(range(250)) * 14
    assert store.put("x", (data,)) == 3500
    assert bucket.get("bucket/run/x", 0, 5000) == data

    def vanish(request, go):
        del go
        bucket.abort(request.key, bucket.uploads(request.key)[0].id)
        raise ConnectionResetError("the server has forgotten the upload")

    faulty.rule(vanish, kinds={"complete"}, times=1)
    assert store.put("x", (data[::-1],)) == 3500
    assert bucket.get("bucket/run/x", 0, 5000) == data[::-1]


@pytest.mark.parametrize("after", [faults.expired(), faults.refused(lambda: OSError("400 InvalidRequest"))])
def test_a_lost_answer_and_then_a_refusal_is_told_as_uncertain(faulty, after, monkeypatch):
    """What an earlier try may have done is not said to be undone, however the last one was refused; and it is there."""
    monkeypatch.setenv("HOLDFAST_PATIENCE", "30")
    with Checkpointer(URL, model=torch.nn.Linear(1, 1), save_top_k=-1, on_error="raise") as ckpt:
        ckpt.step()
        ckpt.save_checkpoint()
        ckpt.step()
        faulty.rule(faults.lost(), kinds={"put"}, key=r"ckpt$", times=1)
        faulty.rule(after, kinds={"put"}, key=r"ckpt$", times=1)
        with pytest.raises(holdfast.SaveError, match=r"(Expired|Invalid).*so is this one, if it should be there after"):
            ckpt.save_checkpoint()
    assert [item.step for item in holdfast.catalog(URL)] == [2, 1]


def test_a_refusal_alone_is_told_as_certain(faulty):
    """Where every try was refused nothing is there, and the error says so."""
    with Checkpointer(URL, model=torch.nn.Linear(1, 1), save_top_k=-1, on_error="raise") as ckpt:
        ckpt.step()
        faulty.rule(faults.expired(), kinds={"put"}, key=r"ckpt$", times=1)
        with pytest.raises(holdfast.SaveError, match="What was committed before is untouched"):
            ckpt.save_checkpoint()
    with pytest.raises(holdfast.CheckpointNotFoundError):
        holdfast.open(URL)


def test_a_fetch_that_ends_in_the_middle_leaves_what_the_next_save_does_not_replace(faulty, tmp_path):
    """The mirror's ranked name comes first, with what is said of it, and ``last`` after it: the best stays here."""
    words = {"monitor": "loss", "save_top_k": 1, "save_last": True, "mirror": URL}
    with Checkpointer(tmp_path / "gone", model=torch.nn.Linear(1, 1), **words) as ckpt:
        ckpt.step()
        ckpt.end_epoch({"loss": 1.0})
    holdfast.open(f"{URL}/epoch=0-step=1.ckpt").pin()

    def fetched():
        with Checkpointer(tmp_path / "here", model=torch.nn.Linear(1, 1), **words) as ckpt:
            start = ckpt.resume()
            ckpt.step()
            ckpt.end_epoch({"loss": 2.0})
        return start.step

    faulty.rule(faults.expired(), kinds={"head"}, key=r"ckpt\.sig$", times=1)
    with pytest.raises(holdfast.LoadError, match="could not be fetched"):
        fetched()
    faulty.no_rules()
    assert fetched() == 1
    here = {item.step: item for item in holdfast.catalog(tmp_path / "here")}
    assert here.keys() == {1, 2}
    assert here[1].pinned


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_tag_that_came_too_late_takes_no_pin_away(faulty, tmp_path, where):
    """A name that means another save by now is not noted, and what is said of its old save under another name stays."""
    place = URL if where == "there" else str(tmp_path)
    with Checkpointer(place, model=torch.nn.Linear(1, 1), monitor="loss", save_top_k=-1, save_last=True) as ckpt:
        ckpt.step()
        ckpt.end_epoch({"loss": 1.0})
        ckpt.wait()
        holdfast.open(f"{place}/epoch=0-step=1.ckpt").pin()
        old = holdfast.open(f"{place}/last.ckpt")
        ckpt.step()
        ckpt.end_epoch({"loss": 2.0})
        ckpt.wait()
    with pytest.raises(holdfast.CheckpointNotFoundError, match="another checkpoint has taken its name"):
        old.tag("good")
    pinned = holdfast.open(f"{place}/epoch=0-step=1.ckpt")
    assert pinned.pinned
    assert pinned.tags == ()


def test_an_object_in_parts_that_cannot_be_looked_at_after_its_end(proxied, monkeypatch):
    """Where only the look after the end of an upload was refused the object is there, and no error says it is not."""
    monkeypatch.setattr(S3Objects, "parts", property(lambda _: PartRules(least=1)))
    monkeypatch.setattr(cutting, "PART", 1000)
    monkeypatch.setattr(cutting, "_ROUND", 1)
    store = open_store(f"s3://bucket/{secrets.token_hex(4)}")
    proxied.rule(proxy_faults.expired(), kinds={"head"}, key=r"/x$")
    with pytest.raises(OSError, match="400") as told:
        store.put("x", (b"x" * 3500,))
    proxied.no_rules()
    assert is_in_doubt(told.value)
    assert store.size("x") == 3500


@pytest.mark.parametrize(("cause", "lost"), [(ConnectionResetError("no answer"), False), (PermissionError(), True)])
def test_the_end_calls_lost_only_what_is(cause, lost):
    """Of the last save of a training, which may be there all the same, the warning does not say that it is lost."""
    error = holdfast.SaveError("the checkpoint s3://b/x was not saved")
    error.__cause__ = cause
    told = Failures("warn", 3, ending=True).judge(error, spared=False)
    assert ("and this state is not saved" in told) == lost
    assert "Training has ended" in told
