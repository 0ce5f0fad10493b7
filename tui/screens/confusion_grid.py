"""A confusion matrix as rows of text cells: names, widths and shares. Knows no widget.

Rows are true classes, columns are predicted ones. Next to a name is the share of its row (recall) or of its column
(precision) that is correct. Names and shares stay in place while the counts scroll.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from rich.cells import cell_len, set_cell_size

from epochtop.engine.protocol.quantities import UNKNOWN
from epochtop.engine.terminal.plain import masked

NONE = "·"
"""A count of 0, so that the other counts stand out."""
HEAD_ROWS = 3
"""Rows of the header: predicted names, precision, and the headings of the left columns."""
LEAST_LABEL, MOST_LABEL = 10, 24
RECALL_CELLS = 6


@dataclass(frozen=True)
class CellGrid:
    """Text cells, one width per column, ready to be styled."""

    counts: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    """Row names, `label_cells` wide."""
    recalls: tuple[str, ...]
    heads: tuple[str, ...]
    """Column names, or numbers if the names do not fit."""
    precisions: tuple[str, ...]
    widths: tuple[int, ...]
    """Width of every column in cells, including one empty cell after the text."""
    label_cells: int
    mark_cells: int
    """Width of the mark behind a count on the diagonal, at the end of its column."""

    @property
    def side_cells(self) -> int:
        """Width of the left part: name, recall and a rule."""
        return self.label_cells + RECALL_CELLS + 2

    @property
    def size(self) -> tuple[int, int]:
        """Total width and height in cells."""
        return self.side_cells + sum(self.widths), HEAD_ROWS + len(self.counts)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each column begins, right of the rule."""
        return tuple(accumulate(self.widths[:-1], initial=0))


def arrange(classes: Sequence[str], counts: Sequence[Sequence[int]], cells: int) -> CellGrid:
    """Lay out a square of counts for a space of `cells`; what is wider than that has to scroll.

    Columns have names if all of them fit, else the numbers that then stand before the names of the rows. Classes
    without a name are numbered.
    """
    names = _names(classes, len(counts))
    columns = tuple(zip(*counts, strict=True))
    precisions = [share(column[place], sum(column)) for place, column in enumerate(columns)]
    figures = [max(map(len, (*map(str, column), text))) for column, text in zip(columns, precisions, strict=True)]
    heads = names
    label_cells = _label_cells(names, cells - sum(_widths(heads, figures, 2)))
    if label_cells + RECALL_CELLS + 2 + sum(_widths(heads, figures, 2)) > cells:
        heads = [str(place) for place in range(len(names))]
        if names != heads:
            names = [f"{place:>{len(heads[-1])}} {name}" for place, name in enumerate(names)]
    spare = cells - LEAST_LABEL - RECALL_CELLS - 2
    widths = _widths(heads, figures, 2 if sum(_widths(heads, figures, 2)) <= spare else 1)
    scrolls = LEAST_LABEL + RECALL_CELLS + 2 + sum(widths) > cells
    label_cells = _label_cells(names, cells // 3 + RECALL_CELLS + 2 if scrolls else cells - sum(widths))
    return CellGrid(
        counts=tuple(map(tuple, counts)),
        labels=tuple(fitted(name, label_cells) for name in names),
        recalls=tuple(f"{share(row[place], sum(row)):>{RECALL_CELLS}}" for place, row in enumerate(counts)),
        heads=tuple(ended(head, width) for head, width in zip(heads, widths, strict=True)),
        precisions=tuple(ended(text, width) for text, width in zip(precisions, widths, strict=True)),
        widths=tuple(widths),
        label_cells=label_cells,
        mark_cells=min(*widths, max(len(str(row[place])) for place, row in enumerate(counts)) + 2),
    )


def _names(classes: Sequence[str], count: int) -> list[str]:
    return [printable(classes[place]) if place < len(classes) else str(place) for place in range(count)]


def _widths(heads: Sequence[str], figures: Sequence[int], gap: int) -> list[int]:
    return [max(cell_len(head), figure) + gap for head, figure in zip(heads, figures, strict=True)]


def _label_cells(names: Sequence[str], left: int) -> int:
    """As wide as the longest name, within what is left over and what is readable."""
    longest = max(LEAST_LABEL, *map(cell_len, names))
    return min(longest, MOST_LABEL, max(LEAST_LABEL, left - RECALL_CELLS - 2))


def share(part: int, total: int) -> str:
    """Percent, rounded down, so that 100% means all of them; a dash if `total` is 0."""
    return f"{100 * part // total}%" if total else UNKNOWN


def printable(name: str) -> str:
    """A name on one line, without characters that control a terminal; a dash if it is empty."""
    return masked("".join(char if char.isprintable() else "?" for char in name)) or UNKNOWN


def fitted(text: str, cells: int) -> str:
    """`text` in exactly `cells` cells; a cut text ends with an ellipsis."""
    return set_cell_size(text, cells) if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def right(text: str, cells: int) -> str:
    """`text` aligned right."""
    return " " * (cells - cell_len(text)) + text


def ended(text: str, cells: int) -> str:
    """`text` aligned right, and one empty cell."""
    return right(text, cells - 1) + " "


def most_confused(classes: Sequence[str], counts: Sequence[Sequence[int]], most: int = 3) -> list[tuple[str, str, int]]:
    """True class, predicted class and count of the most frequent errors, at most `most`."""
    pairs = [
        (count, true, predicted)
        for true, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    names = [fitted(name, min(cell_len(name), MOST_LABEL)) for name in _names(classes, len(counts))]
    return [(names[true], names[predicted], count) for count, true, predicted in pairs[:most]]
