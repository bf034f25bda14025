"""``storage_options``: how a server is reached, said at any front door; and that no secret is told or written."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import secrets
import subprocess
import sys
import traceback
import warnings

import fsspec
import pytest
import torch

import holdfast
from holdfast import Checkpointer, ConfigurationError, HoldfastError
from holdfast.cli.main import main
from holdfast.storage import StorageOptions, open_store, use_options
from tests.support.running import PYTHONPATH

ODD = "Sq7kXw0v+=%24&<odd>secret/"  # what URLs, HTML and JSON each write in their own way
# Each long enough that megabytes of random weights do not hold it by chance.
SPELLINGS = ("Sq7kXw0v+", "Sq7kXw0v%2B", "odd>secret", "odd&gt;secret", "odd%3Esecret", "testsecretkey")


@pytest.fixture
def server(s3):
    """What reaches the server, when fsspec's configuration no longer does."""
    conf = fsspec.config.conf
    given = conf.pop("s3")
    yield given
    conf["s3"] = given


def url_of():
    return f"s3://bucket/{secrets.token_hex(4)}/run"


def saved(url, **words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Checkpointer(url, model=torch.nn.Linear(2, 1), every_n_train_steps=1, async_save=False, **words) as ckpt:
            ckpt.step({"loss": 1.0})
    return f"{url}/epoch=0-step=1.ckpt"


def test_every_front_door_takes_them(server, tmp_path):
    """With nothing but ``storage_options`` a run is saved and read, by each function, and what lies beside is known."""
    url = url_of()
    path = saved(url, storage_options=server, save_top_k=-1)
    assert holdfast.load(path)["global_step"] == 1
    doors = [
        lambda at, **words: holdfast.load(f"{at}/epoch=0-step=1.ckpt", **words),
        lambda at, **words: holdfast.verify(f"{at}/epoch=0-step=1.ckpt", **words),
        lambda at, **words: holdfast.open(f"{at}/epoch=0-step=1.ckpt", **words),
        holdfast.catalog,
        holdfast.verify_all,
        holdfast.newest,
        holdfast.doctor,
        lambda at, **words: holdfast.prune(at, "Latest(1)", **words),
        lambda at, **words: holdfast.statistics(f"{at}/epoch=0-step=1.ckpt", **words),
        lambda at, **words: holdfast.tensor(f"{at}/epoch=0-step=1.ckpt", "weight", **words),
        lambda at, **words: holdfast.diff(*[f"{at}/epoch=0-step=1.ckpt"] * 2, **words),
        lambda at, **words: holdfast.copy(f"{at}/epoch=0-step=1.ckpt", tmp_path / "copy.ckpt", force=True, **words),
        lambda at, **words: holdfast.export(f"{at}/epoch=0-step=1.ckpt", tmp_path / "out", force=True, **words),
        lambda at, **words: holdfast.average([f"{at}/epoch=0-step=1.ckpt"] * 2, f"{at}/mean.ckpt", **words),
        lambda at, **words: holdfast.import_checkpoint(tmp_path / "out" / "model.safetensors", f"{at}/i.ckpt", **words),
    ]
    for number, door in enumerate(doors):
        place = url_of()
        fs = fsspec.filesystem("s3", **server)
        fs.copy(path.partition("://")[2], f"{place.partition('://')[2]}/epoch=0-step=1.ckpt")
        assert door(place, storage_options=server) is not None, number


def test_dcp_takes_them(server):
    """torch's own ``dcp.save`` and ``dcp.load`` reach a server by the options of our storage, and of a next place."""
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    from holdfast.dcp import StorageReader, StorageWriter

    writer = StorageWriter(f"{url_of()}/x.ckpt", storage_options=server)
    for number, url in enumerate((writer.checkpoint_id, f"{url_of()}/y.ckpt")):
        dcp.save({"weight": torch.full((3,), number)}, storage_writer=writer, checkpoint_id=url, no_dist=True)
        into = {"weight": torch.full((3,), 9)}
        dcp.load(into, storage_reader=StorageReader(url, storage_options=server), no_dist=True)
        assert into["weight"].tolist() == [number] * 3
    for kind in (StorageWriter, StorageReader):
        with pytest.raises(ConfigurationError, match=r"are for URLs .* none in \['runs/x'\]"):
            kind("runs/x", storage_options={"key": ODD})


WRONG = [
    ({"endpoint": "x"}, "s3://b/run", "'endpoint'.*did you mean 'endpoint_url'"),
    ({"zzzzz": ODD}, "s3://b/run", "'zzzzz'.*it takes .*client_kwargs"),
    ({"key": ODD}, "runs/x", r"are for URLs .* there is none in \['runs/x'\]$"),
    ({1: ODD}, "s3://b/run", "whose keys are names"),
    ([("key", ODD)], "s3://b/run", "is a dict .* got a list"),
    ({"client": "curl"}, "s3://b/run", "`client` is one of auto, fsspec, obstore"),
    ({"patience": -1}, "s3://b/run", "`patience` is a number of seconds"),
    ({"patience": True}, "s3://b/run", "`patience` is a number of seconds"),
]


@pytest.mark.parametrize(("options", "url", "message"), WRONG, ids=str)
def test_wrong_ones_are_told_of_without_their_values(options, url, message):
    """What cannot be meant is an error that names it and the cure; no value is in it."""
    pytest.importorskip("s3fs")
    for door in (holdfast.catalog, lambda at, **words: Checkpointer(at, model=torch.nn.Linear(1, 1), **words)):
        with pytest.raises(ConfigurationError, match=message) as caught:
            door(url, storage_options=options)
        assert ODD not in str(caught.value)


def test_the_longest_prefix_counts_and_they_do_not_show_themselves():
    """What was said of a run is for that run; a representation has the names alone, and survives a pickle."""
    use_options({"listings_expiry_time": 1.0, "use_listings_cache": False}, "memory://a/deep/run")
    assert "1.0" not in repr(StorageOptions({"listings_expiry_time": 1.0}))
    again = pickle.loads(pickle.dumps(StorageOptions({"key": ODD})))  # noqa: S301 - our own
    assert again == {"key": ODD}
    assert ODD not in f"{again} {again!r} {[again]}"


def test_the_command_takes_a_file(server, tmp_path, capsys):
    """``--storage-options FILE``: for the URLs given, or by prefix; a wrong file is exit code 2, untold."""
    url = url_of()
    saved(url, storage_options=server)
    place = url_of()
    fsspec.filesystem("s3", **server).copy(f"{url[5:]}/epoch=0-step=1.ckpt", f"{place[5:]}/epoch=0-step=1.ckpt")
    for given in (server, {place.rpartition("/")[0]: server}):
        (tmp_path / "options.json").write_text(json.dumps(given))
        assert main(["ls", place, "--storage-options", str(tmp_path / "options.json")]) == 0
        assert "epoch=0-step=1.ckpt" in capsys.readouterr().out
    for text in (f'{{"secret": "{ODD}"', f'["{ODD}"]', f'{{"sekret": "{ODD}"}}'):
        (tmp_path / "options.json").write_text(text)
        assert main(["ls", place, "--storage-options", str(tmp_path / "options.json")]) == 2
        assert ODD not in "".join(capsys.readouterr())
    assert main(["ls", place, "--storage-options", str(tmp_path / "none.json")]) == 2


MISSING = """
import sys
sys.modules[sys.argv[1]] = None
import holdfast
try:
    holdfast.catalog(sys.argv[2])
except holdfast.ConfigurationError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("package", "url", "extra"),
    [("s3fs", "s3://b/x", "s3"), ("gcsfs", "gs://b/x", "gcs"), ("adlfs", "az://b/x", "azure")],
)
def test_a_missing_package_is_named_with_its_extra(package, url, extra):
    """Without the package of a URL's filesystem the error says what to install."""
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", MISSING, package, url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert f"pip install 'holdfast[{extra}]'" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("scheme", ["sftp", "ftp", "smb", "ssh", "https", "http", "ftps"])
def test_a_url_with_a_password_is_refused(scheme):
    """URLs are in manifests: one with a password is an error that does not tell it, and says where it belongs."""
    password = ODD.replace("/", "")
    for url in (f"{scheme}://me:{password}@host/run", f"{scheme}://me:pa:{password}@host/run/x.ckpt"):
        with pytest.raises(ConfigurationError, match="storage_options") as caught:
            open_store(url)
        assert_untold("the error", f"{caught.value} {caught.value!r}")
        assert "host/" in str(caught.value)


def everything(folder):
    for where, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(where, name), "rb") as file:
                yield os.path.join(where, name), file.read()


def assert_untold(what, said):
    data = said if isinstance(said, bytes) else str(said).encode()
    for spelling in SPELLINGS:
        assert spelling.encode() not in data, f"{what} tells {spelling}"


def told_by(call):
    """What a call that fails says: its error with its causes, their representations, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = repr(call())
        except (HoldfastError, OSError, ValueError) as error:
            result = f"{error} {error!r} {''.join(traceback.format_exception(error))}"
    return result + "".join(str(item.message) for item in caught)


@pytest.mark.filterwarnings("ignore")
def test_no_secret_is_told_or_written(server, tmp_path, monkeypatch, capsys):
    """Whether operations succeed or are refused: no error, log, warning, output or file has a secret."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HOLDFAST_CACHE")
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logger = logging.getLogger("holdfast")
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    logger.addHandler(handler)
    good = {**server, "patience": 1}
    wrong = {**good, "secret": ODD, "token": ODD}
    silent = {**wrong, "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}}
    said = []
    try:
        for options in (good, wrong, silent):
            url = url_of()
            path = f"{url}/epoch=0-step=1.ckpt"
            calls = (
                lambda url=url, options=options: saved(url, storage_options=options),
                lambda url=url, options=options: saved(f"{url}2", storage_options=options, on_error="raise"),
                lambda url=url: holdfast.catalog(url),
                lambda path=path: holdfast.load(path),
                lambda path=path: holdfast.verify(path),
                lambda url=url: holdfast.doctor(url),
                lambda path=path: holdfast.copy(path, tmp_path / "copies" / "c.ckpt"),
                lambda url=url: open_store(url),
                lambda url=url: open_store(url).blobs(),
            )
            said += [told_by(call) for call in calls]
            for verb in (["ls", url, "--json"], ["show", path], ["verify", url], ["doctor", url], ["tag", path, "x"]):
                main(verb)
    finally:
        logger.removeHandler(handler)
    assert sum("Traceback" in text for text in said) == 16, "all calls of two in three servers fail, but one"
    with pytest.raises(AssertionError):
        assert_untold("this", f"x{ODD}")
    for number, text in enumerate(said):
        assert_untold(f"call {number}", text)
    assert_untold("the command", "".join(capsys.readouterr()))
    assert_untold("the log", log.getvalue())
    unchecked = {"response_checksum_validation": "when_required"}  # other tests leave objects that a proxy has spoilt
    fs = fsspec.filesystem("s3", **server, config_kwargs=unchecked)
    for key in fs.find("bucket"):
        assert_untold(key, key.encode() + fs.cat_file(key))
    for name, data in everything(tmp_path):
        assert_untold(name, data)


@pytest.mark.filterwarnings("ignore")
def test_lightning_writes_them_nowhere(server, tmp_path):
    """A fit to a URL: not in the checkpoints, the callback's state, its representation, or what loggers write."""
    pytest.importorskip("lightning")
    from lightning.pytorch.loggers import CSVLogger

    from tests.support.lightning_cases import ModelCheckpoint, fit

    url = url_of()
    cb = ModelCheckpoint(url, monitor="val_loss", save_last=True, storage_options={**server, "token": None})
    made = fit(tmp_path, cb, max_epochs=1, logger=CSVLogger(tmp_path))
    made.logger.log_hyperparams({"callback": cb})
    made.logger.save()
    assert cb.best_model_path.startswith(url)
    assert holdfast.load(cb.last_model_path)["global_step"] == 2
    for what in (cb.state_dict(), cb.state_key, repr(cb), vars(cb)):
        assert_untold("the callback", what)
    fs = fsspec.filesystem("s3", **server)
    for key in fs.find(url[5:]):
        assert_untold(key, fs.cat_file(key))
    for name, data in everything(tmp_path):
        assert_untold(name, data)


@pytest.mark.parametrize(
    ("name", "value"),
    [("HOLDFAST_CLIENT", "Obstore"), *(("HOLDFAST_PATIENCE", text) for text in ("soon", "-1", "nan", "inf"))],
)
def test_the_environment_says_what_can_be_meant(monkeypatch, name, value):
    """A client that nobody knows, and a patience that is none or never ends, are errors, as they are as options."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name} is .*{value!r}"):
        open_store(f"memory://{value}/run")
