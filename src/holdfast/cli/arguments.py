"""The arguments that several verbs take, each said once."""

from __future__ import annotations

import argparse


def add_path(parser: argparse.ArgumentParser, metavar: str, text: str = "a local path or an fsspec URL") -> None:
    """Declare the path that the verb is about: ``options.path``."""
    parser.add_argument("path", metavar=metavar, help=text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``: ``options.as_json``."""
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON, for programs")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Declare ``--yes`` of a verb that deletes: ``options.yes``; without it, it only says what it would do."""
    parser.add_argument("--yes", action="store_true", help="do it; without this, only say what would be done")


def positive(text: str) -> int:
    """Return a whole number from 1 on; argparse says what is wrong with any other."""
    value = int(text)
    if value < 1:
        msg = f"{value} is less than 1"
        raise argparse.ArgumentTypeError(msg)
    return value


def add_paths(parser: argparse.ArgumentParser) -> None:
    """Declare the checkpoints that the verb is about: ``options.paths``."""
    parser.add_argument("paths", metavar="FILE", nargs="+", help="local paths or fsspec URLs")
