"""A process that claims a prefix, and says at each line that it reads whether it still has it."""

from __future__ import annotations

import sys

from holdfast import DirectoryInUseError
from holdfast.storage.remote import claims
from tests.support.folder_objects import FolderObjects


def say(*words):
    print(*words, flush=True)  # noqa: T201 - what the test reads


def held(claim):
    """Say whether it is still ours."""
    try:
        claim.check()
    except DirectoryInUseError as error:
        say("lost to", error.run)
    else:
        say("holds")


def main(folder, conditions, lease, interval):
    """Claim it, and answer until there are no more lines."""
    claims.LEASE, claims.INTERVAL = float(lease), float(interval)
    objects = FolderObjects(folder, conditions=conditions == "1")
    try:
        claim = claims.claim(objects, "bucket/run", "s3://bucket/run", run="one", since="2026-01-01T00:00:00+00:00")
    except DirectoryInUseError:
        say("refused")
        return
    say("has it")
    for _ in sys.stdin:
        held(claim)
    claim.give_up()


if __name__ == "__main__":
    main(*sys.argv[1:])
