"""Windows of logged values: columns, steps, precision and summaries, as docs/run-format.md says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from epochtop.engine.protocol.events import Logged, decode_event
from epochtop.recording.json_text import encode, encode_line
from epochtop.recording.run import Run
from epochtop.recording.series import (
    COMMITTED,
    MEASURED,
    UNCOMMITTED,
    WINDOW_STEPS,
    Numbering,
    columns_of,
    logged,
)
from tests.recording.scripts import decode, only_run


def events_of(rows: list[tuple[int, dict[str, float]]]) -> list[Logged]:
    """Windows of these rows, after a trip through JSON."""
    events = [decode_event(encode_line(event)) for event in logged(columns_of(rows), 1.0, 2.0)]
    assert all(isinstance(event, Logged) for event in events)
    return events  # type: ignore[return-value]


def test_series_with_the_same_steps_share_a_window() -> None:
    rows = [(step, {"loss": step / 2} | ({"val": 1.0} if step % 10 == 0 else {})) for step in range(100)]
    loss, val = events_of(rows)
    assert (loss.first_step, loss.count, loss.steps) == (0, 100, None)
    assert decode(loss) == {"loss": [(step, step / 2) for step in range(100)]}
    assert val.steps is not None
    assert decode(val) == {"val": [(step, 1.0) for step in range(0, 100, 10)]}


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0.5, 4),
        (2.0**24, 4),
        (2.0**24 + 1, 8),
        (0.1, 8),
        (float(np.float32(0.1)), 4),
        (math.nan, 4),
        (math.inf, 4),
        (1e300, 8),
    ],
)
def test_single_precision_is_used_where_it_changes_nothing(value: float, size: int) -> None:
    (event,) = events_of([(0, {"x": value}), (1, {"x": 1.0})])
    assert len(event.values["x"]) == 2 * size
    np.testing.assert_equal(decode(event)["x"], [(0, value), (1, 1.0)])


def test_a_long_window_is_summarized_as_numpy_would() -> None:
    values = np.random.default_rng(0).normal(size=200)
    values[[0, 7, 199]] = math.nan, math.inf, -math.inf
    (event,) = events_of([(step, {"x": float(value)}) for step, value in enumerate(values)])
    finite = values[np.isfinite(values)]
    summary = event.summaries["x"]
    assert (summary.finite, summary.first_bad) == (197, 0)
    assert (summary.first, summary.last) == (finite[0], finite[-1])
    assert (summary.minimum, summary.maximum) == (finite.min(), finite.max())
    assert summary.mean == pytest.approx(finite.mean())
    assert events_of([(0, {"x": 1.0})])[0].summaries == {}


def test_a_summary_without_finite_values_is_empty() -> None:
    (event,) = events_of([(step, {"x": math.nan}) for step in range(64)])
    assert (event.summaries["x"].finite, event.summaries["x"].mean, event.summaries["x"].first_bad) == (0, None, 0)


def test_a_very_long_window_is_divided() -> None:
    events = events_of([(step, {"x": 1.0}) for step in range(2 * WINDOW_STEPS + 5)])
    assert [event.count for event in events] == [WINDOW_STEPS, WINDOW_STEPS, 5]
    assert [event.first_step for event in events] == [0, WINDOW_STEPS, 2 * WINDOW_STEPS]


def test_a_value_that_is_logged_at_every_step_takes_six_bytes(home: Path) -> None:
    with Run() as recording:
        for step in range(20_000):
            recording.log(loss=float(np.float32(1 / (step + 1))))
    assert (only_run(home) / "events.jsonl").stat().st_size < 6 * 20_000


@pytest.mark.parametrize("text", ['"\\\n\r\t\x00\x7f', "ä€😀", "\ud800 alone", ""])
def test_json_text_is_what_json_reads(text: str) -> None:
    value = {"text": text.encode("utf-8", "replace").decode(), "n": [1, -2.5, True, None, (3,)]}
    assert json.loads(encode({"text": text, "n": [1, -2.5, True, None, (3,)]})) == value | {
        "n": [1, -2.5, True, None, [3]]
    }
    assert encode([math.nan, math.inf]) == "[null,null]"


# --- steps --------------------------------------------------------------------------------------------------


def numbered(*places: int) -> list[int]:
    """The steps of these entries, given at once; one by one they must be the same."""
    at_once, one_by_one = Numbering(), Numbering()
    steps = [step for step, _ in at_once.rows([(place, {}) for place in places])]
    assert steps == [one_by_one.rows([(place, {})])[0][0] for place in places]
    assert (at_once.next, at_once.end) == (one_by_one.next, one_by_one.end) == (at_once.next, max(steps) + 1)
    assert Numbering().next_after([(place, {}) for place in places]) == at_once.next
    return steps


def test_values_without_a_step_count_up() -> None:
    assert numbered(COMMITTED, UNCOMMITTED, COMMITTED, COMMITTED) == [0, 1, 1, 2]
    assert numbered(7, COMMITTED, 3, COMMITTED) == [7, 8, 3, 4]


def test_what_a_script_logs_after_a_measured_step_belongs_to_it() -> None:
    first, second = MEASURED, MEASURED - 1
    assert numbered(first, COMMITTED, second, COMMITTED) == [0, 0, 1, 1]
    assert numbered(first, second, MEASURED - 9, COMMITTED) == [0, 1, 9, 9]


def test_what_a_script_logs_before_every_measured_step_has_a_step_of_its_own() -> None:
    first, second = MEASURED, MEASURED - 1
    assert numbered(COMMITTED, first, COMMITTED, second, COMMITTED) == [0, 0, 1, 1, 2]
    assert numbered(first, COMMITTED, COMMITTED) == [0, 0, 1]


def test_values_of_one_step_in_alternating_calls_keep_their_order() -> None:
    rows = [(0, {"a": 1.0}), (0, {"a": 2.0, "b": 1.0}), (1, {"a": 3.0}), (1, {"b": 2.0}), (0, {"a": 4.0})]
    columns = [decode(event) for event in events_of(rows)]
    merged = {name: points for column in columns for name, points in column.items()}
    assert merged == {"a": [(0, 2.0), (1, 3.0), (0, 4.0)], "b": [(0, 1.0), (1, 2.0)]}
