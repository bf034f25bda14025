"""What a plain loop is given, checked: its words, its identity."""

from __future__ import annotations

from holdfast.errors import ConfigurationError
from holdfast.front.identity import Identity
from holdfast.policy.settings import Settings, Words


def known(words: Words) -> Words:
    """Return the words if all are known.

    Raises:
        ConfigurationError: naming the one that is not, and those that are.

    """
    unknown = sorted(set(words) - set(Words.__annotations__))
    if unknown:
        msg = f"unknown argument {unknown[0]!r}: known are {', '.join(sorted(Words.__annotations__))}"
        raise ConfigurationError(msg)
    return words


def identity_of(settings: Settings) -> Identity:
    """Return what tells a checkpointer of these settings from others on its directory."""
    seed = ("monitor", "mode", "every_n_train_steps", "every_n_epochs", "train_time_interval")
    detail = ("filename", "save_top_k", "save_weights_only")
    given = settings.notation
    return Identity(
        "Checkpointer",
        {name: getattr(settings, name) for name in (*seed, "save_on_train_epoch_end")}
        | {word: given[word] for word in ("save_when",) if word in given},
        {name: getattr(settings, name) for name in detail} | {word: given[word] for word in ("keep",) if word in given},
        None,
    )
