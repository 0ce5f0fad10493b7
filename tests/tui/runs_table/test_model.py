"""Lines of the table: filtered, sorted, grouped; and the columns that are offered."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochtop.engine.runs.table.details import RunDetails
from epochtop.tui.runs_table import layout as layouts
from epochtop.tui.runs_table.columns import Value, all_keys, column_of, default_keys, differing, grouping_key
from epochtop.tui.runs_table.comparison import comparison_rows
from epochtop.tui.runs_table.filter.limits import Limit, limit_of, limited
from epochtop.tui.runs_table.filter.matching import Names
from epochtop.tui.runs_table.groups import Group, grouped, spread
from epochtop.tui.runs_table.layout import LAYOUT, Layout
from epochtop.tui.runs_table.lines import section_start
from epochtop.tui.runs_table.model import TableModel, runs_of
from tests.support.table_runs import NOW, run_details

RUNS = [
    run_details("a", {"lr": 0.1, "model": "resnet18", "seed": 1}, tags=("base",), val__accuracy=(0.7, 0.1, 0.9), loss=(0.5, 0.4, 2.0)),
    run_details("b", {"lr": 0.001, "model": "resnet50", "seed": 1}, age_s=7200, seconds=4000.0, val__accuracy=(0.8, 0.2, 0.8), loss=(0.3, 0.3, 2.0)),
    run_details("c", {"lr": 0.0001, "model": "vit", "seed": 1}, state="failed", seconds=None),
]  # fmt: skip


def shown(text: str = "", **layout: object) -> list[str]:
    """Ids of the runs on the lines, with this filter."""
    model = TableModel(RUNS, Layout(filter=text, **layout), NOW)  # type: ignore[arg-type]
    assert model.problem == ""
    return [run.id for line in model.lines for run in runs_of(line)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr>=0.001", "ab"),
        ("lr>=0.001 model~RES state=finished tag=base", "a"),
        ("lr=1e-3", "b"),
        ("lr!=0.1", "bc"),
        ("state=failed or tag~as", "ac"),
        ("not (state=failed or tag=base)", "b"),
        ("val/accuracy>0.75", "b"),
        ("accuracy>0.75", "b"),
        ("best:val/accuracy>0.85", "a"),
        ("min:loss<=0.3", "b"),
        ("loss<1", "ab"),
        ("loss!=0.5", "bc"),
        ("time>1h", "b"),
        ("age<1h", "ac"),
        ("base", "a"),
        ("!tag=base", "bc"),
        ("tag!=base", "bc"),
        ("time=none", "c"),
    ],
)
def test_a_filter_selects(text: str, expected: str) -> None:
    assert sorted(shown(text)) == list(expected)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("lrr>=0.001", "at 1: there is no column 'lrr'; did you mean lr?"),
        ("lr>=fast", "at 1: 'fast' is not a number; >= compares numbers"),
        ("state=finished lr>", "at the end: lr> needs a value"),
    ],
)
def test_a_wrong_filter_is_explained_and_hides_nothing(text: str, problem: str) -> None:
    model = TableModel(RUNS, Layout(filter=text), NOW)
    assert (model.problem, len(model.lines)) == (problem, 3)


@pytest.mark.parametrize(
    ("key", "descending", "expected"),
    [
        ("config:lr", False, "cba"),
        ("config:lr", True, "abc"),
        ("best:val/accuracy", True, "abc"),
        ("last:loss", False, "bac"),
        ("last:loss", True, "abc"),
        ("run", True, "cba"),
    ],
)
def test_runs_without_a_value_come_last_in_either_order(key: str, descending: bool, expected: str) -> None:
    assert shown(sort=key, descending=descending) == list(expected)


def test_only_settings_that_differ_are_columns_at_first() -> None:
    assert differing(RUNS) == ["lr", "model"]
    assert default_keys(RUNS)[-3:] == ["config:lr", "config:model", "tags"]
    assert "best:loss" in default_keys(RUNS)


def test_names_group_nothing_so_another_column_does() -> None:
    seeds = [run_details(f"r{number}", {"seed": number, "lr": 0.1}, loss=(1.0, 1.0, 1.0)) for number in range(3)]
    assert grouping_key(seeds, "run") == "config:lr"
    assert grouping_key(seeds, "config:seed") == "config:seed"
    assert grouping_key(seeds[:1], "run") == "run"
    for run in seeds:
        run.group = "eight"
    assert grouping_key(seeds, "run") == "group"
    assert default_keys(seeds)[-1] == "group"


def test_series_and_settings_of_a_few_runs_are_not_shown_at_first() -> None:
    runs = [run_details(f"r{number}", {"lr": number}, accuracy=(0.5, 0.1, 0.9)) for number in range(4)]
    other = run_details("other", {"max_steps": 600}, loss=(1.0, 1.0, 1.0), grad_norm=(1.0, 1.0, 1.0))
    columns = [key for key in default_keys([other, *runs]) if ":" in key]
    assert columns == ["last:accuracy", "best:accuracy", "config:lr"]
    assert all_keys([other, *runs])[-2:] == ["config:lr", "config:max_steps"]


def test_hidden_runs_are_left_out_until_they_are_asked_for() -> None:
    layout = Layout(hidden=("a",))
    assert [len(TableModel(RUNS, layout, NOW, show_hidden=show).lines) for show in (False, True)] == [2, 3]


@pytest.mark.parametrize(
    ("text", "key", "operator", "value", "expected"),
    [
        ("", "config:lr", ">=", 0.001, "lr>=0.001"),
        ("state=finished lr>=1e-4", "config:lr", ">=", 0.001, "state=finished lr>=0.001"),
        ("lr>=0.001", "config:lr", "<=", 0.1, "lr>=0.001 lr<=0.1"),
        ("a=1 or b=2", "config:model", "=", "vit b/16", '(a=1 or b=2) model="vit b/16"'),
        ("lr>=", "best:val/accuracy", ">=", 1 / 3, f"best:val/accuracy>={1 / 3!r}"),
        ("", "tags", "=", None, "tags=none"),
    ],
)
def test_a_key_adds_a_condition_or_replaces_it(
    text: str, key: str, operator: Limit, value: Value, expected: str
) -> None:
    column = column_of(key)
    assert column is not None
    assert limited(text, Names(RUNS), column, operator, value) == expected


@pytest.mark.parametrize(("operator", "limit"), [(">=", 0.001), ("<=", 0.001)])
def test_a_limit_leaves_out_one_value(operator: Limit, limit: float) -> None:
    column = column_of("config:lr")
    assert column is not None
    assert limit_of(RUNS, column, operator, NOW) == limit
    assert limit_of(RUNS[:1], column, operator, NOW) is None


@pytest.mark.parametrize(("place", "sections", "start"), [(1, 1, 5), (1, -1, 7), (5, 1, 7), (7, 1, 0), (8, -1, 5)])
def test_sections_are_facts_metrics_and_settings(place: int, sections: int, start: int) -> None:
    kinds = ["fact", "fact", "fact", "fact", "fact", "metric", "metric", "config", "config", "fact"]
    assert section_start(kinds, place, sections) == start


# --- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start", "first"),
    [
        ("val", 0, "val/accuracy"),
        ("lr>=0.1 mod", 8, "model"),
        ("model=", 6, "resnet18"),
        ("(model=vi", 7, "vit"),
        ("tag=b", 4, "base"),
    ],
)
def test_names_and_values_are_completed(text: str, start: int, first: str) -> None:
    place, words = Names(RUNS).complete(text)
    assert (place, words[0]) == (start, first)


@pytest.mark.parametrize("text", ["", "lr>=0.1 ", "nothing=", "'open"])
def test_nothing_is_completed_where_no_word_is(text: str) -> None:
    assert Names(RUNS).complete(text)[1] == []


# --- groups ------------------------------------------------------------------------------------------------------------

SEEDS = st.lists(st.tuples(st.sampled_from([0.1, 0.01, None]), st.floats(-1e3, 1e3)), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_every_run_is_in_one_group_and_the_spread_is_that_of_the_statistics_module(
    pairs: list[tuple[float | None, float]],
) -> None:
    runs = [run_details(f"r{n}", {"lr": lr}, loss=(x, x, x)) for n, (lr, x) in enumerate(pairs)]
    column, loss = column_of("config:lr"), column_of("last:loss")
    assert column is not None
    assert loss is not None
    groups = grouped(runs, column, NOW)
    assert sorted(run.id for group in groups for run in group.runs) == sorted(run.id for run in runs)
    assert [group.value for group in groups] == list(dict.fromkeys(lr for lr, _ in pairs))
    for group in groups:
        values = [x for lr, x in pairs if lr == group.value]
        result = spread(loss.value(run, NOW) for run in group.runs)
        assert result is not None
        assert result.size == len(values)
        assert result.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
        if len(values) > 1:
            assert result.deviation == pytest.approx(statistics.stdev(values), abs=1e-9)


def test_a_group_shows_count_mean_and_spread() -> None:
    values = (0.90, 0.92, 0.94)
    runs: list[RunDetails] = [
        run_details(f"s{n}", {"lr": 0.1, "seed": n}, age_s=300.0 + n, acc=(x, x, x)) for n, x in enumerate(values)
    ]
    model = TableModel(runs, Layout(group="config:lr"), NOW)
    (line,) = model.lines
    acc, seed = column_of("last:acc"), column_of("config:seed")
    assert isinstance(line, Group)
    assert acc is not None
    assert seed is not None
    assert model.name(line) == "0.1 · 3 runs"
    assert model.text(line, acc) == "0.9200 ± 0.0200"
    assert model.text(line, seed) == "1 ± 1"
    age = column_of("age")
    assert age is not None
    assert model.text(line, age) == "5 min"


# --- the layout in the home folder ----------------------------------------------------------------------------------


def test_the_layout_is_remembered(tmp_path: Path) -> None:
    layout = Layout(columns=("time", "best:val/loss"), sort="config:lr", descending=True, filter="lr>0", hidden=("a",))
    assert layouts.save(tmp_path, layout) == ""
    assert layouts.load(tmp_path) == (layout, "")


def test_a_damaged_layout_is_ignored_and_reported(tmp_path: Path) -> None:
    (tmp_path / LAYOUT).write_text('{"columns": [1')
    layout, problem = layouts.load(tmp_path)
    assert layout == Layout()
    assert str(tmp_path / LAYOUT) in problem


def test_columns_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    (tmp_path / LAYOUT).write_text('{"columns": ["time", "future:x", "gone"], "sort": "gone", "new": 1}')
    assert layouts.load(tmp_path) == (Layout(columns=("time",)), "")


@pytest.mark.parametrize(("width", "shown"), [(116, 7), (76, 4), (30, 1)])
def test_a_comparison_shows_whole_columns_and_counts_the_others(width: int, shown: int) -> None:
    runs = [run_details(f"r{number}", {"lr": number}) for number in range(8)]
    rows = comparison_rows(runs, width, only_different=True)
    assert rows[0].text.split() == [f"r{number}" for number in range(shown)]
    assert max(len(row.text) for row in rows) <= width
    assert rows[-1].text.startswith(f"{8 - shown} run")
