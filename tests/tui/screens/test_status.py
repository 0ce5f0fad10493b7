"""The two lines of figures fit their row, whatever has happened and however long a run is."""

from __future__ import annotations

import math
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.protocol.events import (
    AnyEvent,
    Changed,
    Evaluated,
    Losses,
    Measured,
    Paused,
    Resumed,
    Saved,
    Warned,
)
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.reader import BadLine
from epochtop.tui.screens.status import status, title
from epochtop.tui.state.run import RunState
from tests.support.runs import CREATED, events_of, finished, started

RECORD = RunRecord(spec=RunSpec(), created=CREATED, host="box", user="ada", pid=1, versions={})
WIDTHS = st.sampled_from([60, 80, 120, 200])


def losses(values: list[float], first: int = 0, seconds: float = 1.0) -> Losses:
    """One window."""
    return Losses(first_step=first, seconds=seconds, values=array("f", values).tobytes(), reads=3, waited=0.25)


ANY: list[AnyEvent | BadLine] = [
    *(
        event
        for state in ("running", "finished", "stopped", "diverged", "failed")
        for event in (*events_of(state)[:3], events_of(state)[-1])
    ),
    Paused(step=3, by="ada@laptop:7"),
    Resumed(step=3),
    Changed(step=3, field="learning_rate", value=0.5),
    Changed(step=3, field="of a newer version", value=0.5),
    Evaluated(step=1, seconds=1.0, loss=None, metric=None),
    Measured(values={"reads": 3, "unit": None}),
    Saved(step=20_000, kind="best"),
    Warned(message="the disk is full"),
    losses([]),
    losses([math.inf, math.nan]),
    BadLine(1, "torn"),
]


@given(st.lists(st.sampled_from(ANY)), WIDTHS)
def test_any_events_in_any_order_give_lines_that_fit(events: list[Any], width: int) -> None:
    state = RunState(RECORD)
    lines = [line for event in events for line in state.apply(event)]
    assert all(line.text for line in lines)
    assert len(status(state, "idle", width)) <= width
    assert title(state, "a-long-dataset-mlp-7f3a", "box", "torch 2.13.0", width).cell_len <= width


@given(st.integers(0, 10**12), st.integers(1, 10**12), st.floats(1e-6, 1e6), WIDTHS)
def test_a_run_of_any_length_and_speed_shows_its_step(step: int, more: int, took: float, width: int) -> None:
    state = RunState(RECORD)
    for event in (started(step + 2 + more), losses([1.0], step, took), losses([1.0], step + 1, 2 * took)):
        state.apply(event)
    line = status(state, "", width)
    assert len(line) <= width
    assert line.split(" of ")[0].split() == ["step", f"{step + 2:,}"]


def test_a_verdict_that_is_cut_says_so() -> None:
    state = RunState(RECORD)
    state.apply(started())
    state.apply(finished("stopped", [1.0], reason="stopped by somebody with a very long name on a very long host"))
    assert status(state, "", 80).endswith("…")
    assert status(state, "", 200).endswith("very long host")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_nothing_running_says_what_can_be_done(width: int) -> None:
    assert status(None, "ctrl+s starts", width) == " ctrl+s starts"
