"""What the settings of a run ask of a table's columns: targets, features, kinds. Must never look at values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from epochtop.engine.data.tables.column import CellType
from epochtop.engine.protocol.datasets import Missing, Problem
from epochtop.engine.protocol.spec import Invalid, RunSpec

WantedKind = Literal["number", "category", "time", "skip"]
"""A kind that the user chose for a column."""
CELL_TYPES: Mapping[WantedKind, CellType] = {"number": "number", "category": "text", "time": "any", "skip": "skip"}
LISTED = 12
"""Names that a message lists."""

_POSITION = re.compile(r"#([+-]?[0-9]{1,9})")


class ColumnSelection:
    """The settings of a run, applied to the names of a table. A reader calls it with them to learn how to read each column."""

    def __init__(self, spec: RunSpec, default_target: str = "") -> None:
        """`default_target` is the target of a dataset that names one."""
        self._target, self._columns, self._kinds = spec.target or default_target, spec.columns, spec.kinds
        self.problem: Problem = spec.problem
        self.missing: Missing = spec.missing
        self.targets: tuple[str, ...] = ()
        """Names of the label columns, once the names are known."""
        self.kinds: dict[str, WantedKind] = {}
        """Kinds that the user chose, by name, once the names are known."""
        self.named = frozenset(part.strip() for part in spec.columns.split(","))
        """Columns that the user asked for by name."""
        self.skipped: tuple[str, ...] = ()
        """Columns that the user left out, once the names are known."""

    def __call__(self, names: Sequence[str]) -> Sequence[CellType]:
        """The type of each column. Raises Invalid if a setting does not fit the names."""
        self.targets = target_names(self._target, names)
        self.kinds = chosen_kinds(self._kinds, names)
        features = set(chosen_features(self._columns, names)) - set(self.targets)
        features -= {name for name, kind in self.kinds.items() if kind == "skip"}
        if not features:
            raise Invalid("columns" if self._columns else "dataset", _no_features(names, self.targets))
        self.skipped = tuple(name for name in names if name not in features and name not in self.targets)
        return [self._type(name, name in features) for name in names]

    def _type(self, name: str, is_feature: bool) -> CellType:
        if name in self.targets:
            return "label"
        if not is_feature:
            return "skip"
        return CELL_TYPES[self.kinds[name]] if name in self.kinds else "any"


def target_names(target: str, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that `target` means: a name, or names and positions separated by commas. Raises Invalid."""
    target = target.strip()
    if not target:
        raise Invalid("target", f"set the label column: its name, or its position as #1 or last; {_columns_are(names)}")
    if target in names:
        return (target,)
    targets = tuple(_named(part.strip(), names) for part in target.split(",") if part.strip())
    if not targets:
        raise Invalid("target", f"{target!r} names no column; {_columns_are(names)}")
    twice = next((name for name in targets if targets.count(name) > 1), None)
    if twice is not None:
        raise Invalid("target", f"the column {twice!r} is named twice")
    return targets


def _named(text: str, names: Sequence[str]) -> str:
    if text in names:
        return text
    if text == "last" and names:
        return names[-1]
    position = _POSITION.fullmatch(text)
    if position is None:
        raise Invalid("target", f"there is no column {text!r}; {_columns_are(names)}")
    number = int(position[1])
    if not 1 <= abs(number) <= len(names):
        raise Invalid("target", f"there is no column {text}; the table has {len(names)} columns")
    return names[number - 1 if number > 0 else number]


def chosen_features(columns: str, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that a list of names and patterns selects, in the order of the table. Raises Invalid."""
    parts = [part.strip() for part in columns.split(",") if part.strip()]
    included = [part for part in parts if not part.startswith("!")]
    selected = set(names) if not included else {name for part in included for name in _matching("columns", part, names)}
    for part in parts:
        if part.startswith("!"):
            selected -= set(_matching("columns", part[1:].strip(), names))
    return tuple(name for name in names if name in selected)


def chosen_kinds(kinds: str, names: Sequence[str]) -> dict[str, WantedKind]:
    """Kinds by name from `NAME=KIND,…`, in which a name may be a pattern. Raises Invalid."""
    result: dict[str, WantedKind] = {}
    for part in filter(None, map(str.strip, kinds.split(","))):
        pattern, _, kind = part.rpartition("=")
        wanted = next((known for known in CELL_TYPES if known == kind.strip()), None)
        if wanted is None:
            raise Invalid("kinds", f"{part!r} names no kind; write NAME=KIND with {', '.join(CELL_TYPES)}")
        result |= dict.fromkeys(_matching("kinds", pattern.strip(), names), wanted)
    return result


def _matching(field: str, pattern: str, names: Sequence[str]) -> list[str]:
    matches = [name for name in names if name == pattern] or [name for name in names if fnmatchcase(name, pattern)]
    if not matches:
        raise Invalid(field, f"no column matches {pattern!r}; {_columns_are(names)}")
    return matches


def _no_features(names: Sequence[str], targets: Sequence[str]) -> str:
    if len(names) == len(targets):
        return f"the table has only the column {', '.join(map(repr, targets))}; it needs a feature column too"
    return f"no feature column is left; the table has {listed(names)}"


def _columns_are(names: Sequence[str]) -> str:
    return f"the columns are {listed(names)}"


def listed(names: Sequence[str]) -> str:
    """The first names, separated by commas, in printable characters."""
    text = ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")
    return "".join(letter if letter.isprintable() else "�" for letter in text)
