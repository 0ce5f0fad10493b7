"""What a run's events add up to: one fold for live, re-attached and finished runs."""

from __future__ import annotations

import pytest

from epochtop.engine.protocol.events import Changed, Losses, Noted, Paused, Resumed, Warned
from epochtop.engine.runs.reader import BadLine
from epochtop.tui.state.lines import MessageLine
from epochtop.tui.state.run import RunState
from tests.support.runs import events_of, losses_like_iris, started, windows


def folded(state: str) -> RunState:
    run_state = RunState()
    for event in events_of(state):
        run_state.apply(event)
    return run_state


@pytest.mark.parametrize("state", ["running", "paused", "finished", "stopped", "diverged", "failed"])
def test_the_state_is_that_of_the_last_news(state: str) -> None:
    run_state = folded(state)
    assert run_state.state == state
    assert run_state.over == (state not in ("running", "paused"))
    assert run_state.step == {"finished": 20_000, "stopped": 20_000, "diverged": 300}.get(state, 9_500)


def test_speed_is_that_of_the_last_two_seconds() -> None:
    run_state = RunState()
    run_state.apply(started())
    values = losses_like_iris(8_000)
    for window in windows(values[:4_000], seconds_per_step=1e-3):  # 1,000 steps a second for 4 s
        run_state.apply(window)
    assert run_state.steps_per_second == pytest.approx(1_000)
    for step in range(4_000, 8_000, 500):  # then 2,000 a second for 2 s
        seconds = 4 + (step + 500 - 4_000) / 2_000
        run_state.apply(Losses(first_step=step, seconds=seconds, values=bytes(2_000), reads=1, waited=0.0))
    assert run_state.steps_per_second == pytest.approx(2_000, rel=0.15)  # windows of half a second
    assert run_state.remaining_s == pytest.approx((20_000 - 8_000) / 2_000, rel=0.2)


def test_live_settings_and_who_set_them_are_reported() -> None:
    run_state = RunState()
    run_state.apply(started())
    lines = run_state.apply(Changed(step=7, field="learning_rate", value=0.05, by="ada@laptop:7"))
    assert lines == [MessageLine("learning_rate is 0.05 from step 7, by ada@laptop:7")]
    run_state.apply(Changed(step=8, field="refresh_ms", value=500.0))
    assert (run_state.learning_rate, run_state.refresh_ms) == (0.05, 500.0)


def test_a_pause_ends_with_the_resume() -> None:
    run_state = folded("running")
    run_state.apply(Paused(step=9_500, by="ada@laptop:7"))
    assert run_state.state == "paused"
    assert run_state.apply(Resumed(step=9_500, by="")) == [MessageLine("resumed at step 9,500")]
    assert run_state.state == "running"


def test_every_end_has_one_line_that_says_what_helps() -> None:
    assert folded("finished").verdict().startswith("finished: 20,000 steps in 4.00 s · loss ")
    assert "stopped by ada@laptop:7" in folded("stopped").verdict()
    assert folded("diverged").verdict().endswith("lower the learning rate: 0.01 is too high, try 0.001")
    assert "use a smaller batch_size" in folded("failed").verdict()
    run_state = folded("running")
    assert run_state.died("killed by SIGKILL", "last words") == [
        MessageLine("output.log | last words", "failure"),
        MessageLine("the engine died after step 9,500: killed by SIGKILL", "failure"),
    ]
    assert run_state.state == "died"


def test_trouble_is_news() -> None:
    run_state = RunState()
    assert run_state.apply(Warned(message="the disk is slow")) == [MessageLine("warning: the disk is slow", "warning")]
    assert "line 4" in run_state.apply(BadLine(4, "not json"))[0].text


def test_ten_thousand_damaged_lines_are_five_lines_of_the_log() -> None:
    state = RunState()
    lines = [line.text for number in range(1, 10_001) for line in state.apply(BadLine(number, "not json"))]
    assert lines[0] == "events.jsonl, line 1: skipped, cannot be read: not json"
    assert lines[-1] == "events.jsonl: 10,000 lines skipped so far, the last one is line 10000: not json"
    assert len(lines) == 5


def test_kinds_of_lines_do_not_depend_on_their_wording() -> None:
    run_state = RunState()
    assert [line.kind for line in run_state.apply(Noted(message="warning: step 3 failed"))] == ["news"]
    kinds = [line.kind for event in events_of("finished") for line in run_state.apply(event)]
    assert kinds[-1] == "news"
    assert "evaluation" in kinds
    assert [line.kind for event in events_of("diverged") for line in run_state.apply(event)][-1] == "failure"
    assert [line.kind for event in events_of("failed") for line in run_state.apply(event)][-1] == "failure"
