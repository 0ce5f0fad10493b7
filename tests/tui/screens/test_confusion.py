"""The confusion matrix on the screen: all of it readable at 80×24, none of it wrong while it scrolls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from sklearn.metrics import precision_score, recall_score
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Static

from epochtop.tui.screens.confusion import ConfusionMatrix, ConfusionScreen, figures
from epochtop.tui.screens.confusion_grid import arrange, most_confused
from tests.support.ui.screens import until

IRIS = ("setosa", "versicolor", "virginica")
IRIS_COUNTS = ((10, 0, 0), (0, 9, 1), (0, 2, 8))
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SCORES = {"accuracy": 0.9, "f1": 0.8997}


def counts_of(classes: int, scale: int = 1) -> tuple[tuple[int, ...], ...]:
    """Every count another one, so that none can stand in for another."""
    return tuple(tuple(scale * (row * classes + column) for column in range(classes)) for row in range(classes))


def shown(pilot: Pilot[Any]) -> list[str]:
    """The matrix, row by row, as it is on the screen."""
    matrix = pilot.app.screen.query_one(ConfusionMatrix)
    return [matrix.render_line(y).text for y in range(matrix.scrollable_content_region.height)]


async def opened(
    pilot: Pilot[Any], classes: Sequence[str], counts: Any, metrics: dict[str, float | None] = SCORES
) -> ConfusionScreen:
    """The screen, laid out."""
    screen = ConfusionScreen(classes, counts, metrics, "Test rows · step 1,200")
    pilot.app.push_screen(screen)
    await pilot.pause()
    await pilot.pause()
    return screen


async def test_counts_names_and_shares_stand_in_their_places() -> None:
    async with App[None]().run_test(size=(80, 24)) as pilot:
        await opened(pilot, IRIS, IRIS_COUNTS)
        rows = [row.split() for row in shown(pilot)]
    assert rows == [
        ["predicted", "│", "setosa", "versicolor", "virginica"],
        ["precision", "│", "100%", "81%", "88%"],  # 9 of 11, 8 of 9
        ["true", "recall", "│"],
        ["setosa", "100%", "│", "10", "·", "·"],
        ["versicolor", "90%", "│", "·", "9", "1"],
        ["virginica", "80%", "│", "·", "2", "8"],
    ]


@pytest.mark.parametrize("classes", range(3, 11))
@pytest.mark.parametrize("names", [CIFAR, ()], ids=["names", "numbers"])
async def test_up_to_ten_classes_need_no_scrolling_at_80_by_24(classes: int, names: tuple[str, ...]) -> None:
    async with App[None]().run_test(size=(80, 24)) as pilot:
        counts = counts_of(classes, scale=10)
        screen = await opened(pilot, names[:classes], counts, SCORES | {"top5": 0.99})
        matrix = screen.query_one(ConfusionMatrix)
        assert (matrix.max_scroll_x, matrix.max_scroll_y) == (0, 0)
        rows = shown(pilot)[3:]
        expected = [[str(count) if count else "·" for count in row] for row in counts]
        assert [row.partition("│")[2].split() for row in rows] == expected
        for row, name in zip(rows, names, strict=False):
            assert name in row
        box = screen.children[0].region
        assert (box.bottom, box.right) <= (24, 80)
        assert screen.query_one("#verdict").region.bottom < box.bottom


async def test_names_that_do_not_fit_above_their_columns_are_numbered_next_to_their_rows() -> None:
    async with App[None]().run_test(size=(80, 24)) as pilot:
        await opened(pilot, CIFAR, counts_of(10))
        rows = shown(pilot)
        assert rows[0].partition("│")[2].split() == list("0123456789")
        assert [row.partition("│")[0].split()[:2] for row in rows[3:]] == [[str(i), n] for i, n in enumerate(CIFAR)]
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: shown(pilot)[0].partition("│")[2].split() == list(CIFAR))


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (200, 60)])
async def test_while_it_scrolls_every_number_is_whole_and_in_its_row(size: tuple[int, int]) -> None:
    """True for each place: the names left and above say where a count is from."""
    counts = counts_of(60, scale=7)
    async with App[None]().run_test(size=size) as pilot:
        matrix = (await opened(pilot, (), counts)).query_one(ConfusionMatrix)
        assert matrix.max_scroll_y > 0
        for x in (*range(12), matrix.max_scroll_x):
            for y in (0, 5, matrix.max_scroll_y):
                matrix.scroll_to(x, y, animate=False)
                await pilot.pause()
                rows = shown(pilot)
                columns = [int(head) for head in rows[0].partition("│")[2].split()]
                assert len(columns) >= 3
                for row in rows[3:]:
                    name, _, cells = row.partition("│")
                    true = int(name.split()[0])
                    expected = [str(counts[true][column]) if counts[true][column] else "·" for column in columns]
                    assert cells.split() == expected


async def test_the_keys_reach_the_last_class() -> None:
    async with App[None]().run_test(size=(80, 24)) as pilot:
        matrix = (await opened(pilot, (), counts_of(100))).query_one(ConfusionMatrix)
        assert pilot.app.focused is matrix
        await pilot.press("right", "right", "left", "right")
        await pilot.pause()
        assert shown(pilot)[0].partition("│")[2].split()[0] == "2"
        await pilot.press("end", *["right"] * 100)
        await pilot.wait_for_scheduled_animations()
        rows = shown(pilot)
        assert rows[0].split()[-1] == "99"
        assert rows[-1].split()[0] == "99"
        assert rows[-1].split()[-1] == str(100 * 100 - 1)


async def test_only_the_diagonal_is_bold_and_its_mark_is_one_of_the_theme() -> None:
    async with App[None]().run_test(size=(80, 24)) as pilot:
        matrix = (await opened(pilot, IRIS, IRIS_COUNTS)).query_one(ConfusionMatrix)
        bold = [
            segment.text.strip()
            for y in range(6)
            for segment in matrix.render_line(y)
            if segment.style.bold  # type: ignore[union-attr]
        ]
        assert bold == ["10", "9", "8"]
        before = matrix.get_component_rich_style("confusion--hit")
        pilot.app.theme = "textual-light"
        await pilot.pause()
        assert matrix.get_component_rich_style("confusion--hit") != before


async def test_a_newer_evaluation_takes_the_place_of_the_old_one() -> None:
    async with App[None]().run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, IRIS, IRIS_COUNTS)
        screen.put(((10, 0, 0), (0, 10, 0), (0, 0, 10)), {"accuracy": 1.0, "f1": 1.0}, "Test rows · step 2,400")
        await pilot.pause()
        assert shown(pilot)[4].split() == ["versicolor", "100%", "│", "·", "10", "·"]
        assert str(screen.query_one("#figures", Static).content) == "accuracy 1.000   F1 (macro) 1.000"
        assert str(screen.query_one("#verdict", Static).content) == "All predictions are correct."
        assert screen.children[0].border_title == "Test rows · step 2,400"


@pytest.mark.parametrize("key", ["escape", "enter", "q"])
async def test_it_closes(key: str) -> None:
    async with App[None]().run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, IRIS, IRIS_COUNTS)
        await pilot.press(key)
        assert pilot.app.screen is not screen


async def test_a_regression_shows_its_figures_alone() -> None:
    async with App[None]().run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, (), None, {"r2": 0.912, "mae": 12.5, "rmse": None})
        assert not screen.query_one(ConfusionMatrix).display
        assert not screen.query_one("#verdict").display
        assert str(screen.query_one("#figures", Static).content) == "R² 0.9120   MAE 12.50   RMSE —"
        await pilot.press("escape")


async def test_too_many_classes_are_reported() -> None:
    async with App[None]().run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, (), None, SCORES)
        assert "up to 100 classes" in str(screen.query_one("#verdict", Static).content)


def test_many_figures_go_on_several_lines_and_a_name_is_never_cut_from_its_value() -> None:
    metrics = {f"own metric {number}": number / 8 for number in range(6)}
    lines = [line.plain for line in figures(metrics, 60)]
    assert all(len(line) <= 60 for line in lines)
    assert re.findall(r"own metric (\d) (\S+)", "\n".join(lines)) == [(str(n), f"{n / 8:.4f}") for n in range(6)]


def test_the_largest_mistakes_come_first() -> None:
    counts = ((50, 3, 0), (7, 50, 0), (0, 3, 1))
    assert most_confused(("a", "b\n", "c"), counts) == [("b?", "a", 7), ("a", "b?", 3), ("c", "b?", 3)]
    assert most_confused(("a", "b", "c"), ((1, 0, 0), (0, 1, 0), (0, 0, 1))) == []


# --- layout ------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["日本語の名前", "a\tb\x1b[31m", ""]
)
SQUARES = st.integers(1, 12).flatmap(
    lambda size: st.tuples(
        st.lists(NAMES, max_size=size),
        st.lists(st.lists(st.integers(0, 10**7), min_size=size, max_size=size), min_size=size, max_size=size),
    )
)


@given(SQUARES, st.integers(40, 200))
def test_whatever_the_names_and_counts_all_rows_are_of_one_width(
    square: tuple[list[str], list[list[int]]], cells: int
) -> None:
    classes, counts = square
    grid = arrange(classes, counts, cells)
    assert {cell_len(label) for label in grid.labels} == {grid.label_cells}
    for texts in (grid.heads, grid.precisions):
        assert [cell_len(text) for text in texts] == list(grid.widths)
    for row in counts:
        assert all(len(str(count)) < width for count, width in zip(row, grid.widths, strict=True))
    assert all(char.isprintable() for text in (*grid.labels, *grid.heads) for char in text)
    assert grid.size == (grid.side_cells + sum(grid.widths), len(counts) + 3)


@given(SQUARES)
def test_shares_are_scikit_learns_rounded_down(square: tuple[list[str], list[list[int]]]) -> None:
    _, counts = square
    size = len(counts)
    true = [row for row in range(size) for _ in range(size)]
    taken = [column for _ in range(size) for column in range(size)]
    weights = [count for row in counts for count in row]
    if not sum(weights):
        return
    every = list(range(size))
    options: dict[str, Any] = {"labels": every, "average": None, "zero_division": 0.0, "sample_weight": weights}
    grid = arrange((), counts, 200)
    for texts, shares, totals in (
        (grid.recalls, recall_score(true, taken, **options), [sum(row) for row in counts]),
        (
            grid.precisions,
            precision_score(true, taken, **options),
            [sum(column) for column in zip(*counts, strict=True)],
        ),
    ):
        for text, share, total in zip(texts, shares, totals, strict=True):
            if total:
                assert int(text.strip().rstrip("%")) == pytest.approx(100 * share, abs=1.0)
                assert (text.strip() == "100%") == (share == 1.0)
            else:
                assert text.strip() == "—"
