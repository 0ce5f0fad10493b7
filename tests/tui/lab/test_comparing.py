"""Two results on the Lab page: which key holds them against each other, what is shown of them, and how one leaves."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from textual.pilot import Pilot

from epochtop.engine.lab.catalog import find
from epochtop.engine.lab.comparison import Comparison, Result, compare
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.events import AnyEvent, Concluded, encode
from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import EVENTS
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.cells.rows import uncolored
from epochtop.tui.lab import comparison_rows
from epochtop.tui.lab.screen import LabScreen
from tests.support.lab_runs import CREATED, events_of, events_with, rows_of_reads, slower, write_experiment
from tests.support.runs import engine_alive
from tests.support.ui.lab_screens import in_the_lab, list_kept, settled, show_result, text_of
from tests.support.ui.screens import still_app, until

TWICE = slower(rows_of_reads(9, seed=2), 2.0, every=1)
SLOWER = "1 of 8 points is slower by 2.00 ×"


def write_result(home: Path, run_id: str, events: list[AnyEvent], age_s: float = 0.0) -> Path:
    run = write_experiment(home, run_id, events, age_s=age_s)
    os.utime(run / "lock", (CREATED - age_s, CREATED - age_s))
    return run


@pytest.fixture
def two(home: Path) -> list[Path]:
    """An older result and a newer one; the newest is first in the list."""
    older = write_result(home, "reads-11c0", events_with(rows_of_reads(9)), age_s=600)
    return [older, write_result(home, "reads-7f3a", events_with(TWICE, torch="2.14.0"))]


async def both_read(pilot: Pilot[int], lab: LabScreen) -> None:
    """What both results say by now is taken in and drawn."""
    app = pilot.app
    assert isinstance(app, EpochtopApp)
    other = lab.stage.against
    assert other is not None
    while not other.following.caught_up:
        await asyncio.sleep(0.01)
        app.beat()
    await settled(pilot)


def notices(app: EpochtopApp) -> list[str]:
    return [notice.message for notice in app._notifications]


def words(lab: LabScreen) -> str:
    return " ".join(" ".join(text for text, _ in lab.result.rows).split())


# --- the key -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
@pytest.mark.parametrize("keys", [("down", "o"), ("o",)])
async def test_a_key_compares_the_shown_result_with_another(
    home: Path, size: tuple[int, int], keys: tuple[str, ...]
) -> None:
    """With the one under the cursor; with the newest other where the cursor is on the shown one."""
    app = still_app(home)
    async with app.run_test(size=size) as pilot:
        lab = await in_the_lab(pilot)
        lab.result_list.focus()
        await pilot.press(*keys)
        await both_read(pilot, lab)
        shown = text_of(app)
        assert "Compared · 11c0 → 7f3a" in shown
        assert SLOWER in " ".join(shown.split())
        assert "torch 2.13.0 → 2.14.0" in shown
        assert "plain before 11c0" in shown
        assert "plain after 7f3a" in shown
        assert "plain 20,000 3.43 s 6.87 s 2.00 × slower" in words(lab)
        await pilot.press("escape")
        await settled(pilot)
        assert "Result · reads-7f3a" in text_of(app)
        assert "Verdict    on cpu" in text_of(app)
        assert lab.stage.against is None


@pytest.mark.usefixtures("two")
async def test_the_list_marks_both_and_the_key_ends_what_it_began(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        lab.result_list.focus()
        await pilot.press("down", "o")
        await both_read(pilot, lab)
        marks = {line[3:13]: line[:51].split()[-1] for line in text_of(app).splitlines() if line[3:9] == "reads-"}
        assert (marks["reads-7f3a"], marks["reads-11c0"]) == ("◂", "▪")
        assert lab.result_list.has_focus
        for again in (("o",), ("up", "o")):
            await pilot.press(*again)
            await settled(pilot)
            assert lab.stage.against is None
            assert "▪" not in text_of(app)
            await pilot.press("o")
            await both_read(pilot, lab)


async def test_a_result_alone_has_nothing_to_be_compared_with(home: Path) -> None:
    write_result(home, "reads-7f3a", events_of("finished"))
    write_result(home, "call-11c0", events_of("finished"), age_s=60)
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        lab.result_list.focus()
        await pilot.press("o")
        await settled(pilot)
        assert lab.stage.against is None
        assert notices(app) == ["this is the only result of this experiment; measure again to compare"]


@pytest.mark.usefixtures("two")
async def test_footer_and_help_name_the_key_where_the_list_has_the_focus(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(200, 60)) as pilot:
        lab = await in_the_lab(pilot)
        assert "o compare" not in text_of(app)
        lab.result_list.focus()
        await until(pilot, lambda: "o compare" in text_of(app).splitlines()[-1])
        await pilot.press("question_mark")
        await until(pilot, lambda: "o compare Compare with the open result" in " ".join(text_of(app).split()))


# --- what goes on --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", ["reads-11c0", "reads-7f3a"])
async def test_a_live_result_is_compared_as_far_as_it_has_come(home: Path, shown: str) -> None:
    older = write_result(home, "reads-11c0", events_with(rows_of_reads(9)), age_s=600)
    events = events_with(TWICE)
    live = write_result(home, "reads-7f3a", events[:20])
    app = still_app(home)
    with engine_alive(live):
        async with app.run_test(size=(120, 40)) as pilot:
            lab = await in_the_lab(pilot)
            await show_result(pilot, older if shown == older.name else live)
            lab.result_list.focus()
            await pilot.press("home", "o")
            await both_read(pilot, lab)
            assert "running · 19 rows" in words(lab)
            assert "too few rounds to tell" in words(lab)
            assert app.lab.running is not None
            append(live, events[20:])
            while app.lab.running is not None:
                app.beat()
                await pilot.pause(0.01)
            await settled(pilot)
            assert SLOWER in words(lab)
            assert "running" not in words(lab)


def append(run: Path, events: list[AnyEvent]) -> None:
    assert isinstance(events[-1], Concluded)
    with open(run / EVENTS, "ab") as log:
        log.write(b"".join(encode(event) + b"\n" for event in events))


async def test_leaving_the_comparison_ends_no_experiment(home: Path, two: list[Path]) -> None:
    live = write_result(home, "reads-0001", events_with(TWICE)[:20], age_s=-5)
    app = still_app(home)
    with engine_alive(live):
        async with app.run_test(size=(120, 40)) as pilot:
            lab = await in_the_lab(pilot)
            await show_result(pilot, two[0])
            lab.result_list.focus()
            await pilot.press("home", "o")
            await both_read(pilot, lab)
            await pilot.press("escape")
            await settled(pilot)
            append(live, events_with(TWICE)[20:])
            while app.lab.running is not None:
                app.beat()
                await pilot.pause(0.01)


async def test_another_result_another_experiment_and_a_deletion_end_it(home: Path, two: list[Path]) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        lab.result_list.focus()

        async def compared() -> None:
            await show_result(pilot, two[1])
            lab.result_list.focus()
            await pilot.press("home", "down", "o")
            await both_read(pilot, lab)
            assert lab.stage.comparison is not None

        await compared()
        await pilot.press("enter")
        await settled(pilot)
        assert lab.stage.shown is not None
        assert (lab.stage.shown.run, lab.stage.against) == (two[0], None)

        await compared()
        lab.experiments.choose("matmul")
        await settled(pilot)
        assert (lab.stage.shown, lab.stage.against) == (None, None)

        lab.experiments.choose("reads")
        await list_kept(pilot)
        await compared()
        await pilot.press("d")
        await pilot.pause()
        await pilot.press("right", "enter")
        await until(pilot, lambda: lab.stage.against is None)
        await settled(pilot)
        assert not two[0].exists()
        assert lab.stage.against is None
        assert "Result · reads-7f3a" in text_of(app)


async def test_results_of_two_experiments_are_refused(home: Path) -> None:
    write_result(home, "later-7f3a", events_of("finished"))
    write_result(home, "reads-7f3a", events_of("finished"), age_s=60)
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        lab = await in_the_lab(pilot)
        await show_result(pilot, home / "lab" / "later-7f3a")
        lab.result_list.focus()
        await pilot.press("o")
        await settled(pilot)
        (notice,) = notices(app)
        assert "this version does not know the experiment later" in notice
        assert lab.stage.against is None


# --- pictures of both ----------------------------------------------------------------------------------------------


def of_transfer(changed: str) -> Comparison:
    """Seven ways to copy; those that are changed take twice as long afterwards."""
    sides: list[list[Row]] = [[], []]
    for way in "abcdefg":
        for side, factor in zip(sides, (1.0, 2.0 if way in changed else 1.0), strict=True):
            side += [
                {"kind": "copy", "direction": "to device", "way": way, "bytes": size, "round": turn,
                 "seconds": factor * size * 1e-9, "rate": 1e9 / factor}
                for turn in range(3) for size in (1024, 4096)
            ]  # fmt: skip
    first, second = (
        Result(f"transfer-{place}", CREATED + place, ExperimentRequest(name="transfer"), RunSpec(), rows)
        for place, rows in enumerate(sides)
    )
    return compare(find("transfer"), first, second)


@pytest.mark.parametrize(("changed", "drawn"), [("", "abc"), ("bcdefg", "bcd"), ("eg", "eg")])
def test_only_as_many_curves_are_drawn_as_can_be_distinguished(changed: str, drawn: str) -> None:
    """Those that differ; the first ones where none does."""
    rows = [uncolored(row) for row in comparison_rows.drawn(of_transfer(changed), 120, 20)]
    legend = " ".join(line for line in rows if "before" in line or "after" in line)
    assert "".join(way for way in "abcdefg" if f"{way} before 0" in legend and f"{way} after 1" in legend) == drawn
    assert rows[-1] == f"{len(drawn)} of 7 curves are drawn; the table has all of them"


def test_a_curve_that_differs_alone_is_drawn_alone_and_all_are_in_the_table() -> None:
    comparison = of_transfer("f")
    drawn = [uncolored(row) for row in comparison_rows.drawn(comparison, 100, 20)]
    legend = " ".join(line for line in drawn if "before" in line and "drawn" not in line)
    assert legend == "● before 0   × after 1"
    assert drawn[0].endswith(" · to device f")
    assert drawn[-1] == "1 of 7 curves is drawn; the table has all of them"
    table = [uncolored(row) for row in comparison_rows.tables(comparison, 100)]
    assert sum("slower" in line for line in table) == 2
    assert sum("no difference" in line for line in table) == 12


def test_bars_of_both_results_stand_side_by_side() -> None:
    rows: list[Row] = [
        {"kind": "part", "device": "cpu", "part": part, "round": turn, "seconds": seconds}
        for turn in range(3)
        for part, seconds in (("host", 4e-6), ("compute", 2e-6))
    ]
    first, second = (
        Result(f"anatomy-{place}", CREATED + place, ExperimentRequest(name="anatomy"), RunSpec(), rows)
        for place in range(2)
    )
    comparison = compare(find("anatomy"), first, second)
    bars = [uncolored(row).split("█")[0].split() for row in comparison_rows.drawn(comparison, 80, 20)[1:]]
    assert [" ".join(name) for name in bars] == [
        "host before 0", "host after 1", "compute before 0", "compute after 1",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [48, 60, 76, 120])
@pytest.mark.parametrize("comparison", [of_transfer("a"), of_transfer("")], ids=["differs", "same"])
def test_the_page_fits_its_width(comparison: Comparison, width: int) -> None:
    for text, roles in comparison_rows.page(comparison, width, 19, CREATED):
        assert len(text) == len(roles) <= width


def test_without_rows_the_page_says_so() -> None:
    first, second = (
        Result(f"reads-{place}", CREATED, ExperimentRequest(name="reads"), RunSpec(), ()) for place in range(2)
    )
    text = " ".join(
        uncolored(row) for row in comparison_rows.page(compare(find("reads"), first, second), 76, 19, CREATED)
    )
    assert "nothing was measured that can be compared" in text
