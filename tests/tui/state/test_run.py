"""What a run's events add up to: one fold for live, re-attached and finished runs."""

from __future__ import annotations

import pytest

from epochtop.engine.protocol.events import Changed, Losses, Paused, Resumed, Warned
from epochtop.engine.runs.reader import BadLine
from epochtop.tui.state.run import RunState
from tests.support.runs import events_of, losses_like_iris, started, windows


def folded(state: str) -> RunState:
    told = RunState()
    for event in events_of(state):
        told.apply(event)
    return told


@pytest.mark.parametrize("state", ["running", "paused", "finished", "stopped", "diverged", "failed"])
def test_the_state_is_that_of_the_last_news(state: str) -> None:
    told = folded(state)
    assert told.state == state
    assert told.over == (state not in ("running", "paused"))
    assert told.step == {"finished": 20_000, "stopped": 20_000, "diverged": 300}.get(state, 9_500)


def test_speed_is_that_of_the_last_two_seconds() -> None:
    told = RunState()
    told.apply(started())
    values = losses_like_iris(8_000)
    for window in windows(values[:4_000], seconds_per_step=1e-3):  # 1,000 steps a second for 4 s
        told.apply(window)
    assert told.steps_per_second == pytest.approx(1_000)
    for step in range(4_000, 8_000, 500):  # then 2,000 a second for 2 s
        seconds = 4 + (step + 500 - 4_000) / 2_000
        told.apply(Losses(first_step=step, seconds=seconds, values=bytes(2_000), reads=1, waited=0.0))
    assert told.steps_per_second == pytest.approx(2_000, rel=0.15)  # windows of half a second
    assert told.left_s == pytest.approx((20_000 - 8_000) / 2_000, rel=0.2)


def test_live_settings_and_who_set_them_are_told() -> None:
    told = RunState()
    told.apply(started())
    line = told.apply(Changed(step=7, field="learning_rate", value=0.05, by="ada@laptop:7"))
    assert line == "learning_rate is 0.05 from step 7 on, by ada@laptop:7"
    told.apply(Changed(step=8, field="refresh_ms", value=500.0))
    assert (told.learning_rate, told.refresh_ms) == (0.05, 500.0)


def test_a_pause_ends_with_the_resume() -> None:
    told = folded("running")
    told.apply(Paused(step=9_500, by="ada@laptop:7"))
    assert told.state == "paused"
    assert told.apply(Resumed(step=9_500, by="")) == "resumed with step 9,500"
    assert told.state == "running"


def test_every_end_has_one_line_that_says_what_helps() -> None:
    assert folded("finished").verdict().startswith("finished: 20,000 steps in 4.00 s · loss ")
    assert "stopped by ada@laptop:7" in folded("stopped").verdict()
    assert folded("diverged").verdict().endswith("lower the learning rate: 0.01 is too high, try 0.001")
    assert "use a smaller batch_size" in folded("failed").verdict()
    told = folded("running")
    assert told.died("killed by SIGKILL") == "the engine died after step 9,500: killed by SIGKILL"
    assert told.state == "died"


def test_trouble_is_news() -> None:
    told = RunState()
    assert told.apply(Warned(message="the disk is slow")) == "warning: the disk is slow"
    assert "line 4" in (told.apply(BadLine(4, "not json")) or "")
