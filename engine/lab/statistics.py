"""Figures from rows: medians with their spread, differences that are larger than it, fits.

Torch-free and numpy-free: the screen computes with it too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from epochtop.engine.lab.experiment import Picture, Row
from epochtop.engine.protocol.experiments import Cell
from epochtop.engine.protocol.quantities import format_percent, format_quantity


@dataclass(frozen=True)
class Figure:
    """A median with its quartiles."""

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """Between the quartiles."""
        return self.high - self.low


def figure(values: Sequence[float]) -> Figure:
    """Of at least one value."""
    if len(values) < 2:
        return Figure(values[0], values[0], values[0], 1)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(statistics.median(values), low, high, len(values))


def value_of(row: Row, column: str) -> float | None:
    """A number in a row; None where there is none or it is not finite."""
    value = row.get(column)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def select(rows: Iterable[Row], **labels: Cell) -> list[Row]:
    """Rows that have these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in labels.items())]


def of_picture(picture: Picture, rows: Iterable[Row]) -> list[Row]:
    """The rows that a picture shows."""
    wanted = picture.where.items()
    mine = [row for row in rows if all(name in row and str(row[name]) == value for name, value in wanted)]
    return [row for row in mine if value_of(row, picture.y) is not None] if picture.y else mine


def values(rows: Iterable[Row], column: str) -> list[float]:
    """All numbers of a column."""
    return [value for row in rows if (value := value_of(row, column)) is not None]


def grouped(rows: Iterable[Row], by: Sequence[str], column: str) -> dict[tuple[Cell, ...], Figure]:
    """The figure of every group of rows that agree in the columns `by`, in the order in which they appear."""
    return {key: figure(found) for key, found in gathered(rows, by, column).items()}


def gathered(rows: Iterable[Row], by: Sequence[str], column: str) -> dict[tuple[Cell, ...], list[float]]:
    """The numbers of every such group."""
    groups: dict[tuple[Cell, ...], list[float]] = {}
    for row in rows:
        value = value_of(row, column)
        if value is not None:
            groups.setdefault(tuple(row.get(name) for name in by), []).append(value)
    return groups


# --- differences -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """What one side takes of another: ratios that were measured moments apart."""

    ratio: Figure
    """Of the first side to the second."""

    @property
    def distinct(self) -> bool:
        """Whether it is larger than the spread, and was seen more than twice. The same whichever side comes first."""
        found = self.ratio
        return found.count > 2 and found.low > 0 and abs(math.log(found.median)) > math.log(found.high / found.low)

    def words(self, first: str, second: str, what: str = "takes") -> str:
        """In a sentence: `a takes 2.1 × (1.9 … 2.3) what b takes`."""
        spread = f"{self.ratio.low:.3g} … {self.ratio.high:.3g}"
        if not self.distinct:
            if self.ratio.count <= 2:
                seen = "once" if self.ratio.count == 1 else "twice"
                return f"{first} and {second} were compared {seen} only, too seldom to tell: {self.ratio.median:.3g} ×"
            return f"no difference between {first} and {second}: {self.ratio.median:.3g} × ({spread})"
        return f"{first} {what} {self.ratio.median:.3g} × ({spread}) what {second} {what}"


def difference(first: Iterable[Row], second: Iterable[Row], column: str = "seconds") -> Difference | None:
    """Of two sides measured in the same rounds, a ratio a round; None where no round has both."""
    ratios = [value / other for value, other in _paired(first, second, column)]
    return Difference(figure(ratios)) if ratios else None


def gap(first: Iterable[Row], second: Iterable[Row], column: str = "seconds") -> Figure | None:
    """What one side takes more than another, a value for each round that has both; None where no round has."""
    pairs = list(_paired(first, second, column))
    return figure([value - other for value, other in pairs]) if pairs else None


def _paired(first: Iterable[Row], second: Iterable[Row], column: str) -> Iterator[tuple[float, float]]:
    sides = [{row.get("round"): value for row in side if (value := value_of(row, column))} for side in (first, second)]
    return ((value, sides[1][turn]) for turn, value in sides[0].items() if turn in sides[1])


# --- fits --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Coefficients, none of them negative, and what they leave of each value, as a share of it."""

    coefficients: tuple[float, ...]
    residuals: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The largest residual."""
        return max(map(abs, self.residuals), default=0.0)


def fit(terms: Sequence[Sequence[float]], wanted: Sequence[float]) -> Fit | None:
    """Least squares of the relative errors of `wanted[i] = sum(coefficient[j] * terms[i][j])`; None where undetermined.

    Costs are not negative: a coefficient that would be is 0, and the others are fitted anew.
    """
    active = [place for place in range(len(terms[0])) if any(row[place] for row in terms)] if terms else []
    while active:
        found = _solve([[row[place] / value for place in active] for row, value in zip(terms, wanted, strict=True)])
        if found is None:
            return None
        least = min(range(len(found)), key=found.__getitem__)
        if found[least] >= 0:
            every = [0.0] * len(terms[0])
            for place, value in zip(active, found, strict=True):
                every[place] = value
            return Fit(tuple(every), tuple(_left(every, row, value) for row, value in zip(terms, wanted, strict=True)))
        del active[least]
    return None


def _left(coefficients: Sequence[float], row: Sequence[float], value: float) -> float:
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

quantity, percent = format_quantity, format_percent


def with_spread(found: Figure, unit: str = "s") -> str:
    """`61 µs (60 µs … 63 µs)`; without a spread where there was one measurement."""
    if found.count < 2:
        return f"{quantity(found.median, unit)} (once)"
    return f"{quantity(found.median, unit)} ({quantity(found.low, unit)} … {quantity(found.high, unit)})"


def quartiles_apart(what: str, found: Iterable[Figure]) -> str:
    """In a sentence: `times of one way differ by up to 4% between their quartiles`, from the widest of these figures."""
    widest = max((each.spread / each.median for each in found if each.median), default=0.0)
    return f"{what} differ by up to {widest:.0%} between their quartiles"
