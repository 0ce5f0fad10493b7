"""Logs of other tools as events, records and summaries."""

from __future__ import annotations

import os
import time
from array import array
from pathlib import Path

import pytest

from epochtop.engine.protocol.events import AnyEvent, Configured, Failed, Logged, ScriptEnded, ScriptStarted, Warned
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.opened import follower as following
from epochtop.engine.runs.opened.follower import OpenedFollower
from epochtop.engine.runs.opened.summary import LogSummary, read_log_record, summarize_log
from epochtop.engine.runs.series import SeriesTranslator
from epochtop.formats.scan import Log, log_at
from tests.formats import writers
from tests.formats.writers import history, losses, message, scalar_event, single, tensorboard, wandb, wandb_run

LONG_AGO = writers.TIME


def folder_of(tmp_path: Path, events: list[bytes], changed: float | None = LONG_AGO) -> Path:
    """A TensorBoard run, last changed at a Unix time, or now."""
    path = tmp_path / "logs" / "events.out.tfevents.1"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(tensorboard(events))
    if changed is not None:
        os.utime(path, (changed, changed))
    return path.parent


def read(follower: OpenedFollower) -> list[AnyEvent]:
    """All events that there are now."""
    follower._next_look = 0.0
    events: list[AnyEvent] = []
    while batch := follower.read():
        events += [event for event in batch if not isinstance(event, following.BadLine)]
    follower.close()
    return events


def values_of(events: list[AnyEvent]) -> dict[str, dict[int, float]]:
    """Values by series and step, as the viewer decodes them."""
    translator, values = SeriesTranslator(), dict[str, dict[int, float]]()
    for event in events:
        for window in translator.windows(event):
            values.setdefault(window.name, {}).update(zip(window.step_numbers(), window.numbers(), strict=True))
    return values


def log_of(path: Path) -> Log:
    log = log_at(path)
    assert log is not None
    return log


def test_a_quiet_log_starts_and_ends(tmp_path: Path) -> None:
    run = folder_of(tmp_path, [*losses(300), *losses(300, "accuracy")])
    first, *windows, last = read(OpenedFollower(run))
    assert first == ScriptStarted(time=writers.TIME, pid=0)
    assert isinstance(last, ScriptEnded)
    assert (last.outcome, last.steps, last.seconds) == ("finished", 300, 299.0)
    expected = {step: single(1 / (step + 1)) for step in range(300)}
    assert values_of(windows) == {"train/loss": expected, "accuracy": expected}


def test_a_window_spans_a_minute_at_most_and_is_summarized(tmp_path: Path) -> None:
    run = folder_of(
        tmp_path, [scalar_event(step, "loss", 1 / (step + 1), writers.TIME + step / 2) for step in range(400)]
    )
    windows = [event for event in read(OpenedFollower(run)) if isinstance(event, Logged)]
    assert [window.count for window in windows] == [121, 121, 121, 37]
    assert [window.time for window in windows] == [writers.TIME + seconds for seconds in (60, 120.5, 181, 199.5)]
    assert windows[0].summaries["loss"].maximum == 1.0
    assert windows[0].summaries["loss"].minimum == single(1 / 121)
    assert all(len(window.values["loss"]) == 4 * window.count for window in windows)


def test_a_double_keeps_its_precision(tmp_path: Path) -> None:
    path = tmp_path / "run.wandb"
    path.write_bytes(wandb([history(0, loss=0.1, half=0.5), history(7, loss=0.2, half=0.25)]))
    (window,) = (event for event in read(OpenedFollower(path)) if isinstance(event, Logged))
    assert array("d", window.values["loss"]).tolist() == [0.1, 0.2]
    assert array("f", window.values["half"]).tolist() == [0.5, 0.25]
    assert window.steps is not None
    assert array("q", window.steps).tolist() == [0, 7]


def test_a_log_that_grows_again_continues(tmp_path: Path) -> None:
    run = folder_of(tmp_path, losses(10))
    follower = OpenedFollower(run)
    assert isinstance(read(follower)[-1], ScriptEnded)
    assert read(follower) == []
    folder_of(tmp_path, losses(12))
    again, window, end = read(follower)
    assert isinstance(again, ScriptStarted)
    assert again.step == 10
    assert values_of([window]).keys() == {"train/loss"}
    assert isinstance(end, ScriptEnded)
    assert end.steps == 12


def test_a_log_is_running_while_it_grows(tmp_path: Path) -> None:
    now = time.time()
    events = [scalar_event(step, "loss", 1.0, now - 10 + step) for step in range(10)]
    run = folder_of(tmp_path, events, changed=None)
    assert not any(isinstance(event, ScriptEnded) for event in read(OpenedFollower(run)))
    assert summarize_log(log_of(run)).state == "running"
    assert summarize_log(log_of(run), now + 50).state == "running"
    assert summarize_log(log_of(run), now + 120).state == "finished"


def test_a_slow_run_may_be_quiet_for_longer(tmp_path: Path) -> None:
    """An epoch takes ten minutes; five of them without a value may pass."""
    now = time.time()
    events = [scalar_event(step, "loss", 1.0, now - 6000 + 600 * step) for step in range(11)]
    run = folder_of(tmp_path, events, changed=None)
    assert summarize_log(log_of(run), now + 2900).state == "running"
    assert summarize_log(log_of(run), now + 3100).state == "finished"


@pytest.mark.parametrize(("status", "state"), [(0, "finished"), (1, "failed"), (255, "stopped")])
def test_a_log_may_say_how_the_run_ended(tmp_path: Path, status: int, state: str) -> None:
    path = tmp_path / "run.wandb"
    path.write_bytes(wandb([history(0, loss=0.5), message((18, message((1, status))))]))
    assert summarize_log(log_of(path)).state == state
    last = read(OpenedFollower(path))[-1]
    assert isinstance(last, Failed) if state == "failed" else isinstance(last, ScriptEnded) and last.outcome == state


def test_the_record_has_name_and_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.wandb"
    path.write_bytes(wandb([wandb_run("first", {"lr": 0.1}), history(0, loss=0.5)]))
    record = read_log_record(path)
    assert record.script is not None
    assert (record.name, record.script.config, record.script.tags) == ("first", {"lr": 0.1}, ("tag",))
    assert record.created == writers.TIME
    assert Configured(values={"lr": 0.1}) in read(OpenedFollower(path))


def test_damage_is_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n0,1\nx,y\n1,0.5\n")
    follower = OpenedFollower(path)
    warnings = [event for event in read(follower) if isinstance(event, Warned)]
    assert [warning.message for warning in warnings] == [f"{path}: 1 damaged record was skipped"]
    assert not any(isinstance(event, Warned) for event in read(follower))


def test_the_summary_follows_the_log(tmp_path: Path) -> None:
    run = folder_of(tmp_path, losses(10))
    summary = LogSummary(log_of(run))
    assert (summary.update().steps, summary.update().final_loss) == (10, single(1 / 10))
    folder_of(tmp_path, losses(20), changed=LONG_AGO + 1)
    assert (summary.update().steps, summary.update().final_loss) == (20, single(1 / 20))
    assert summary.update().id == str(run)
    assert summary.update().created == writers.TIME


def test_something_else_is_not_a_log(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(Invalid, match="nor a log in a format"):
        OpenedFollower(tmp_path / "notes.txt")
    with pytest.raises(Invalid, match="nor a log in a format"):
        read_log_record(tmp_path)
