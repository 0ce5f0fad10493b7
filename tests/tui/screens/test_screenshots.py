"""Pictures of every state in every size. Look at a difference before taking it over (see CONTRIBUTING)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from epochtop.engine.hardware import EngineLoad, Fact
from epochtop.tui.forms.dialogs import Question
from tests.support.fakes.machines import a_full_load, a_full_machine, a_ready, a_sample
from tests.support.runs import engine_alive, events_of, finished, losses_like_iris, started, windows, write_run
from tests.support.ui.screens import furnished, show_run, still_app

SIZES = {"80x24": (80, 24), "120x40": (120, 40), "200x60": (200, 60)}
STATES = ("idle", "running", "paused", "finished", "stopped", "diverged", "failed", "died")
Compare = Callable[..., bool]


def picture(
    snap_compare: Compare, home: Path, state: str, size: tuple[int, int],
    then: Callable[[Pilot[Any]], Awaitable[None]] | None = None,
) -> bool:  # fmt: skip
    """Whether the app in `state` looks as it did."""
    with ExitStack() as stack:
        run = None
        if state != "idle":
            values = losses_like_iris(2_000, scale=1.2, seed=2)
            write_run(
                home, "iris-mlp-11c0", [started(2_000), *windows(values), finished("finished", values)], age_s=600
            )
            run = write_run(home, "iris-mlp-7f3a", events_of(state))
            if state in ("running", "paused"):
                stack.enter_context(engine_alive(run))

        async def run_before(pilot: Pilot[Any]) -> None:
            await furnished(pilot)
            if run is not None:
                await show_run(pilot, run, 300 if state == "diverged" else 9_500)
            if then is not None:
                await then(pilot)

        return snap_compare(still_app(home), run_before=run_before, terminal_size=size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", STATES)
def test_the_app_in_a_state(snap_compare: Compare, home: Path, state: str, size: str) -> None:
    assert picture(snap_compare, home, state, SIZES[size])


@pytest.mark.parametrize("page", ["1", "3", "5"])
@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_a_page(snap_compare: Compare, home: Path, page: str, size: str) -> None:
    async def then(pilot: Pilot[Any]) -> None:
        await pilot.press(page)
        await pilot.pause()

    assert picture(snap_compare, home, "running", SIZES[size], then)


def test_the_question_before_leaving_a_running_run(snap_compare: Compare, home: Path) -> None:
    async def then(pilot: Pilot[Any]) -> None:
        await pilot.press("ctrl+q")
        await pilot.pause()
        assert isinstance(pilot.app.screen, Question)

    assert picture(snap_compare, home, "running", SIZES["120x40"], then)


def test_an_error_beside_its_field(snap_compare: Compare, home: Path) -> None:
    async def then(pilot: Pilot[Any]) -> None:
        pilot.app.main.form.query_one("#field-learning_rate").value = "-1"  # type: ignore[attr-defined]
        await pilot.pause()

    assert picture(snap_compare, home, "idle", SIZES["120x40"], then)


def test_an_overlay_on_a_log_axis(snap_compare: Compare, home: Path) -> None:
    async def then(pilot: Pilot[Any]) -> None:
        app = pilot.app
        await pilot.press("2", "down", "o", "0", "l", "m")
        while not all(overlay.following.done for overlay in app.runs.stage.overlays.values()):  # type: ignore[attr-defined]
            app.beat()  # type: ignore[attr-defined]
            await pilot.pause()
        app.beat()  # type: ignore[attr-defined]
        await pilot.pause()

    assert picture(snap_compare, home, "finished", SIZES["120x40"], then)


def test_a_terminal_that_is_too_small(snap_compare: Compare, home: Path) -> None:
    assert picture(snap_compare, home, "idle", (58, 14))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_the_machine(snap_compare: Compare, home: Path, gpus: int, size: str) -> None:
    """The panel with several GPUs, the page without any and with one."""

    async def then(pilot: Pilot[Any]) -> None:
        panel = pilot.app.main.machine  # type: ignore[attr-defined]
        panel.show_machine(a_full_machine(gpus))
        for percent in (12.0, 30.0, 55.0, 97.0) * 10:
            loads = tuple(a_full_load(index, utilization_percent=Fact(percent)) for index in range(gpus))
            engine = EngineLoad(pid=4711, cpu_percent=Fact(percent), memory_bytes=Fact(320 << 20))
            panel.show_sample(
                a_sample(loads, cpu_percent=Fact(percent), engine=engine, swap_total_bytes=Fact(reason="none"))
            )
        panel.show_software(a_ready("12.8" if gpus else None))
        await pilot.press(*(("3", "right") if gpus > 1 else ("3", "3")))
        await pilot.pause()

    assert picture(snap_compare, home, "finished", SIZES[size], then)
