"""A parsed filter applied to runs: names become columns, texts become values. And the completion of names and values.

Never imports Textual.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from epochtop.engine.runs.table.details import RunDetails
from epochtop.tui.runs_table.columns import FACTS, Column, Value, column_of, config_names, series_names
from epochtop.tui.runs_table.filter.grammar import (
    Both,
    Compare,
    Contains,
    Either,
    Filter,
    FilterError,
    Not,
    Operator,
    quoted,
    tokens,
)

Test = Callable[[RunDetails], bool]

ALIASES = {
    "lr": "learning_rate",
    "tag": "tags",
    "name": "run",
    "duration": "time",
    "dataset": "source",
    "note": "notes",
}
"""Short names, used where no run has an entry or a series of that name."""
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
"""Units of a duration or an age."""
MOST_VALUES = 50
"""Values of a column that are offered for completion."""


class Names:
    """The names that a filter can use for these runs."""

    def __init__(self, runs: Sequence[RunDetails]) -> None:
        self._runs = runs
        self._config, self._series = config_names(runs), series_names(runs)
        self._keys = {
            **{f"{kind}:{name}": f"{kind}:{name}" for kind in ("min", "max", "last", "best") for name in self._series},
            **{f"config:{name}": f"config:{name}" for name in self._config},
            **{name: f"last:{name}" for name in self._series},
            **{name: f"config:{name}" for name in self._config},
            **{name: name for name in FACTS},
        }

    @property
    def offered(self) -> list[str]:
        """All names, as they are offered: facts, configuration, series, best values of series."""
        names = [*FACTS, *self._config, *self._series, *(f"best:{name}" for name in self._series)]
        return list(dict.fromkeys(names))

    def column(self, name: str, position: int) -> Column:
        """The column that a name means: its whole name in any case, an alias, or its last part. Raises FilterError."""
        key = self._keys.get(name) or self._only(lambda known: known.lower() == name.lower())
        alias = ALIASES.get(name.lower())
        if key is None and alias is not None:
            key = self._keys.get(alias)
        if key is None:
            key = self._only(lambda known: ":" not in known and known.rpartition("/")[2] == name)
        column = column_of(key) if key is not None else None
        if column is None:
            near = difflib.get_close_matches(name, self.offered, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise FilterError(f"there is no column {name!r}{hint}", position)
        return column

    def _only(self, matches: Callable[[str], bool]) -> str | None:
        keys = {key for known, key in self._keys.items() if matches(known)}
        return keys.pop() if len(keys) == 1 else None

    # --- completion ------------------------------------------------------------------------------------------

    def complete(self, text: str) -> tuple[int, list[str]]:
        """Where the last word of a text begins, and the words it could become. No words if there is nothing to complete."""
        try:
            pieces = tokens(text)[:-1]
        except FilterError:
            return len(text), []
        if not pieces or pieces[-1].stop != len(text):
            return len(text), []
        last, before = pieces[-1], pieces[:-1]
        if last.kind == "operator":
            return self._completed(text, self._values(before[-1].text) if before else [], "", last.stop)
        if last.kind not in ("text", "keyword"):
            return len(text), []
        if len(before) > 1 and before[-1].kind == "operator":
            return self._completed(text, self._values(before[-2].text), last.text, last.start)
        return self._completed(text, self.offered, last.text, last.start)

    @staticmethod
    def _completed(text: str, values: list[str], typed: str, start: int) -> tuple[int, list[str]]:
        """Values that begin with what was typed, then those that contain it."""
        word = typed.lower()
        begins = [value for value in values if value.lower().startswith(word)]
        inside = [value for value in values if word in value.lower() and value not in begins]
        return start, [full for value in (*begins, *inside) if (full := quoted(value)) != text[start:]]

    def _values(self, name: str) -> list[str]:
        try:
            column = self.column(name, 0)
        except FilterError:
            return []
        if column.key == "tags":
            return sorted({tag for run in self._runs for tag in run.labels.tags})
        values = dict.fromkeys(column.value(run, 0.0) for run in self._runs)
        return [column.show(value) for value in islice(filter(lambda value: value is not None, values), MOST_VALUES)]


def test_of(parsed: Filter, names: Names, now: float) -> Test:
    """A function that tells whether a run matches. `now` is Unix time. Raises FilterError."""
    match parsed:
        case Both(parts):
            tests = [test_of(part, names, now) for part in parts]
            return lambda run: all(test(run) for test in tests)
        case Either(parts):
            tests = [test_of(part, names, now) for part in parts]
            return lambda run: any(test(run) for test in tests)
        case Not(part):
            test = test_of(part, names, now)
            return lambda run: not test(run)
        case Contains(text):
            return _containing(text)
        case Compare():
            return _comparing(parsed, names.column(parsed.name, parsed.position), now)


def _containing(text: str) -> Test:
    word = text.lower()
    return lambda run: any(word in part.lower() for part in (run.name, run.id, *run.labels.tags))


def _comparing(parsed: Compare, column: Column, now: float) -> Test:
    compare = _comparison(parsed, column)
    if column.key == "tags":
        if parsed.operator.startswith("!"):
            return lambda run: all(compare(tag) for tag in run.labels.tags)
        return lambda run: any(compare(tag) for tag in run.labels.tags)
    return lambda run: compare(column.value(run, now))


def _comparison(parsed: Compare, column: Column) -> Callable[[Value], bool]:
    """A test of one cell. A missing cell is different from everything, and neither lower nor higher."""
    operator, text = parsed.operator, parsed.text.lower()
    number = _number(parsed.text, column.key in ("time", "age"))
    if operator in ("~", "!~"):
        return lambda value: (value is not None and text in column.show(value).lower()) == (operator == "~")
    if operator in ("=", "!="):
        return lambda value: _equal(value, text, number, column) == (operator == "=")
    if number is None:
        raise FilterError(f"{parsed.text!r} is not a number; {operator} compares numbers", parsed.position)
    return lambda value: isinstance(value, float | int) and _ordered(operator, value, number)


def _equal(value: Value, text: str, number: float | None, column: Column) -> bool:
    if value is None:
        return text in ("none", "null")
    if isinstance(value, float | int) and number is not None:
        return abs(value - number) <= 1e-9 * abs(number)
    return text in (str(value).lower(), column.show(value).lower())


def _ordered(operator: Operator, value: float, number: float) -> bool:
    match operator:
        case "<":
            return value < number
        case "<=":
            return value <= number
        case ">":
            return value > number
        case _:
            return value >= number


def _number(text: str, is_duration: bool) -> float | None:
    """A text as a number; with a unit, such as `90s` or `2h`, for durations. None if it is not one."""
    unit = re.fullmatch(r"(.*\d\.?)([smhd])", text) if is_duration else None
    try:
        return float(unit[1]) * SECONDS[unit[2]] if unit else float(text)
    except ValueError:
        return None


def problem_of(error: FilterError, text: str) -> str:
    """An error with the place it is about: `at 5: there is no column 'lrr'`."""
    return f"{error}" if error.position < len(text) else f"at the end: {error.message}"


def matching(runs: Iterable[RunDetails], test: Test) -> list[RunDetails]:
    """The runs that match, in their order."""
    return [run for run in runs if test(run)]
