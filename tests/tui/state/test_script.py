"""What a viewer knows about a script, and how its lines read."""

from __future__ import annotations

import pytest

from epochtop.engine.protocol.events import (
    Changed,
    Configured,
    Failed,
    Paused,
    Resumed,
    SettingDeclared,
    Summarized,
    Warned,
)
from epochtop.engine.protocol.record import GitState
from epochtop.engine.protocol.spec import Invalid
from epochtop.tui.screens.status import status, title
from epochtop.tui.state.run import RunState
from epochtop.tui.state.script import ScriptState
from tests.support.fakes.script_runs import SCRIPT_STARTED, logged, logged_at, script_ended, script_record


@pytest.fixture
def state() -> RunState:
    state = RunState(script_record())
    state.apply(SCRIPT_STARTED)
    return state


def texts(state: RunState, event: object) -> list[str]:
    return [line.text for line in state.apply(event)]  # type: ignore[arg-type]


def test_a_script_begins_with_its_command_its_folder_and_its_commit() -> None:
    git = GitState(commit="0123456789abcdef", dirty=True)
    state = RunState(script_record(working_folder="/home/ada", git=git))
    assert texts(state, SCRIPT_STARTED) == [
        "started: python train.py --lr 0.1 in /home/ada, process 7, commit 0123456789 with changes"
    ]
    assert (state.state, state.name, state.can_resume) == ("running", "resnet lr3", False)


def test_the_status_line_has_the_step_the_speed_and_the_values_that_fit(state: RunState) -> None:
    assert status(state, "", 80) == " the script has logged no value yet"
    state.apply(logged(0, 1.0, lr=[0.1] * 10, loss=[2.0] * 10, grad_norm=[1.5] * 10))
    state.apply(logged(10, 2.0, lr=[0.1] * 20, loss=[0.5] * 20, grad_norm=[1.25] * 20))
    state.apply(logged_at([19], 2.0, val_loss=[0.75]))
    expected = "step 29 20 steps/s loss 0.5000 lr 0.1000 grad_norm 1.2500 val_loss 0.7500"
    assert status(state, "", 100).split() == expected.split()
    assert status(state, "", 45).split() == ["step", "29", "20", "steps/s", "loss", "0.5000"]
    state.apply(Paused(step=30))
    assert "paused" in status(state, "", 100)
    assert "paused ‖" in title(state, state.name, "box", "", 80).plain
    state.apply(Resumed(step=30))
    assert state.state == "running"


def test_the_total_of_the_configuration_gives_progress_and_time_left() -> None:
    state = RunState(script_record(config={"trainer/max_steps": 100, "epochs": 3}))
    state.apply(SCRIPT_STARTED)
    state.apply(logged(0, 1.0, loss=[1.0] * 10))
    state.apply(logged(10, 2.0, loss=[1.0] * 10, epoch=[0.5] * 10))
    assert (state.total_steps, state.remaining_s, state.epoch) == (100, 8.0, 0.5)
    assert status(state, "", 100).startswith(" step  20 of 100   20%  epoch 0.5")
    state.apply(logged(100, 3.0, loss=[1.0]))  # it counts from 1
    assert status(state, "", 100).startswith(" step 100 of 100  100%  epoch 0.5")


@pytest.mark.parametrize("config", [{"max_steps": -1}, {"max_steps": "many"}, {"steps_taken": 5}, {"max_steps": True}])
def test_other_entries_are_not_a_total(config: dict[str, object]) -> None:
    assert RunState(script_record(config=config)).total_steps == 0


def test_the_last_values_of_all_series_are_known_and_the_loss_is_the_main_one(state: RunState) -> None:
    state.apply(logged(0, 1.0, lr=[0.25]))
    assert (state.main, state.loss) == ("lr", 0.25)
    state.apply(logged(0, 1.0, loss=[2.0]))
    state.apply(logged(1, 1.5, loss=[float("nan")]))
    assert (state.main, state.loss, state.step, state.seconds) == ("loss", None, 2, 1.5)


def test_steps_that_come_again_set_the_step_back(state: RunState) -> None:
    state.apply(logged(0, 1.0, loss=[1.0] * 50))
    state.apply(logged_at([10], 1.0, val_loss=[1.0]))
    assert state.step == 50
    state.apply(logged(20, 2.0, loss=[1.0] * 5))
    assert state.step == 25


# --- settings -----------------------------------------------------------------------------------------------


def test_a_setting_is_announced_once_and_follows_its_changes(state: RunState) -> None:
    setting = SettingDeclared(name="lr", value=0.1, low=0.0, high=1.0)
    assert texts(state, setting) == ["setting lr is 0.1, 0 to 1; press r to change it"]
    assert texts(state, setting) == []
    assert texts(state, Changed(step=5, field="lr", value=0.01, by="ada@laptop:7")) == [
        "lr is 0.01 from step 5, by ada@laptop:7"
    ]
    assert state.script is not None
    assert state.script.setting_texts() == {"lr": "0.01"}
    assert texts(state, Warned(message="lr keeps its value: 7 is above 1")) == [
        "warning: lr keeps its value: 7 is above 1"
    ]


@pytest.mark.parametrize(
    ("low", "high", "text", "problem"),
    [
        (0.0, 1.0, "1.5", "'1.5' is not a number, 0 to 1"),
        (0.0, None, "-1", "'-1' is not a number, at least 0"),
        (None, 1.0, "2", "'2' is not a number, at most 1"),
        (None, None, "nan", "'nan' is not a number"),
        (None, None, "fast", "'fast' is not a number"),
    ],
)
def test_a_value_out_of_bounds_is_refused(low: float | None, high: float | None, text: str, problem: str) -> None:
    script = ScriptState()
    script.apply(SettingDeclared(name="lr", value=0.1, low=low, high=high))
    assert script.parse_setting("lr", "0.5") == 0.5
    with pytest.raises(Invalid) as refused:
        script.parse_setting("lr", text)
    assert refused.value.message == problem


# --- ends ---------------------------------------------------------------------------------------------------


def test_a_script_ends_with_its_summary(state: RunState) -> None:
    state.apply(Configured(values={"lr": 0.1}))
    state.apply(Summarized(values={"best": 0.25}))
    assert texts(state, script_ended(30)) == ["finished: 30 steps in 9.00 s · best 0.2500"]
    assert (state.over, state.state) == (True, "finished")
    assert status(state, "", 80) == " finished: 30 steps in 9.00 s · best 0.2500"
    state.apply(Configured(values={"max_steps": 29}))  # so it counts from 1
    state.apply(script_ended(30, seconds=0.0))
    assert state.verdict() == "finished: 29 steps · best 0.2500"


def test_a_stopped_script_says_why_and_what_was_dropped(state: RunState) -> None:
    lines = texts(state, script_ended(30, "stopped", reason="signal SIGTERM", exit_status=143, dropped=3))
    assert lines == [
        "3 values dropped, because the disk refused them",
        "stopped: 30 steps in 9.00 s · signal SIGTERM · exit status 143",
    ]


def test_a_script_that_failed_died_or_continues(state: RunState) -> None:
    state.apply(logged(0, 1.0, loss=[1.0] * 7))
    state.apply(Failed(time=1.0, step=7, message="ValueError: x"))
    assert state.verdict() == "failed at step 7 · ValueError: x"
    assert texts(state, SCRIPT_STARTED) == ["continued from step 0 by process 7"]
    assert (state.state, state.over) == ("running", False)
    state.died("exit status unknown", "Killed")
    assert state.verdict() == "the script died after step 7: exit status unknown"


def test_the_log_of_a_script_that_failed_has_its_traceback(state: RunState) -> None:
    traceback = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\nValueError: x\n'
    lines = texts(state, Failed(time=1.0, step=7, message="ValueError: x", traceback=traceback))
    assert lines == [traceback.rstrip(), "failed at step 7 · ValueError: x"]
