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


class _Recorder:
    """Keeps every report of a run."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.reports.append(report)


if __name__ == "__main__":
    recorder = _Recorder()
    here = str(Path(__file__).parent)
    code = pytest.main([here, "-m", "trial", "-n", "0", "-q", *sys.argv[1:]], plugins=[recorder])
    print("\n".join(table_lines(recorder.reports)))
    sys.exit(code)
