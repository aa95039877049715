"""The table of the README's reliability section: `python tests/bad_input/table.py` writes it.

Conventions: a row is an area, with its cases and how many of them passed.
"""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest


def table_lines(reports: Iterable[Any]) -> list[str]:
    """Lines of Markdown from the reports of pytest's tests, of those that name an area."""
    cases: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for report in reports:
        area = dict(getattr(report, "user_properties", ())).get("area")
        if area is not None and report.when == "call":
            cases[area] += 1
            passed[area] += report.outcome == "passed"
    if not cases:
        return []

    rows = [(area, str(cases[area]), str(passed[area])) for area in cases]
    total = ("all", str(cases.total()), str(passed.total()))
    lines = ["| area | cases | passed |", "|---|---|---|"]
    return lines + [f"| {' | '.join(row)} |" for row in (*rows, total)]


if __name__ == "__main__":
    here = str(Path(__file__).parent)
    # The hook of tests/conftest.py prints the table.
    sys.exit(pytest.main([here, "-m", "trial", "-n", "0", "-q", *sys.argv[1:]]))
