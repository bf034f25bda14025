"""Each test of the plain loop runs twice: with saves that wait, and with saves behind the training's back."""

import pytest

from holdfast import Checkpointer


@pytest.fixture(autouse=True, params=["waiting", "behind"])
def _way_of_saving(request, monkeypatch):
    """What the tests look at right after a step is there by then, in either way."""
    if request.param == "waiting":
        monkeypatch.setitem(Checkpointer.__init__.__kwdefaults__, "async_save", False)
        return
    handle = Checkpointer._handle

    def handle_and_wait(self, *given, **words):
        handle(self, *given, **words)
        self._settle(wait=True)  # wait() would raise what is only warned of
        if self._saver is not None:
            self._saver.wait()  # for what was dropped

    monkeypatch.setattr(Checkpointer, "_handle", handle_and_wait)
