"""Runs of the table, made without files."""

from __future__ import annotations

from typing import Any

from epochtop.engine.runs.index import RunSummary
from epochtop.engine.runs.table.details import RunDetails
from epochtop.engine.runs.table.labels import Labels
from epochtop.engine.runs.values.figures import SeriesFigures

NOW = 1_790_000_000.0


def run_details(
    run_id: str,
    config: dict[str, Any] | None = None,
    *,
    tags: tuple[str, ...] = (),
    age_s: float = 60.0,
    state: str = "finished",
    seconds: float | None = 90.0,
    **series: tuple[float, float, float],
) -> RunDetails:
    """A run. Each series has its last, lowest and highest value; `__` in its name stands for `/`."""
    figures = {
        name.replace("__", "/"): SeriesFigures(count=3, last=last, minimum=low, maximum=high)
        for name, (last, low, high) in series.items()
    }
    return RunDetails(
        path=f"/home/runs/{run_id}",
        kind="epochtop",
        summary=RunSummary(id=run_id, state=state, created=NOW - age_s, seconds=seconds),  # type: ignore[arg-type]
        config=config or {},
        series=figures,
        labels=Labels(tags),
        complete=True,
    )
