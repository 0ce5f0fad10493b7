"""Any table of numbers, categories, times and texts with gaps, in any dialect, is prepared, or its message says what is
wrong.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochtop.engine.data.columns.new_rows import new_rows, types_for
from epochtop.engine.data.dataset import PreparedDataset
from epochtop.engine.data.load import load
from epochtop.engine.data.tables.read import read_table
from epochtop.engine.protocol.spec import Invalid, RunSpec

CELLS: dict[str, st.SearchStrategy[str]] = {
    "number": st.floats(-1e6, 1e6).map(lambda number: f"{number:.4g}"),
    "whole": st.integers(-3, 30).map(str),
    "category": st.sampled_from(["red", "green", "blue"]),
    "code": st.sampled_from(["01", "1", "007"]),
    "truth": st.sampled_from(["True", "False"]),
    "date": st.dates().map(str),
    "time": st.datetimes().map(lambda moment: moment.isoformat(sep=" ", timespec="seconds")),
    "text": st.text("abc ,;\"'éß", max_size=12),
    "constant": st.just("same"),
    "mixed": st.sampled_from(["1", "2.5", "many", "2024-01-01", "inf", "1_000"]),
}
GAPS = ["", "NA", "?", "null"]


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    """A heading and rows; the columns are called `KIND_NUMBER`, and the last one is the target."""
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=2, max_size=5))
    gap_share = draw(st.sampled_from([0, 0, 10, 50, 100]))
    cells = [
        st.sampled_from([*[CELLS[kind]] * (100 - gap_share), *[st.sampled_from(GAPS)] * gap_share]).flatmap(
            lambda one: one
        )
        for kind in kinds
    ]
    rows = draw(st.lists(st.tuples(*cells), min_size=0, max_size=25))
    return [[f"{kind}_{number}" for number, kind in enumerate(kinds)], *map(list, rows)]


def loaded(spec: RunSpec) -> PreparedDataset | Invalid:
    """The dataset, or why there is none."""
    try:
        return load(spec)
    except Invalid as error:
        return error


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=tables(),
    missing=st.sampled_from(["fill", "fill", "drop", "refuse"]),
    problem=st.sampled_from(["auto", "auto", "classification", "regression"]),
    scaling=st.sampled_from(["minmax", "standard", "none"]),
    kind=st.sampled_from(["", "", "number", "category", "time"]),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    has_decimal_commas=st.booleans(),
)
def test_any_table_is_prepared_or_explained(
    tmp_path: Path, rows: list[list[str]], missing: Any, problem: Any, scaling: Any, kind: str,
    delimiter: str, end: str, encoding: str, has_decimal_commas: bool,
) -> None:  # fmt: skip
    path = tmp_path / "any.csv"
    with open(path, "w", encoding=encoding, newline="") as file:
        cells = [[cell.replace(".", ",") for cell in row] for row in rows] if has_decimal_commas else rows
        csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(cells)
    kinds = f"{rows[0][0]}={kind}" if kind else ""
    spec = RunSpec(
        dataset=f"csv:{path}", target="last", missing=missing, problem=problem, scaling=scaling, kinds=kinds,
        header="yes", test_fraction=0.0,
    )  # fmt: skip
    prepared = loaded(spec)
    if isinstance(prepared, Invalid):
        assert str(path) in prepared.message
        assert len(prepared.message.splitlines()) == 1
        return
    x = prepared.train.x
    assert np.isfinite(x).all()
    assert np.isfinite(prepared.train.y).all()
    assert {fact.name for fact in prepared.columns} == set(rows[0])
    again = new_rows(prepared.preparation, read_table("csv", path, types_for(prepared.preparation), header="yes"))
    good = np.delete(again.x, list(again.problems), axis=0)
    assert {row.tobytes() for row in x} <= {row.tobytes() for row in good}
