"""What both front doors ask at a moment before anything else: most training steps need no decision."""

from __future__ import annotations

from holdfast.policy.moment import Event


def could_be_due(settings, event, step):
    """Whether a moment needs a decision at all, by the two words of the settings that the front doors go by."""
    when = settings.when
    return event is not Event.STEP or when.looks_at_every_step or when.counts(step)
