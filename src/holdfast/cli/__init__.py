"""The command ``holdfast``. Imports torch only for what needs it."""

from holdfast.cli.main import main

__all__ = ["main"]
