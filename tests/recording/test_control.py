"""Viewers pause, stop and change a script that records itself; it answers with events."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from epochtop.engine.protocol.commands import AnyCommand, Pause, Resume, Save, Set, Stop
from epochtop.engine.protocol.events import (
    COMMAND_IGNORED,
    SETTING_REJECTED,
    Changed,
    Paused,
    Resumed,
    ScriptEnded,
    SettingDeclared,
    Warned,
)
from epochtop.engine.runs.writer import send
from epochtop.recording.later import control
from epochtop.recording.run import Run
from tests.recording.scripts import only_run, recorded, run, series
from tests.support.engines import wait_until

BY = "ada@laptop:7"


def give(run: Run, *commands: AnyCommand) -> None:
    """Send commands as a viewer does."""
    assert run.path is not None
    for command in commands:
        send(Path(run.path), command)


def answers(run: Run, kind: type) -> list[object]:
    """Events of one kind that the run has recorded so far."""
    assert run.path is not None
    return [event for event in recorded(Path(run.path)) if isinstance(event, kind)]


def test_a_pause_holds_the_next_log_until_it_ends(home: Path) -> None:
    with Run() as recording:
        recording.log(loss=1.0)
        give(recording, Pause(by=BY))
        wait_until(lambda: recording._gate is not None)
        thread = threading.Thread(target=lambda: recording.log(loss=2.0))
        thread.start()
        wait_until(lambda: answers(recording, Paused))
        assert thread.is_alive()
        assert series(only_run(home)) == {"loss": [(0, 1.0)]}
        give(recording, Pause(by=BY), Resume(by="bob"))
        thread.join()
        recording.log(loss=3.0)
        wait_until(lambda: answers(recording, Resumed))
    assert answers(recording, Paused) == [Paused(step=1, by=BY)]
    assert answers(recording, Resumed) == [Resumed(step=1, by="bob")]
    assert series(only_run(home)) == {"loss": [(0, 1.0), (1, 2.0), (2, 3.0)]}


def test_time_in_a_pause_does_not_count(home: Path) -> None:
    with Run() as recording:
        give(recording, Pause())
        wait_until(lambda: recording._gate is not None)
        thread = threading.Thread(target=lambda: recording.log(loss=2.0))
        thread.start()
        wait_until(lambda: answers(recording, Paused))
        thread.join(0.5)
        assert thread.is_alive()
        give(recording, Resume())
        thread.join()
        assert recording._writer is not None
        assert recording._writer.control.paused_s >= 0.5


def test_a_stop_raises_keyboard_interrupt_in_the_next_log(home: Path) -> None:
    recording = Run()
    recording.log(loss=1.0)
    give(recording, Stop(by=BY))
    wait_until(lambda: recording._gate is not None)
    with pytest.raises(KeyboardInterrupt, match="stopped by ada"):
        recording.log(loss=2.0)
    recording.log(loss=3.0)
    recording.finish()
    assert series(only_run(home)) == {"loss": [(0, 1.0), (1, 3.0)]}
    last = recorded(only_run(home))[-1]
    assert isinstance(last, ScriptEnded)
    assert (last.outcome, last.reason) == ("stopped", f"stopped by {BY}")


def test_a_stop_ends_a_pause(home: Path) -> None:
    recording = Run()
    give(recording, Pause(), Stop(by=BY))
    wait_until(lambda: recording._gate is not None)
    with pytest.raises(KeyboardInterrupt):
        recording.log(loss=2.0)
    recording.finish()


@pytest.mark.parametrize("ignored", [False, True], ids=["ctrl-c works", "ctrl-c is ignored, as under nohup"])
def test_a_script_that_logs_nothing_is_interrupted_where_it_is(ignored: bool, home: Path) -> None:
    code = f"""
    import json, os, signal, time
    if {ignored}:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    from epochtop.recording.later import control
    control.STOP_PATIENCE_S = 0.0
    import epochtop
    run = epochtop.Run()
    try:
        with open(run.path + "/commands.jsonl", "a") as commands:
            commands.write(json.dumps({{"type": "Stop", "by": "{BY}"}}) + "\\n")
        while True:
            time.sleep(0.05)
    except KeyboardInterrupt:
        print("saved")
    """
    status, output, errors = run(code, home)
    assert (status, output, errors) == (0, "saved\n", "")
    last = recorded(only_run(home))[-1]
    assert isinstance(last, ScriptEnded)
    assert (last.outcome, last.reason) == ("stopped", f"stopped by {BY}")


def test_a_script_that_looks_at_stopping_is_not_interrupted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "STOP_PATIENCE_S", 0.0)
    with Run() as recording:
        assert not recording.stopping
        give(recording, Stop(by=BY))
        wait_until(lambda: recording.stopping)
        recording.log(loss=1.0)
        assert recording.stopped_by == BY
    assert series(only_run(home)) == {"loss": [(0, 1.0)]}


def test_a_setting_has_the_value_that_a_viewer_gave_it(home: Path) -> None:
    with Run() as recording:
        assert recording.setting("lr", 0.1, low=0.0, high=1.0) == 0.1
        assert recording.setting("size", 8) == 8
        recording.log(loss=1.0)
        give(recording, Set(field="lr", value=0.5, by=BY), Set(field="size", value=16, by=BY))
        wait_until(lambda: recording.setting("size", 8) == 16)
        assert recording.setting("lr", 0.1) == 0.5
        assert isinstance(recording.setting("size", 8), int)
        wait_until(lambda: len(answers(recording, Changed)) == 2)
    assert answers(recording, SettingDeclared) == [
        SettingDeclared(name="lr", value=0.1, low=0.0, high=1.0),
        SettingDeclared(name="size", value=8.0),
    ]
    assert answers(recording, Changed) == [
        Changed(step=1, field="lr", value=0.5, by=BY),
        Changed(step=1, field="size", value=16.0, by=BY),
    ]


@pytest.mark.parametrize(("field", "value"), [("lr", 2.0), ("lr", -1.0), ("size", 1.5), ("other", 1.0)])
def test_a_wrong_setting_is_answered_and_changes_nothing(field: str, value: float, home: Path) -> None:
    with Run() as recording:
        recording.setting("lr", 0.1, low=0.0, high=1.0)
        recording.setting("size", 8)
        give(recording, Set(field=field, value=value))
        wait_until(lambda: answers(recording, Warned))
        assert (recording.setting("lr", 0.1), recording.setting("size", 8)) == (0.1, 8)
    (warning,) = answers(recording, Warned)
    assert isinstance(warning, Warned)
    assert warning.code == SETTING_REJECTED
    assert warning.message.startswith(f"{field} keeps its value")


def test_other_commands_are_answered_or_handled(home: Path) -> None:
    steps: list[object] = []
    with Run() as recording:
        recording.on_command("Analyze", lambda command: steps.append(command["steps"]))
        assert recording.path is not None
        with open(Path(recording.path) / "commands.jsonl", "ab", buffering=0) as commands:
            commands.write(b'not json\n[]\n{"by": "x"}\n' + b"[" * 100_000 + b'\n{"type": "Analyze", "steps": 3}\n')
        give(recording, Save(by=BY))
        wait_until(lambda: answers(recording, Warned) and steps)
    assert steps == [3]
    assert [getattr(event, "code", "") for event in answers(recording, Warned)] == [COMMAND_IGNORED]


def test_commands_from_before_a_continuation_are_ignored(home: Path) -> None:
    with Run() as recording:
        recording.log(loss=1.0)
    give(recording, Stop(by=BY))
    with Run(resume=recording.id) as again:
        again.log(loss=2.0)
        again._writer.wake()  # type: ignore[union-attr]
        wait_until(lambda: len(series(only_run(home)).get("loss", ())) == 2)
        assert not again.stopping
    assert os.path.samefile(str(recording.path), str(again.path))  # noqa: PTH121
