"""Every verb of the command at URLs: the same exit codes, and the same effects, as in a local directory."""

from __future__ import annotations

import json
import secrets
import warnings

import fsspec
import pytest
import torch

from holdfast import Checkpointer
from holdfast.cli.main import VERBS, main


@pytest.fixture(params=["local", "memory", "s3"])
def place(request, tmp_path):
    """A directory with a run of four checkpoints, of which 4 is the best."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    homes = {"local": str(tmp_path / "run"), "memory": "memory://", "s3": "s3://bucket/"}
    url = homes[request.param]
    url += "" if request.param == "local" else secrets.token_hex(4)
    words = {"save_top_k": -1, "monitor": "loss", "filename": "{step}", "auto_insert_metric_name": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Checkpointer(url, model=torch.nn.Linear(2, 1), every_n_train_steps=1, async_save=False, **words) as ckpt:
            for step in range(4):
                ckpt.step({"loss": 4.0 - step})
    yield url
    fsspec.filesystem("memory").store.clear()


def test_every_verb(place, tmp_path, capsys):
    """Each does there what it does here; ``completion`` and ``plan`` alone know no places."""
    used = {"completion", "plan"}

    def does(*argv, code=0):
        used.add(argv[0])
        assert main([*argv]) == code, "".join(capsys.readouterr())
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in argv else out

    def names():
        return [item["path"].rpartition("/")[2] for item in does("ls", place, "--json")]

    key = str(tmp_path / "key")
    does("keygen", key)
    assert does("best", place).strip() == does("last", place).strip() == f"{place}/4.ckpt"
    assert "4.0" not in does("show", f"{place}/2.ckpt")
    assert "whole" in does("verify", place)
    does("pin", f"{place}/1.ckpt")
    does("tag", f"{place}/2.ckpt", "paper")
    does("note", f"{place}/2.ckpt", "the one of the paper")
    does("metric", f"{place}/2.ckpt", "bleu=20")
    shown = does("show", f"{place}/2.ckpt")
    assert all(text in shown for text in ("paper", "the one of the paper", "bleu"))
    does("sign", f"{place}/2.ckpt", "--key", key)
    does("verify", f"{place}/2.ckpt", "--key", f"{key}.pub")
    does("verify", f"{place}/3.ckpt", "--key", f"{key}.pub", code=1)
    does("diff", f"{place}/1.ckpt", f"{place}/2.ckpt")
    does("average", f"{place}/1.ckpt", f"{place}/2.ckpt", "--out", f"{place}/mean.ckpt")
    does("export", f"{place}/2.ckpt", f"{place}/weights/model.safetensors")
    does("import", f"{place}/weights/model.safetensors", f"{place}/again.ckpt")
    does("cp", f"{place}/2.ckpt", f"{place}-copy/2.ckpt")
    does("cp", place, str(tmp_path / "all"))
    assert (tmp_path / "all" / "4.ckpt").exists()
    does("doctor", f"{place}-copy")
    if "sync" in VERBS:
        does("sync", place, f"{place}-synced")
        does("verify", f"{place}-synced")
    before = names()
    does("prune", place, "--keep", "Latest(1)")
    assert names() == before
    does("prune", place, "--keep", "Latest(1)", "--yes")
    assert {"1.ckpt", "4.ckpt"} <= set(names())
    assert not {"2.ckpt", "3.ckpt"} & set(names())
    does("unpin", f"{place}/1.ckpt")
    does("prune", place, "--keep", "Latest(1)", "--yes")
    assert "1.ckpt" not in names()
    does("show", f"{place}/1.ckpt", code=3)
    does("ls", f"{place}/nothing", code=3)
    assert used == set(VERBS)


@pytest.mark.parametrize("verb", ["ls", "verify", "show", "prune", "doctor"])
def test_a_bucket_that_is_not_there(verb, s3, capsys):
    """Every verb says so by the exit code for what is not there; the server's own word for it is no code of ours."""
    assert main([verb, "--json", f"s3://{secrets.token_hex(8)}/run"]) == 3
    said = json.loads(capsys.readouterr().out)["error"]
    assert (said["exit_code"], said["code"]) in ((3, ""), (3, "HF310"))
    assert "NoSuchBucket" in said["message"]
