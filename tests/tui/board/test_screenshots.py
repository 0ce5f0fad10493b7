"""Pictures of the grid in three sizes, with 1, 2, 5 and 40 series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.support.ui.screens import beating, furnished, has_read_all, still_app
from tests.tui.board.test_board import complete, script_run
from tests.tui.screens.test_screenshots import SIZES, Compare


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_the_grid(snap_compare: Compare, tmp_path: Path, count: int, size: str) -> None:
    run = script_run(tmp_path, count)
    app = still_app(tmp_path)

    async def run_before(pilot: Pilot[Any]) -> None:
        await furnished(pilot)
        app.open(run)
        await beating(app, pilot, lambda: has_read_all(app))
        app.main.board.focus_view()
        await pilot.press("g")
        await beating(app, pilot, lambda: complete(app.main.board) and has_read_all(app))
        app.beat()
        await pilot.pause()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=run_before)
