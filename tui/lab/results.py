"""What the Lab page does with results: compare two, export the rows of one, delete one. Knows no widget."""

from __future__ import annotations

from pathlib import Path

from epochtop.engine.lab.comparison import Comparison
from epochtop.engine.runs.index import delete
from epochtop.engine.runs.paths import lab_home
from epochtop.engine.runs.reader import is_alive
from epochtop.tui.cells.canvas import Row
from epochtop.tui.lab.comparison_rows import page, sides, title
from epochtop.tui.lab.saved_results import SavedResult
from epochtop.tui.lab.stage import LabStage


class Results:
    """The results in one home folder, and the ones on `stage`."""

    def __init__(self, home: Path, stage: LabStage) -> None:
        self._folder, self._stage = lab_home(home), stage
        self.listed: list[SavedResult] = []
        """All results as last listed, the newest first."""
        self._page: tuple[Comparison, object, list[Row]] | None = None
        """The rows of a comparison, and the comparison and size they were made for."""

    def of(self, experiment: str) -> list[SavedResult]:
        """The results of one experiment, the newest first."""
        return [result for result in self.listed if result.experiment == experiment]

    def newest(self, experiment: str) -> SavedResult | None:
        """The newest result of an experiment."""
        return next(iter(self.of(experiment)), None)

    def path(self, run_id: str) -> Path:
        """The run directory of a result."""
        return self._folder / run_id

    # --- comparing ---------------------------------------------------------------------------------------

    def heading(self) -> str:
        """Title of the open result, or of both compared ones."""
        comparison, shown = self._stage.comparison, self._stage.shown
        if comparison is not None:
            return title(comparison)
        return f"Result · {shown.name}" if shown else "Result"

    def comparison_rows(self, comparison: Comparison, width: int, height: int, now: float) -> list[Row]:
        """The comparison as rows; reused until it or the size changes, because they take over 10 ms."""
        key = width, height, [text for text, _ in sides(comparison, width, now)]
        if self._page is None or self._page[0] is not comparison or self._page[1] != key:
            self._page = comparison, key, page(comparison, width, height, now)
        return self._page[2]

    def is_compared(self, run_id: str) -> bool:
        """Whether a comparison is open that has this result."""
        shown, against = self._stage.shown, self._stage.against
        return shown is not None and against is not None and run_id in (against.run.name, shown.run.name)

    def partner(self, run_id: str) -> str:
        """The result to compare the open one with: `run_id`, or the newest other of the experiment if that is the open one.

        Empty if there is no other.
        """
        shown = self._stage.shown
        assert shown is not None
        if run_id != shown.run.name:
            return run_id
        return next((result.id for result in self.of(shown.state.asked.name) if result.id != run_id), "")

    # --- files -------------------------------------------------------------------------------------------

    def export(self) -> Path:
        """Write the rows of the open result as CSV into the folder where epochtop was started. Raises Invalid."""
        from epochtop.tui.lab.saved_results import export_rows

        assert self._stage.shown is not None
        path = Path.cwd() / f"{self._stage.shown.run.name}.csv"
        export_rows(self._stage.shown.run, "csv", str(path))
        return path

    def is_running(self, run_id: str) -> bool:
        """Whether the experiment is still measuring."""
        return is_alive(self.path(run_id))

    def delete(self, run_id: str) -> None:
        """Delete a result. Raises Invalid."""
        delete(self.path(run_id))
        self.listed = [result for result in self.listed if result.id != run_id]
