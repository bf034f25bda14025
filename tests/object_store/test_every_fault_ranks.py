"""The table of faults for a sharded save of two ranks, which agree on what has become of it."""

from __future__ import annotations

import os
import random
import secrets

import pytest
import torch
import torch.distributed.checkpoint as dcp

import holdfast
from holdfast.dcp import StorageReader
from tests.object_store.test_every_fault_s3 import CASES
from tests.support.ranks import run_ranks

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SAMPLE = int(os.environ.get("FAULTS_OF_RANKS", "20"))  # of 80: each takes seconds
JOB = "tests.object_store.jobs_ranks:saved"


def value_of(url):
    into = {"w0": torch.zeros(2000), "w1": torch.zeros(2000), "n": 0}
    dcp.load(into, storage_reader=StorageReader(f"{url}/x.ckpt"), no_dist=True)
    assert {*into["w0"].tolist(), *into["w1"].tolist()} == {float(into["n"])}, "a mixture of two saves"
    return into["n"]


def save(s3, proxied, url, value, patience="30"):
    """Save by two ranks; return what they were told."""
    return run_ranks(2, JOB, s3.behind(proxied).options, patience, url, value)


def test_some_faults_of_two_ranks(s3, proxied, capsys):
    """A bundle of two ranks is the old or the new one, whole, whatever fails; both ranks are told, and truly."""
    url = f"s3://bucket/{secrets.token_hex(4)}"
    assert save(s3, proxied, url, 1) == ["", ""]
    before = len(proxied.asked)
    assert save(s3, proxied, url, 2) == ["", ""]
    asked = proxied.asked[before:]
    points = [
        (case, skip) for case in CASES for skip in range(sum(not case.kinds or one.kind in case.kinds for one in asked))
    ]
    now, told = 2, 0
    for value, (case, skip) in enumerate(random.Random(7).sample(points, min(SAMPLE, len(points))), 3):  # noqa: S311
        proxied.rule(case.fault, kinds=case.kinds, skip=skip, times=case.times)
        errors = save(s3, proxied, url, value, case.patience)
        proxied.no_rules()
        found = value_of(url)
        where = f"{case.name} at request {skip + 1}: {errors}, {found}"
        assert found in (now, value), where
        assert bool(errors[0]) == bool(errors[1]), where
        if not errors[0]:
            assert found == value, where
        else:
            assert not case.harmless, where
            assert all("x.ckpt" in error for error in errors), where
            certain = ["before is untouched" in error for error in errors]
            assert any(certain) or all("before is whole" in error for error in errors), where
            assert found == now or not any(certain), where
        for item in holdfast.catalog(url):
            holdfast.verify(item.path)
        now, told = found, told + bool(errors[0])
    with capsys.disabled():
        print(f"\n{len(asked)} requests, {value - 2} runs of {len(points)}, {told} told")  # noqa: T201
