"""The columns of the table: facts about a run, its configuration, and the last and best values of its series.

A column is known by its key: `state`, `config:lr`, `last:val/loss`, `best:val/loss`. Never imports Textual.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from epochtop.engine.protocol.quantities import UNKNOWN, format_age, format_number, format_seconds
from epochtop.engine.runs.families import families, lower_is_better, members
from epochtop.engine.runs.table.details import RunDetails
from epochtop.engine.runs.table.labels import tag_text

Value = float | str | None
"""A cell for sorting, filtering and grouping: a number, a text, or None if the run has none."""

ALWAYS = ("state", "run")
"""Columns that cannot be removed."""
LARGEST = 2.0**1000
"""Whole numbers of this size or more stay texts. It is a float: comparing a float with a long int takes 0.5 µs."""
DEFAULT_METRICS = 2
"""Families of series that a new table shows."""
DEFAULT_CONFIG = 8
"""Most entries of the configuration that a new table shows."""


@dataclass(frozen=True)
class Column:
    """One column."""

    key: str
    kind: Literal["fact", "config", "metric"]
    label: str
    """Heading."""
    value: Callable[[RunDetails, float], Value]
    """The cell of a run at a Unix time."""
    show: Callable[[Value], str]
    """A cell as text."""

    def text(self, run: RunDetails, now: float) -> str:
        """The cell of a run as text."""
        return self.show(self.value(run, now))


def _fact(key: str, value: Callable[[RunDetails], Value], show: Callable[[Value], str] | None = None) -> Column:
    return Column(key, "fact", key, lambda run, _now: value(run), show or show_value)


def _or_none(text: str) -> Value:
    return text or None


def _seconds(value: Value) -> str:
    return format_seconds(value if isinstance(value, float | int) else None)


def _age(value: Value) -> str:
    return format_age(value) if isinstance(value, float | int) else UNKNOWN


def _steps(value: Value) -> str:
    return f"{value:,.0f}" if isinstance(value, float | int) else UNKNOWN


def column_of(key: str) -> Column | None:
    """The column with a key; None if there is no such kind of column."""
    kind, colon, name = key.partition(":")
    if not colon:
        return FACTS.get(key)
    if not name:
        return None
    if kind == "config":
        return Column(key, "config", name, lambda run, _now: config_value(run.config.get(name)), show_value)
    if kind in ("last", "best", "min", "max"):
        label = name if kind == "last" else f"{kind} {name}"
        return Column(key, "metric", label, lambda run, _now: metric_value(run, kind, name), _show_metric)
    return None


def config_value(value: Any) -> Value:
    """An entry of the configuration as a cell: numbers stay numbers, a list or an object becomes JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return float(value) if -LARGEST < value < LARGEST else str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def metric_value(run: RunDetails, kind: str, name: str) -> Value:
    """The last, best, lowest or highest value of a series; None if the run has none."""
    figures = run.series.get(name)
    if figures is None:
        return None
    if kind == "last":
        return figures.last
    lowest = kind == "min" or (kind == "best" and lower_is_better(name))
    return figures.minimum if lowest else figures.maximum


def show_value(value: Value) -> str:
    """A cell as text."""
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    if math.isfinite(value) and value == int(value) and abs(value) < 1e7:
        return str(int(value))
    short = f"{value:g}"
    return short if len(short) <= 6 else format_number(value)


FACTS: dict[str, Column] = {
    column.key: column
    for column in (
        _fact("state", lambda run: run.summary.state),
        _fact("run", lambda run: run.name),
        _fact("time", lambda run: run.summary.seconds, _seconds),
        Column("age", "fact", "age", lambda run, now: now - run.summary.created, _age),
        _fact("steps", lambda run: run.summary.steps, _steps),
        _fact("device", lambda run: run.summary.device),
        _fact("source", lambda run: _or_none(run.summary.dataset)),
        _fact("tags", lambda run: _or_none(tag_text(run.labels.tags))),
        _fact("notes", lambda run: _or_none(run.labels.notes)),
        _fact("group", lambda run: _or_none(run.group)),
        _fact("project", lambda run: _or_none(run.project)),
        _fact("user", lambda run: _or_none(run.user)),
        _fact("host", lambda run: _or_none(run.host)),
        _fact("commit", lambda run: run.git.commit[:10] if run.git is not None else None),
        _fact("reason", lambda run: _or_none(run.summary.note)),
        _fact("id", lambda run: run.id),
    )
}
"""Columns that every run has, by key."""


def _show_metric(value: Value) -> str:
    return value if isinstance(value, str) else format_number(value)


# --- which columns there are ------------------------------------------------------------------------------------


def series_names(runs: Iterable[RunDetails]) -> list[str]:
    """The series of all runs, in order of their first appearance."""
    return list(dict.fromkeys(name for run in runs for name in run.series))


def config_names(runs: Iterable[RunDetails]) -> list[str]:
    """The entries of all configurations, those of most runs first, else in order of their first appearance."""
    return [name for name, _ in _owners(runs).most_common()]


def _owners(runs: Iterable[RunDetails]) -> Counter[str]:
    """How many runs have each entry of a configuration, in order of their first appearance."""
    return Counter(name for run in runs for name in run.config)


def _widespread(counts: Counter[str]) -> list[str]:
    """The names that at least half as many runs have as the commonest one: not those of a few runs among many others."""
    most = max(counts.values(), default=0)
    return [name for name, count in counts.items() if 2 * count >= most]


def differing(runs: Sequence[RunDetails]) -> list[str]:
    """The entries of the configurations that are not the same in all runs; a missing entry differs from any value."""
    return [name for name in config_names(runs) if _differs(name, runs)]


def _differs(name: str, runs: Sequence[RunDetails]) -> bool:
    first = runs[0].config.get(name)
    return any(run.config.get(name) != first for run in runs)


def default_keys(runs: Sequence[RunDetails]) -> list[str]:
    """The columns of a new table: duration, main metrics, settings in which runs differ, groups and tags if there are any."""
    names = _widespread(Counter(name for run in runs for name in run.series))
    metrics = []
    for family in families(names)[:DEFAULT_METRICS]:
        series = members(names, family)
        metrics += [f"last:{series[0]}"] if len(series) == 1 else [f"last:{series[0]}", f"best:{series[1]}"]
        metrics += [f"best:{series[0]}"] if len(series) == 1 else []
    settings = set(_widespread(_owners(runs)))
    config = [f"config:{name}" for name in differing(runs) if name in settings][:DEFAULT_CONFIG]
    group = ["group"] if any(run.group for run in runs) else []
    tags = ["tags"] if any(run.labels.tags for run in runs) else []
    return ["time", "age", *metrics, *config, *group, *tags]


def grouping_key(runs: Sequence[RunDetails], key: str) -> str:
    """The column by which runs are grouped with the cursor at `key`.

    Names and ids group nothing: there it is the first of the runs' group and their settings that several runs share, without
    seeds.
    """
    if key not in ("run", "id"):
        return key
    settings = [name for name in dict.fromkeys([*differing(runs), *config_names(runs)]) if "seed" not in name.lower()]
    for candidate in ("group", *(f"config:{name}" for name in settings)):
        column = column_of(candidate)
        values = {column.value(run, 0.0) for run in runs} - {None} if column is not None else set()
        if values and len(values) < len(runs):
            return candidate
    return key


def all_keys(runs: Sequence[RunDetails]) -> list[str]:
    """Every column that can be chosen."""
    facts = [key for key in FACTS if key not in ALWAYS]
    names = series_names(runs)
    ordered = [name for family in families(names) for name in members(names, family)]
    metrics = [f"{kind}:{name}" for name in ordered for kind in ("last", "best")]
    return [*facts, *metrics, *(f"config:{name}" for name in config_names(runs))]
