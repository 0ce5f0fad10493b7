"""The list of runs: a table of any length that draws only the rows that changed."""

from __future__ import annotations

import math
import threading
import time
from asyncio import to_thread
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual import events, work
from textual.binding import Binding, BindingType
from textual.message import Message

from epochtop.engine.protocol.quantities import UNKNOWN, format_age, format_number, format_seconds
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import RunSummary, delete, fingerprint, rename, run_paths, summarize
from epochtop.engine.runs.opened.folders import EPOCHTOP, OpenedLogs, hide
from epochtop.engine.terminal.plain import plain_line
from epochtop.tui.cells.plain import set_subtitle
from epochtop.tui.cells.rows import TEXT
from epochtop.tui.cells.table import GAP, Cell, CellTable, TableColumn
from epochtop.tui.forms.dialogs import Entries, Question
from epochtop.tui.screens.status import MARKS

if TYPE_CHECKING:
    from epochtop.engine.runs.opened.summary import LogSummary

LIST_S = 1.0
"""Seconds between two readings of the home folder."""
LIVE_S = 5.0
"""Seconds between two updates of a live run's figures, for a slow connection."""
PIECE_S = 0.5
"""Seconds of reading after which the runs that were read are shown."""
SHARE = 20
"""Listings take at most one part in SHARE of the time."""

HEADINGS = ("", "run", "state", "loss", "device", "time", "age", "")
WIDTHS = (1, 0, 8, 8, 6, 12, 6, 1)
"""Cells per column; the run's name gets the rest, within NAME."""
NAME = (12, 44)


class Lister:
    """Summaries of all runs of the home folder and of opened folders. Finished runs are read once. Not thread-safe."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._cache: dict[Path, tuple[object, RunSummary]] = {}
        self._opened = OpenedLogs(home)
        self._logs: dict[Path, LogSummary] = {}
        """Summaries of logs of other tools."""

    def list(self, seconds: float = math.inf) -> list[RunSummary]:
        """The newest runs first. After about `seconds` of reading, older runs are left to the next call."""
        deadline = time.monotonic() + seconds
        logs = self._opened.list()
        elsewhere = [log.path for log in logs if log.kind == EPOCHTOP]
        old, self._cache = self._cache, {}
        for path in [*run_paths(self._home), *elsewhere]:
            if path in old or time.monotonic() <= deadline:
                self._cache[path] = self._entry(path, old.get(path))
        own = [summary for _, summary in self._cache.values()]
        if not logs:
            return own
        from epochtop.engine.runs.opened.summary import LogSummary  # not before a log is opened

        self._logs = {log.path: self._logs.get(log.path) or LogSummary(log) for log in logs if log.kind != EPOCHTOP}
        summaries = [*own, *(summary.update() for summary in self._logs.values())]
        return sorted(summaries, key=lambda summary: summary.created, reverse=True)

    def _entry(self, path: Path, cached: tuple[object, RunSummary] | None) -> tuple[object, RunSummary]:
        key = fingerprint(path)
        if cached is not None and cached[0] == key:
            return cached
        summary = summarize(path)
        if path.parent != self._home:
            summary = msgspec.structs.replace(summary, id=str(path))
        return key, summary


def _row(summary: RunSummary, now: float, mark: str, width: int) -> tuple[str, ...]:
    return (
        MARKS[summary.state],
        _fit(plain_line(summary.name or summary.id), width),
        summary.state,
        format_number(summary.final_loss),
        summary.device or UNKNOWN,
        format_seconds(summary.seconds),
        format_age(now - summary.created),
        mark,
    )


def _fit(name: str, width: int) -> str:
    """A name in its column. It keeps its end, where ids of the same dataset differ."""
    return name if len(name) <= width else f"{name[: width - 5]}…{name[-4:]}"


class RunList(CellTable):
    """All runs of the home folder. Renames and deletes them itself, after a question.

    With `live` false nothing is read, and tests call :meth:`show`. `now` returns Unix seconds.
    """

    BORDER_TITLE = "Runs"
    BINDING_GROUP_TITLE = "Runs"
    DEFAULT_CSS = """
    RunList { height: 1fr; padding: 0 0 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose('open')", "open", id="runs.open", tooltip="Open this run; a live one continues"),
        Binding("o", "choose('overlay')", "overlay", id="runs.overlay", tooltip="Draw this run behind the open one"),
        Binding("f", "choose('load')", "settings", id="runs.load", tooltip="Copy this run's settings to the Run panel"),
        Binding("n", "rename", "rename", id="runs.rename", tooltip="Rename this run"),
        Binding("delete,d", "delete", "delete", id="runs.delete", tooltip="Delete this run, after a question"),
    ]

    @dataclass
    class Chosen(Message):
        """Open a run (`open`), draw it behind the open one (`overlay`), or copy its settings (`load`)."""

        action: str
        run_id: str

    @dataclass
    class Listed(Message):
        """The runs of the home folder."""

        summaries: list[RunSummary]

        def can_replace(self, message: Message) -> bool:
            """A level: only the newest counts."""
            return isinstance(message, RunList.Listed)

    @dataclass
    class Deleted(Message):
        """A run was deleted."""

        run_id: str

    def __init__(
        self,
        home: Path,
        *,
        live: bool = True,
        now: Callable[[], float] = time.time,
        id: str | None = None,  # noqa: A002 - Textual's name
    ) -> None:
        super().__init__(fixed=2, id=id)
        self._home, self.live, self.now = home, live, now
        self._lister = Lister(home)
        self._listing = threading.Lock()
        self._next_s = 0.0
        """Monotonic time before which the home folder is not read again."""
        self._ids: list[str] = []
        self._rows_shown: dict[str, tuple[str, ...]] = {}
        """Texts of the rows that were drawn, by id."""
        self.summaries: dict[str, RunSummary] = {}
        self._figures_until = 0.0
        self._opened = ""
        self._overlaid: set[str] = set()

    def on_mount(self) -> None:
        """Start reading; runs may be listed before the size is known."""
        if self.live:
            self.set_interval(LIST_S, self._look_again)
            self.look()

    def on_resize(self, event: events.Resize) -> None:
        """Give the name column the rest of the width."""
        super().on_resize(event)
        self._rows_shown = {}
        self._show_ids()

    @property
    def _name_width(self) -> int:
        used = sum(WIDTHS) + GAP * (len(WIDTHS) - 1)
        return max(NAME[0], min(NAME[1], self.size.width - used))

    def _show_ids(self) -> None:
        """Show the rows of all runs, in columns of fixed widths, so that nothing moves."""
        columns = [
            TableColumn(str(place), label, width or self._name_width)
            for place, (label, width) in enumerate(zip(HEADINGS, WIDTHS, strict=True))
        ]
        self.show_rows(columns, len(self._ids), self._cells_of)

    def _cells_of(self, index: int) -> list[Cell]:
        run_id = self._ids[index]
        if run_id not in self._rows_shown:
            self._rows_shown[run_id] = self._row(self.summaries[run_id], self.now())
        return [(text, TEXT) for text in self._rows_shown[run_id]]

    def _row(self, run: RunSummary, now: float) -> tuple[str, ...]:
        new = _row(run, now, self._mark_of(run.id), self._name_width)
        old = self._rows_shown.get(run.id)
        same = old is not None and (old[2], old[4], old[-1]) == (new[2], new[4], new[-1])
        if old is not None and same and run.state == "running" and now < self._figures_until:
            return old
        if run.state == "running":
            self._figures_until = now + LIVE_S
        return new

    def _mark_of(self, run_id: str) -> str:
        return "◂" if run_id == self._opened else "▪" if run_id in self._overlaid else ""

    def mark(self, opened: str, overlaid: set[str]) -> None:
        """Mark the open run and its overlays, by id."""
        self._opened, self._overlaid = opened, overlaid
        self.show(list(self.summaries.values()))

    def _look_again(self) -> None:
        if time.monotonic() >= self._next_s:
            self.look()

    def look(self) -> None:
        """Read the home folder in a thread: the disk may be slow."""
        if self._listing.acquire(blocking=False):
            threading.Thread(target=self._read, name="list runs", daemon=True).start()

    def _read(self) -> None:
        start = time.monotonic()
        try:
            self.post_message(self.Listed(self._lister.list(PIECE_S)))
        finally:
            took = time.monotonic() - start
            self._next_s = start + (SHARE * took if took < PIECE_S else 0.0)
            self._listing.release()

    def on_run_list_listed(self, event: Listed) -> None:
        """Show the runs that were read."""
        self.show(event.summaries)

    def show(self, summaries: list[RunSummary]) -> None:
        """Show these runs."""
        chosen, ids = self.chosen, [run.id for run in summaries]
        self.summaries = {run.id: run for run in summaries}
        if ids != self._ids:
            self._ids, self._rows_shown = ids, {}
            self._show_ids()
            if chosen in self.summaries:
                self.move_to(ids.index(chosen))
        else:
            self._update()
        self._explain()

    def _update(self) -> None:
        """Draw the visible rows that have changed."""
        now, before = self.now(), self._rows_shown
        self._rows_shown = {}
        for index in self.visible_rows:
            run_id = self._ids[index]
            old = before.get(run_id)
            if old is not None:
                self._rows_shown[run_id] = old
                self._rows_shown[run_id] = self._row(self.summaries[run_id], now)
            if old is None or old != self._rows_shown[run_id]:
                self.redraw_row(index)

    @property
    def chosen(self) -> str:
        """Id of the selected run; empty if there is none."""
        return self._ids[self.cursor] if self.cursor < len(self._ids) else ""

    def _explain(self) -> None:
        summary = self.summaries.get(self.chosen)
        note = summary.note if summary else "none yet"
        set_subtitle(self, note if len(note) <= 90 else note[:89] + "…")

    def on_cell_table_moved(self) -> None:
        """Explain how the selected run ended."""
        self._explain()

    def on_cell_table_row_clicked(self) -> None:
        """Open the run on a click."""
        self.action_choose("open")

    def open(self, run_id: str) -> None:
        """Report that a run is to be opened."""
        self.post_message(self.Chosen("open", run_id))

    def action_choose(self, action: str) -> None:
        """Report an action on the selected run."""
        if self.chosen:
            self.post_message(self.Chosen(action, self.chosen))

    @work
    async def action_rename(self) -> None:
        """Ask for a name."""
        chosen = self.chosen
        if not chosen:
            return
        answer = await self.app.push_screen_wait(
            Entries(f"New name of {chosen}; the id stays the same:", {"name": self.summaries[chosen].name})
        )
        if answer is not None:
            await self._try(lambda: rename(self._home / chosen, answer["name"]))

    @work
    async def action_delete(self) -> None:
        """Delete, after a question."""
        chosen = self.chosen
        if not chosen:
            return
        if (self._home / chosen).parent != self._home:
            await self._remove(chosen)
            return
        text = f"Delete {chosen} with its losses and checkpoints? This cannot be undone."
        if await self.app.push_screen_wait(Question(text, (("cancel", "Keep"), ("delete", "Delete")))) == "delete":
            await self._try(lambda: delete(self._home / chosen))
            if not (self._home / chosen).exists():
                self.post_message(self.Deleted(chosen))

    async def _remove(self, chosen: str) -> None:
        """Take a run that is stored elsewhere off the list, after a question."""
        text = f"Remove {chosen} from this list? Its files stay as they are."
        answers = (("cancel", "Keep"), ("remove", "Remove"))
        if await self.app.push_screen_wait(Question(text, answers)) == "remove":
            await self._try(lambda: hide(self._home, self._home / chosen))

    async def _try(self, change: Callable[[], None]) -> None:
        """Make a change in a thread: the disk or another machine may be slow."""
        try:
            await to_thread(change)
        except (Invalid, OSError) as error:
            self.notify(str(error), severity="error")
        self.look()
