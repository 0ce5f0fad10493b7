"""Statistics of rows: medians with their spread, and fits.

Imports no torch and no numpy: the screen computes with it too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from epochtop.engine.lab.experiment import Picture
from epochtop.engine.lab.measurements import Measurement, Row
from epochtop.engine.protocol.experiments import Cell
from epochtop.engine.protocol.quantities import format_quantity

AnyRow = Mapping[str, Cell] | Measurement
"""A stored row or a struct; a column is a key of the one and a field of the other."""
SomeRow = TypeVar("SomeRow", bound=AnyRow)


@dataclass(frozen=True)
class Figure:
    """A median with its quartiles, or with an interval where the function that makes it says so."""

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """The distance between the quartiles."""
        return self.high - self.low


def figure(values: Sequence[float]) -> Figure:
    """The median and quartiles of at least one value."""
    if len(values) < 2:
        return Figure(values[0], values[0], values[0], 1)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(statistics.median(values), low, high, len(values))


def cell(row: AnyRow, column: str) -> Cell:
    """A value of a row. A stored row without the column has None; a struct without the field raises AttributeError."""
    return getattr(row, column) if isinstance(row, Measurement) else row.get(column)


def value_of(row: AnyRow, column: str) -> float | None:
    """A number in a row; None if it is missing, text or not finite."""
    value = cell(row, column)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def select(rows: Iterable[SomeRow], **labels: Cell) -> list[SomeRow]:
    """The rows with these values."""
    return [row for row in rows if all(cell(row, name) == value for name, value in labels.items())]


def of_picture(picture: Picture, rows: Iterable[Row]) -> list[Row]:
    """The rows that a picture shows."""
    conditions = picture.where.items()
    matching = [row for row in rows if all(name in row and str(row[name]) == value for name, value in conditions)]
    return [row for row in matching if value_of(row, picture.y) is not None] if picture.y else matching


def values(rows: Iterable[AnyRow], column: str) -> list[float]:
    """All numbers of a column."""
    return [value for row in rows if (value := value_of(row, column)) is not None]


def grouped(rows: Iterable[AnyRow], by: Sequence[str], column: str) -> dict[tuple[Cell, ...], Figure]:
    """The figure of each group of rows with the same values in the columns `by`, in order of appearance."""
    return {key: figure(numbers) for key, numbers in gathered(rows, by, column).items()}


def gathered(rows: Iterable[AnyRow], by: Sequence[str], column: str) -> dict[tuple[Cell, ...], list[float]]:
    """The numbers of each such group."""
    groups: dict[tuple[Cell, ...], list[float]] = {}
    for row in rows:
        value = value_of(row, column)
        if value is not None:
            groups.setdefault(tuple(cell(row, name) for name in by), []).append(value)
    return groups


def by_column(rows: Iterable[SomeRow], column: str) -> dict[str, list[SomeRow]]:
    """The rows by their text in a column, in order of appearance."""
    groups: dict[str, list[SomeRow]] = {}
    for row in rows:
        groups.setdefault(str(cell(row, column)), []).append(row)
    return groups


# --- fits --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Coefficients, none of them negative, and the residual of each value as a fraction of it."""

    coefficients: tuple[float, ...]
    residuals: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The largest residual."""
        return max(map(abs, self.residuals), default=0.0)


def fit(terms: Sequence[Sequence[float]], targets: Sequence[float]) -> Fit | None:
    """Least squares of the relative errors of `targets[i] = sum(coefficient[j] * terms[i][j])`; None if undetermined.

    Costs are not negative: a coefficient that would be negative is 0, and the others are fitted again.
    """
    active = [place for place in range(len(terms[0])) if any(row[place] for row in terms)] if terms else []
    while active:
        solution = _solve([[row[place] / value for place in active] for row, value in zip(terms, targets, strict=True)])
        if solution is None:
            return None
        least = min(range(len(solution)), key=solution.__getitem__)
        if solution[least] >= 0:
            coefficients = [0.0] * len(terms[0])
            for place, value in zip(active, solution, strict=True):
                coefficients[place] = value
            residuals = (_residual(coefficients, row, value) for row, value in zip(terms, targets, strict=True))
            return Fit(tuple(coefficients), tuple(residuals))
        del active[least]
    return None


def _residual(coefficients: Sequence[float], row: Sequence[float], value: float) -> float:
    return 1 - sum(map(_times, coefficients, row)) / value


def _times(first: float, second: float) -> float:
    return first * second


def _solve(rows: Sequence[Sequence[float]]) -> list[float] | None:
    """Least squares of rows · c = 1, by the normal equations with scaled columns."""
    size = len(rows[0])
    scales = [math.sqrt(sum(row[place] ** 2 for row in rows)) for place in range(size)]
    if not all(scales):
        return None
    scaled = [[value / scale for value, scale in zip(row, scales, strict=True)] for row in rows]
    matrix = [
        [sum(row[i] * row[j] for row in scaled) for j in range(size)] + [sum(row[i] for row in scaled)]
        for i in range(size)
    ]
    for pivot in range(size):
        largest = max(range(pivot, size), key=lambda i: abs(matrix[i][pivot]))
        if abs(matrix[largest][pivot]) < 1e-9:
            return None
        matrix[pivot], matrix[largest] = matrix[largest], matrix[pivot]
        for i in range(size):
            if i != pivot:
                factor = matrix[i][pivot] / matrix[pivot][pivot]
                matrix[i] = [a - factor * b for a, b in zip(matrix[i], matrix[pivot], strict=True)]
    return [matrix[i][size] / matrix[i][i] / scales[i] for i in range(size)]


# --- words -------------------------------------------------------------------------------------------------------


def with_spread(value: Figure, unit: str = "s") -> str:
    """`61 µs (60 µs … 63 µs)`; `61 µs (once)` for a single measurement."""
    if value.count < 2:
        return f"{format_quantity(value.median, unit)} (once)"
    return f"{format_quantity(value.median, unit)} ({format_quantity(value.low, unit)} … {format_quantity(value.high, unit)})"


def quartiles_apart(subject: str, figures: Iterable[Figure]) -> str:
    """A sentence on the widest of these figures: `times of one way differ by up to 4% between their quartiles`."""
    widest = max((one.spread / one.median for one in figures if one.median), default=0.0)
    return f"{subject} differ by up to {widest:.0%} between their quartiles"


def rounds_of(figures: Iterable[Figure]) -> str:
    """The number of rounds behind most of these figures: `5 rounds`."""
    rounds = figure([float(one.count) for one in figures]).median
    return f"{rounds:.0f} round{'s' * (rounds != 1)}"
