"""The last evaluation: all metrics and the confusion matrix.

Works on plain values; :meth:`ConfusionScreen.put` replaces them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip

from epochtop.engine.protocol.quantities import format_number
from epochtop.tui.cells.plain import PlainText, set_title
from epochtop.tui.screens.confusion_grid import (
    HEAD_ROWS,
    NONE,
    RECALL_CELLS,
    CellGrid,
    arrange,
    ended,
    fitted,
    most_confused,
    printable,
    right,
)

Counts = Sequence[Sequence[int]]

Cell = list[Segment]
"""One column of a row."""

NAMES = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "f1": "F1 (macro)",
    "r2": "R²",
    "mae": "MAE",
    "rmse": "RMSE",
    "bits_per_character": "bits per character",
    "exact_match": "all labels right",
    "label_accuracy": "accuracy per label",
}
"""Display names of metrics; a custom metric keeps its task's name."""

NO_MATRIX = "No confusion matrix: pairs of classes are counted for up to 100 classes."


class ConfusionMatrix(ScrollView, can_focus=True):
    """Counts by true and predicted class. Names and shares stay in place while the counts scroll."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "confusion--name",
        "confusion--share",
        "confusion--hit",
        "confusion--miss",
        "confusion--none",
    }
    DEFAULT_CSS = """
    ConfusionMatrix {
        scrollbar-size: 1 1;
        scrollbar-background: $surface;
        scrollbar-background-hover: $surface;
        scrollbar-background-active: $surface;
        scrollbar-corner-color: $surface;
        background: transparent;
        & > .confusion--name { color: $text; }
        & > .confusion--share { color: $text-muted; }
        & > .confusion--hit { color: $text-success; background: $success-muted; text-style: bold; }
        & > .confusion--miss { color: $text-error; }
        & > .confusion--none { color: $text-disabled; }
    }
    """

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._grid: CellGrid | None = None

    def put(self, grid: CellGrid, most: Size) -> None:
        """Show a matrix in a space of at most `most`."""
        width, height = grid.size
        tall = height > most.height
        wide = width + tall > most.width
        tall = height + wide > most.height
        self.styles.width = min(width + tall, most.width)
        self.styles.height = min(height + wide, most.height)
        self._grid = grid
        self.virtual_size = Size(width, height)
        self.refresh()

    def action_scroll_left(self) -> None:
        """Scroll left by one column."""
        self._turn([start for start in self._starts() if start < self.scroll_x][-1:])

    def action_scroll_right(self) -> None:
        """Scroll right by one column."""
        self._turn([start for start in self._starts() if start > self.scroll_x][:1])

    def _starts(self) -> tuple[int, ...]:
        return self._grid.starts if self._grid is not None else ()

    def _turn(self, start: list[int]) -> None:
        if start:
            self.scroll_to(x=start[0], animate=False)

    def render_line(self, y: int) -> Strip:
        """The visible part of a row."""
        grid, width = self._grid, self.scrollable_content_region.width
        row = y - HEAD_ROWS + (self.scroll_offset.y if y >= HEAD_ROWS else 0)
        if grid is None or row >= len(grid.counts):
            return Strip.blank(width, self.rich_style)
        side, columns = self._head(grid, y) if y < HEAD_ROWS else self._row(grid, row)
        room = max(0, width - grid.side_cells)
        return Strip([*side, *self._in_view(grid, columns, room)]).adjust_cell_length(width, self.rich_style)

    def _in_view(self, grid: CellGrid, columns: list[Cell], room: int) -> list[Segment]:
        """The columns that are completely visible: half a number would be a different number."""
        left = self.scroll_offset.x
        visible = [
            (start, cell)
            for start, width, cell in zip(grid.starts, grid.widths, columns, strict=True)
            if left <= start and start + width <= left + room
        ]
        gap = visible[0][0] - left if visible else 0
        return [Segment(" " * gap, self._style("none")), *(segment for _, cell in visible for segment in cell)]

    def _head(self, grid: CellGrid, y: int) -> tuple[list[Segment], list[Cell]]:
        name, quiet = self._style("name"), self._style("share")
        left = grid.label_cells + RECALL_CELLS
        corner = (
            right("predicted", left),
            right("precision", left),
            fitted("true", grid.label_cells) + right("recall", RECALL_CELLS),
        )[y]
        columns = (grid.heads, grid.precisions, [""] * len(grid.heads))[y]
        return [Segment(f"{corner} │", quiet)], [[Segment(text, quiet if y else name)] for text in columns]

    def _row(self, grid: CellGrid, row: int) -> tuple[list[Segment], list[Cell]]:
        side = [
            Segment(grid.labels[row], self._style("name")),
            Segment(f"{grid.recalls[row]} │", self._style("share")),
        ]
        miss, none = self._style("miss"), self._style("none")
        columns: list[Cell] = []
        for column, (count, width) in enumerate(zip(grid.counts[row], grid.widths, strict=True)):
            text = ended(str(count) if count else NONE, width)
            if row == column:
                place = width - grid.mark_cells
                columns.append([Segment(text[:place], none), Segment(text[place:], self._style("hit"))])
            else:
                columns.append([Segment(text, miss if count else none)])
        return side, columns

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"confusion--{name}")


class ConfusionScreen(ModalScreen[None]):
    """All metrics of an evaluation and, for a classifier, its confusion matrix. Escape closes it."""

    DEFAULT_CSS = """
    ConfusionScreen {
        align: center middle;
        & > Vertical {
            width: auto;
            max-width: 95%;
            height: auto;
            border: round $border;
            border-title-color: $text;
            border-subtitle-color: $text-muted;
            background: $surface;
            padding: 0 1;
        }
        & Static { width: auto; max-width: 100%; height: auto; }
        & #matrix { margin-top: 1; }
        & #verdict { margin-top: 1; max-height: 2; color: $text-muted; }
        &.-low #matrix { margin-top: 0; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "close", id="confusion.close"),
        Binding("q", "dismiss", show=False, id="confusion.quit"),
        Binding("enter", "dismiss", show=False, id="confusion.done"),
    ]
    FRAME_CELLS = 4
    LOW = 20
    """Rows of a terminal below which the figures and the matrix have the box to themselves."""

    def __init__(
        self,
        classes: Sequence[str],
        confusion: Counts | None,
        metrics: Mapping[str, float | None],
        title: str = "Evaluation",
    ) -> None:
        super().__init__()
        self._names, self._counts, self._figures, self._headline = tuple(classes), confusion, dict(metrics), title

    def compose(self) -> ComposeResult:
        """Metrics, matrix, and the most frequent errors."""
        with Vertical() as box:
            box.border_subtitle = "esc closes"
            yield PlainText(id="figures")
            yield ConfusionMatrix(id="matrix")
            yield PlainText(id="verdict")

    def on_mount(self) -> None:
        """Show the evaluation."""
        self._show()

    def on_resize(self, _event: events.Resize) -> None:
        """Fit the names to the new size."""
        self._show()

    def put(self, confusion: Counts | None, metrics: Mapping[str, float | None], title: str = "Evaluation") -> None:
        """Show another evaluation of the same classes."""
        self._counts, self._figures, self._headline = confusion, dict(metrics), title
        self._show()

    def _show(self) -> None:
        width, height = self.app.size
        cells, low = width * 95 // 100 - self.FRAME_CELLS, height < self.LOW
        lines = figures(self._figures, cells)
        self.set_class(low, "-low")
        set_title(self.query_one(Vertical), self._headline)
        header = self.query_one("#figures", PlainText)
        header.show(Text("\n").join(lines))
        header.styles.min_width = min(cells, max(30, cell_len(self._headline) + 4))
        matrix, verdict = self.query_one(ConfusionMatrix), self.query_one("#verdict", PlainText)
        matrix.display = self._counts is not None
        text = _verdict(self._names, self._counts, self._figures, cells)
        verdict.show(text)
        verdict.display = bool(text) and not low
        if self._counts is not None:
            others = len(lines) + (2 if low else 2 + 1 + 3)
            matrix.put(arrange(self._names, self._counts, cells), Size(cells, max(5, height - others)))


def figures(metrics: Mapping[str, float | None], cells: int) -> list[Text]:
    """Names and values of the metrics, as many per line as fit into `cells`."""
    parts = [
        Text.assemble((NAMES.get(name, printable(name)), "dim"), " ", (format_number(value), "bold"))
        for name, value in metrics.items()
    ]
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 3 + part.cell_len <= cells:
            lines[-1].append("   ").append_text(part)
        else:
            lines.append(part)
    return lines or [Text("no metrics")]


def _verdict(names: Sequence[str], counts: Counts | None, metrics: Mapping[str, float | None], cells: int) -> str:
    if counts is None:
        return NO_MATRIX if "f1" in metrics else ""
    errors = [f"{true} as {predicted} {count:,}×" for true, predicted, count in most_confused(names, counts)]
    if not errors:
        return "All predictions are correct." if any(map(any, counts)) else "No rows."
    texts = [f"Most frequent errors: {', '.join(errors[:most])}" for most in range(len(errors), 0, -1)]
    return next((text for text in texts if cell_len(text) <= cells), texts[-1])
