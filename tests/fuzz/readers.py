"""Coverage-guided fuzzing of everything that reads a file: ``make fuzz FUZZ=600`` for ten minutes."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings

import atheris

with atheris.instrument_imports(include=["holdfast"]):
    from tests.fuzz.inputs import one, seeds

from tests.support.files import put


def main(seconds, *more):
    """Fuzz for so many seconds; further arguments are libFuzzer's."""
    folder = tempfile.mkdtemp(prefix="holdfast-seeds-")
    for number, seed in enumerate(seeds()):
        put(os.path.join(folder, str(number)), seed)
    limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=3000", "-max_len=9000"]
    atheris.Setup([sys.argv[0], *limits, *more, folder], one)
    atheris.Fuzz()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
