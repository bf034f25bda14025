"""``holdfast.newest`` and ``resume``: which file they take, and what they say of those they pass over."""

from __future__ import annotations

import pytest

import holdfast
from tests.front.loops import Loop
from tests.support.files import content, put
from tests.support.lightning_cases import ModelCheckpoint, fit


@pytest.mark.parametrize("extension", [".pth", ".pt"])
def test_files_with_another_extension(tmp_path, extension):
    """The newest of a run with another ``FILE_EXTENSION`` is found without being told the extension."""

    class Other(ModelCheckpoint):
        FILE_EXTENSION = extension

    cb = Other(tmp_path / "d", save_top_k=-1)
    fit(tmp_path, cb, max_epochs=2)
    assert holdfast.newest(tmp_path / "d") == str(tmp_path / "d" / f"epoch=1-step=4{extension}")


@pytest.mark.parametrize("left", [0.99, 0.5, 0.05], ids=["end gone", "half", "start"])
def test_a_torn_newest_is_named(tmp_path, left):
    """A newest file whose end is missing is passed over with a warning that names it, not in silence."""
    loop = Loop()
    loop.run(loop.checkpointer(tmp_path, every_n_train_steps=4, save_top_k=-1), 3)
    torn = tmp_path / "epoch=2-step=12.ckpt"
    data = content(torn)
    put(torn, data[: int(len(data) * left)])
    before = str(tmp_path / "epoch=1-step=8.ckpt")
    with pytest.warns(UserWarning, match=r"passed over: .*epoch=2-step=12\.ckpt"):
        assert holdfast.newest(tmp_path) == before
    ckpt = Loop().checkpointer(tmp_path)
    with pytest.warns(UserWarning, match=r"passed over: .*epoch=2-step=12\.ckpt"):
        assert ckpt.resume().path == before
