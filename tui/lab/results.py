"""What the Lab page does with results: hold one against another, export the rows of one, delete one.

Abstract: which results there are, and what is shown of them, is the page's.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from textual import on, work
from textual.screen import Screen

from epochtop.engine.lab.comparison import Comparison
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import delete
from epochtop.engine.runs.paths import lab_home
from epochtop.engine.runs.reader import is_alive
from epochtop.tui.cells.canvas import Row
from epochtop.tui.lab.comparison_rows import page, sides, title
from epochtop.tui.lab.kept import Kept
from epochtop.tui.lab.lists import KeptList
from epochtop.tui.lab.stage import LabStage


class ResultsScreen(Screen[None]):
    """Has a stage of one result or two, and a list of what is kept."""

    home: Path
    stage: LabStage
    kept: KeptList
    every: list[Kept]
    """All that is kept as it was last listed, the newest first."""

    _page: tuple[Comparison, object, list[Row]] | None = None
    """The rows of a comparison, and what they were made for."""

    # --- what the page has to do -------------------------------------------------------------------------

    @abstractmethod
    def show_stage(self, *, turn: bool) -> None:
        """Draw what is on the stage now, from its beginning; `turn` shows that side of the page."""

    @abstractmethod
    def show_nothing(self) -> None:
        """No result is shown."""

    @abstractmethod
    def list_kept(self, kept: list[Kept]) -> None:
        """Show what is kept."""

    # --- comparing ---------------------------------------------------------------------------------------

    def heading(self) -> str:
        """Which result is shown, or which two."""
        comparison, shown = self.stage.comparison, self.stage.shown
        if comparison is not None:
            return title(comparison)
        return f"Result · {shown.state.name}" if shown else "Result"

    def comparison_rows(self, found: Comparison, width: int, height: int, now: float) -> list[Row]:
        """What there is to say of two results; made anew only when that has changed, as it costs over 10 ms."""
        key = width, height, [text for text, _ in sides(found, width, now)]
        if self._page is None or self._page[0] is not found or self._page[1] != key:
            self._page = found, key, page(found, width, height, now)
        return self._page[2]

    @on(KeptList.CompareWanted)
    def _compare(self, event: KeptList.CompareWanted) -> None:
        """The shown one with the one under the cursor; with the newest other where both are the same."""
        shown, against = self.stage.shown, self.stage.against
        if shown is None:
            return
        if against is not None and event.run_id in (against.run.name, shown.run.name):
            self.stop_comparing()
            return
        other = event.run_id if event.run_id != shown.run.name else self._newest_beside(shown.state.asked.name)
        if not other:
            self.notify("this is the only result of this experiment; a second one can be compared with it")
            return
        try:
            self.stage.compare(lab_home(self.home) / other)
        except Invalid as error:
            self.notify(error.message, title="cannot compare", severity="error")
            return
        self.show_stage(turn=True)

    def _newest_beside(self, experiment: str) -> str:
        shown = self.stage.shown.run.name if self.stage.shown else ""
        return next((each.id for each in self.every if each.experiment == experiment and each.id != shown), "")

    def stop_comparing(self) -> bool:
        """Show the one result alone again. True if there were two."""
        if self.stage.against is None:
            return False
        self.stage.close_against()
        self.show_stage(turn=False)
        return True

    # --- files -------------------------------------------------------------------------------------------

    def action_export(self) -> None:
        """Write the rows into the folder epochtop was started in."""
        from epochtop.tui.lab.kept import export_rows

        if self.stage.shown is None:
            return
        path = Path.cwd() / f"{self.stage.shown.run.name}.csv"
        try:
            export_rows(self.stage.shown.run, "csv", str(path))
        except Invalid as error:
            self.notify(str(error), title="not exported", severity="error")
            return
        self.notify(str(path), title="exported")

    @on(KeptList.Unwanted)
    @work
    async def _unwanted(self, event: KeptList.Unwanted) -> None:
        from epochtop.tui.forms.dialogs import Question

        if is_alive(lab_home(self.home) / event.run_id):
            self.notify(f"{event.run_id} is still measuring; ctrl+x ends it", severity="warning")
            return
        text = f"Delete {event.run_id} with its rows and its verdict? It cannot be brought back."
        if await self.app.push_screen_wait(Question(text, (("cancel", "Keep"), ("delete", "Delete")))) != "delete":
            return
        try:
            delete(lab_home(self.home) / event.run_id)
        except Invalid as error:
            self.notify(error.message, title="not deleted", severity="error")
            return
        self.forget(event.run_id)

    def forget(self, run_id: str) -> None:
        """A result is gone."""
        if self.stage.against is not None and self.stage.against.run.name == run_id:
            self.stop_comparing()
        if self.stage.shown is not None and self.stage.shown.run.name == run_id:
            self.show_nothing()
        self.list_kept([each for each in self.every if each.id != run_id])
        self.kept.look()
