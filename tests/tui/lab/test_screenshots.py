"""Pictures of the Lab page in every state and size. Look at a difference before taking it over (see CONTRIBUTING)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from epochtop.tui.lab.screen import LabScreen
from tests.support.lab_runs import CREATED, events_of, events_with, rows_of_reads, slower, write_experiment
from tests.support.runs import engine_alive
from tests.support.ui.lab_screens import in_the_lab, settled, show_result
from tests.support.ui.screens import still_app

SIZES = {"80x24": (80, 24), "120x40": (120, 40), "200x60": (200, 60)}
BOTH = ("cpu", "cuda:0")
Compare = Callable[..., bool]
Then = Callable[[Pilot[Any], LabScreen], Awaitable[None]]


def picture(
    snap_compare: Compare, home: Path, state: str, size: str, devices: tuple[str, ...] = BOTH, then: Then | None = None
) -> bool:
    """Whether the page with a result in `state` looks as it did."""
    write_experiment(home, "reads-11c0", events_of("stopped", devices), age_s=90_000, quick=True)
    with ExitStack() as stack:
        run = write_experiment(home, "reads-7f3a", events_of(state, devices)) if state != "list" else None
        if run is not None and state == "running":
            stack.enter_context(engine_alive(run))

        async def run_before(pilot: Pilot[Any]) -> None:
            lab = await in_the_lab(pilot)
            if run is not None:
                await show_result(pilot, run)
            if then is not None:
                await then(pilot, lab)
            await settled(pilot)

        return snap_compare(still_app(home), run_before=run_before, terminal_size=SIZES[size])


@pytest.mark.parametrize("size", ["80x24", "120x40"])
@pytest.mark.parametrize("state", ["list", "running", "finished", "failed"])
def test_the_lab_in_a_state(snap_compare: Compare, home: Path, state: str, size: str) -> None:
    assert picture(snap_compare, home, state, size)


@pytest.mark.parametrize("state", ["running", "finished"])
def test_the_lab_on_a_wide_screen(snap_compare: Compare, home: Path, state: str) -> None:
    assert picture(snap_compare, home, state, "200x60")


@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_the_end_of_a_verdict_without_a_gpu(snap_compare: Compare, home: Path, size: str) -> None:
    async def then(pilot: Pilot[Any], lab: LabScreen) -> None:
        lab.result.focus()
        await pilot.press("end")
        while not lab.result.is_vertical_scroll_end:
            await pilot.pause(0.05)

    assert picture(snap_compare, home, "finished", size, ("cpu",), then)


def test_the_fields_of_an_experiment(snap_compare: Compare, home: Path) -> None:
    async def then(pilot: Pilot[Any], lab: LabScreen) -> None:
        lab.about.focus_first()
        lab.query_one("#field-steps").value = "many"  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        pilot.app.clear_notifications()
        await pilot.pause()

    assert picture(snap_compare, home, "list", "80x24", ("cpu",), then)


@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_two_results_compared(snap_compare: Compare, home: Path, size: str) -> None:
    older = events_with(slower(rows_of_reads(9, BOTH, seed=2), 1 / 1.6, device="cuda:0", every=1), BOTH)
    write_experiment(home, "reads-0a41", older, age_s=4000, hidden=(64,))

    async def run_before(pilot: Pilot[Any]) -> None:
        lab = await in_the_lab(pilot)
        lab.result_list.focus()
        await pilot.press("home", "o")
        await settled(pilot)
        while lab.stage.against is None or not lab.stage.against.following.done:
            await pilot.pause(0.01)
        await settled(pilot)

    rows = rows_of_reads(9, BOTH)
    write_experiment(home, "reads-7f3a", events_with(rows, BOTH, torch="2.14.0", load=1.7))
    os.utime(home / "lab" / "reads-0a41" / "lock", (CREATED - 4000, CREATED - 4000))
    assert snap_compare(still_app(home), run_before=run_before, terminal_size=SIZES[size])


@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_the_guide(snap_compare: Compare, home: Path, size: str) -> None:
    async def then(pilot: Pilot[Any], _lab: LabScreen) -> None:
        await pilot.press("g")
        await pilot.pause()

    assert picture(snap_compare, home, "list", size, ("cpu",), then)
