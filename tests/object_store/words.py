"""What an error of a save says: the checkpoint, whether it may be there all the same, and that the others are whole."""

from __future__ import annotations

import os

import holdfast
from tests.object_store.acts import nothing

FAILED = ("was not saved", "was not written", "could not be committed", "nothing can be noted", "did not read back")
NOT_THERE = (
    "before is untouched",
    "Nothing was written",
    "Nothing of it is there",
    "Nothing that was there has changed",
    "nothing can be noted",
    "did not read back as it was written, and was removed",
)
PERHAPS = ("What was committed before is whole; so is this one, if", "It is there whole, or not at all")


def check_words(act, place, told):
    """Each error has a text; one of a save names what was to be saved, and says truly whether it is there."""
    lost = set()
    for error in told.errors:
        assert str(error)
        if isinstance(error, holdfast.SaveError):
            text = str(error)
            assert place.url in text or place.folder in text, text
            assert any(words in text for words in FAILED), text
            certain, perhaps = (any(words in text for words in some) for some in (NOT_THERE, PERHAPS))
            assert certain != perhaps, text
            if certain and os.path.basename(error.path).startswith("epoch="):
                lost.add(error.path)
    if act.before is nothing and lost:
        assert not lost & _committed(place.url), "it was said not to be saved, and is"


def _committed(url):
    try:
        return {item.path for item in holdfast.catalog(url)}
    except holdfast.CheckpointNotFoundError:
        return set()
