"""Each test of the callback runs twice: with saves that wait, and with saves behind the training's back."""

import pytest

from holdfast.integrations.callback import ModelCheckpointCore


@pytest.fixture(autouse=True, params=["waiting", "behind"])
def _way_of_saving(request, monkeypatch):
    """What the tests look at right after a hook is there by then, in either way."""
    if request.param == "waiting":
        monkeypatch.setitem(ModelCheckpointCore.__init__.__kwdefaults__, "async_save", False)
        return
    handle = ModelCheckpointCore._handle

    def handle_and_wait(self, trainer, *given, **words):
        plan = handle(self, trainer, *given, **words)
        if not trainer.fast_dev_run and any(pending.ours for pending in self._pending):
            self._settle(trainer, wait=True)
        if self._saver is not None:
            self._saver.wait()  # for what was dropped
        return plan

    monkeypatch.setattr(ModelCheckpointCore, "_handle", handle_and_wait)
