"""Counts, at the end of a run, how many configurations are equal and which rows explain the others."""

from __future__ import annotations

from collections import Counter

from tests.parity.rows import Row


def pytest_terminal_summary(terminalreporter):
    """Print the counts, if configurations were compared."""
    reports = terminalreporter.stats.get("passed", ())
    found = [dict(report.user_properties) for report in reports if report.when == "call"]
    compared = [properties for properties in found if "rows" in properties]
    if not compared:
        return
    differing = [properties["rows"] for properties in compared if properties["rows"]]
    counts = Counter(name for rows in differing for name in rows)
    write = terminalreporter.write_line
    terminalreporter.section("parity with Lightning's ModelCheckpoint")
    write(f"{len(compared):5} configurations")
    write(f"{len(compared) - len(differing):5} equal in every file, attribute and warning")
    write(f"{sum(properties['same_files'] for properties in compared):5} with the same set of files")
    write(f"{len(differing):5} that differ in something, each for the rows of the contract that explain it:")
    for name, number in counts.most_common():
        write(f"{number:11}  {name}: {Row[name].value}")
