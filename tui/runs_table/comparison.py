"""Settings of several runs next to each other: configuration, git, versions, last values. Only what differs, or all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from epochtop.engine.protocol.quantities import UNKNOWN, plural
from epochtop.engine.runs.table.details import RunDetails
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.key_footer import KeyFooter
from epochtop.tui.cells.plain import set_subtitle, set_title
from epochtop.tui.cells.rows import EMPTY, QUIET, STRONG, TEXT, cut, row, shortened
from epochtop.tui.cells.view import Page
from epochtop.tui.runs_table.columns import config_names, config_value, series_names, show_value

MOST_RUNS = 8
"""Runs that are compared at once."""
LABEL_CELLS = 28
LEAST_CELLS = 12

Entry = tuple[str, tuple[str, ...]]
"""A name and its text in every run."""


def entries(runs: Sequence[RunDetails]) -> dict[str, list[Entry]]:
    """Everything that is compared, by section."""
    versions = dict.fromkeys(name for run in runs for name in run.versions)
    commits = [(f"{run.git.commit[:10]}{' + changes' if run.git.dirty else ''}" if run.git else "") for run in runs]
    return {
        "Configuration": [
            (name, _texts(show_value(config_value(run.config.get(name))) for run in runs))
            for name in config_names(runs)
        ],
        "Git": [
            ("commit", _texts(commits)),
            ("branch", _texts(run.git.branch if run.git else "" for run in runs)),
        ],
        "Versions": [(name, _texts(run.versions.get(name, "") for run in runs)) for name in versions],
        "Run": [
            ("state", _texts(run.summary.state for run in runs)),
            ("source", _texts(run.summary.dataset for run in runs)),
            ("command", _texts(" ".join(run.command) for run in runs)),
            ("host", _texts(run.host for run in runs)),
            ("user", _texts(run.user for run in runs)),
        ],
        "Last values": [
            (name, _texts(show_value(run.series[name].last) if name in run.series else "" for run in runs))
            for name in series_names(runs)
        ],
    }


def _texts(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text or UNKNOWN for text in texts)


def comparison_rows(runs: Sequence[RunDetails], width: int, only_different: bool) -> list[Row]:
    """The comparison in rows of at most `width` cells: a column per run. The last row counts runs that do not fit."""
    label = min(LABEL_CELLS, max(LEAST_CELLS, width // 5))
    room = max(1, (width - label) // (LEAST_CELLS + 1))
    left_out, runs = len(runs) - room, runs[:room]
    cells = max(LEAST_CELLS, (width - label) // max(1, len(runs)) - 1)
    rows = [row((" " * label, TEXT), *((f"{shortened(run.name, cells):<{cells + 1}}", STRONG) for run in runs))]
    for section, listed in entries(runs).items():
        lines = [
            row(
                (f"{cut(name, label - 1):<{label}}", QUIET),
                *((f"{cut(text, cells):<{cells + 1}}", role) for text in texts),
            )
            for name, texts in listed
            for role in [STRONG if len(set(texts)) > 1 else TEXT]
            if len(set(texts)) > 1 or (not only_different and set(texts) != {UNKNOWN})
        ]
        if lines:
            rows += [EMPTY, row((section, QUIET)), *lines]
    if len(rows) == 1:
        rows += [EMPTY, row((cut("These runs do not differ in anything that was recorded.", width), TEXT))]
    if left_out > 0:
        rows += [EMPTY, row((cut(f"{plural(left_out, 'run')} not shown: the terminal is too narrow", width), QUIET))]
    return rows


class ComparisonScreen(ModalScreen[None]):
    """Settings of several runs next to each other."""

    DEFAULT_CSS = """
    ComparisonScreen { background: $background; }
    ComparisonScreen Page { border: round $border; border-title-color: $text; border-subtitle-color: $text-muted; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,v", "dismiss", "back", id="comparison.back", tooltip="Close the comparison"),
        Binding(
            "a", "toggle_equal", "all / different", id="comparison.all", tooltip="Show everything, or only what differs"
        ),
        Binding("question_mark", "app.help", "help", id="comparison.help", tooltip="Show or hide all keys"),
        Binding("ctrl+q", "app.quit", "quit", id="comparison.quit", tooltip="Quit; a run can continue"),
    ]

    def __init__(self, runs: Sequence[RunDetails]) -> None:
        super().__init__()
        self._left_out = len(runs) - MOST_RUNS
        self._runs = list(runs[:MOST_RUNS])
        self._only_different = True

    def compose(self) -> ComposeResult:
        """The rows and the keys."""
        page = Page(self._rows, id="comparison")
        set_title(page, f"{plural(len(self._runs), 'run')} side by side")
        yield page
        yield KeyFooter()

    def _rows(self, width: int, _height: int) -> list[Row]:
        return comparison_rows(self._runs, width, self._only_different)

    def on_mount(self) -> None:
        """Focus the page, so that keys scroll it."""
        self.query_one(Page).focus()
        self._explain()

    def _explain(self) -> None:
        what = "what differs" if self._only_different else "everything"
        more = f" · {plural(self._left_out, 'run')} left out" if self._left_out > 0 else ""
        set_subtitle(self.query_one(Page), f"{what}{more}")

    def action_toggle_equal(self) -> None:
        """Show everything, or only what differs."""
        self._only_different = not self._only_different
        self.query_one(Page).draw()
        self._explain()
