"""What a campaign prints at its end: for each table, how many rows were tried, and what their faults led to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator

import pytest

from tests.faults.selection import EVERYTHING, Note

OUTCOMES = ("passed", "failed", "error", "skipped")


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """Notes what a fault led to."""

    def record(result: str, amount: int | None = None) -> None:
        record_property(result, amount)

    return record


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables."""
    tables: dict[str, list[tuple[str, pytest.TestReport]]] = defaultdict(list)
    for outcome in OUTCOMES:
        for report in terminalreporter.stats.get(outcome, ()):
            if isinstance(report, pytest.TestReport):
                tables[report.nodeid.partition("[")[0].partition("@")[0]].append((outcome, report))
    if not EVERYTHING or not tables:
        return
    terminalreporter.section("faults")
    for name, reports in sorted(tables.items()):
        terminalreporter.write_line(f"{name}: {', '.join(described(reports))}")


def described(reports: Collection[tuple[str, pytest.TestReport]]) -> Iterator[str]:
    """The results of one table in words."""
    results, noted = Counter(outcome for outcome, _ in reports), Counter[str]()
    largest: dict[str, int] = {}
    for _, report in reports:
        for result, amount in report.user_properties:
            if amount is None:
                noted[result] += 1
            else:
                largest[result] = max(largest.get(result, 0), int(str(amount)))
    for counts in (results, noted):
        yield from (f"{count} {result}" for result, count in counts.most_common())
    yield from (f"at most {amount} {result}" for result, amount in largest.items())
