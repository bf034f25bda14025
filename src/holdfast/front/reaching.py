"""How servers are reached, for the command: without what makes its start slow."""

from holdfast.storage.options import use_options

__all__ = ["use_options"]
