"""Run directories that were written once and must stay readable: one of protocol 1, one of a script.

The fixtures must never be written again by newer code.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from epochtop.engine.runs.index import summarize
from epochtop.engine.runs.reader import BadLine, Follower, read_record
from epochtop.engine.runs.series import SeriesWindow, windows_of
from epochtop.tui.chart.trace import Trace
from epochtop.tui.state.run import RunState

GOLDEN = Path(__file__).parents[1] / "fixtures" / "runs"


def lines(run: str) -> Iterator[dict[str, Any]]:
    """The events as plain JSON."""
    return map(json.loads, (GOLDEN / run / "events.jsonl").read_text().splitlines())


def floats(text: str) -> list[float]:
    content = base64.b64decode(text)
    return list(struct.unpack(f"<{len(content) // 4}f", content))


def read(run: str) -> dict[str, list[SeriesWindow]]:
    """All windows by series."""
    with closing(Follower(GOLDEN / run)) as follower:
        events = list(follower.read_all())
    assert not any(isinstance(event, BadLine) for event in events)
    result: dict[str, list[SeriesWindow]] = {}
    for window in windows_of(events):  # type: ignore[arg-type]
        result.setdefault(window.name, []).append(window)
    return result


def values(windows: list[SeriesWindow]) -> list[tuple[int, float]]:
    return [pair for window in windows for pair in zip(window.step_numbers(), window.numbers(), strict=True)]


def folded(run: str) -> tuple[RunState, Trace]:
    """What a viewer knows of a run."""
    state, trace = RunState(read_record(GOLDEN / run)), Trace()
    with closing(Follower(GOLDEN / run)) as follower:
        for event in follower.read_all():
            assert not isinstance(event, BadLine)
            state.apply(event)
            trace.feed(event)
    return state, trace


def test_a_run_of_protocol_1_has_all_its_series() -> None:
    series = read("protocol-1")
    recorded = [value for line in lines("protocol-1") if line["type"] == "Losses" for value in floats(line["values"])]
    assert values(series["train/loss"]) == list(enumerate(recorded))
    assert len(recorded) == 400
    evaluations = [line for line in lines("protocol-1") if line["type"] == "Evaluated"]
    assert values(series["validation/loss"]) == [(line["step"], line["loss"]) for line in evaluations]
    assert values(series["validation/f1"]) == [(line["step"], line["metrics"]["f1"]) for line in evaluations]
    rates = [line["learning_rate"] for line in lines("protocol-1") if line["type"] == "Losses"]
    assert [value for _, value in values(series["optimizer/learning_rate"])] == rates
    assert values(series["system/engine/cpu_percent"]) == [(399, 99.5)]


def test_a_run_of_protocol_1_is_listed_and_drawn() -> None:
    summary = summarize(GOLDEN / "protocol-1")
    assert (summary.state, summary.steps, summary.dataset, summary.device) == ("finished", 400, "iris", "cpu")
    state, trace = folded("protocol-1")
    assert (state.state, state.step, state.main) == ("finished", 400, "train/loss")
    assert [curve.label for curve in trace.curves] == ["train", "validation"]
    assert trace.families[:3] == ["loss", "accuracy", "f1"]
    assert trace.main.steps == 400


def test_a_run_of_a_script_has_all_its_series() -> None:
    series = read("script")
    expected = [round(2 / (1 + step / 50), 6) for step in range(128)]
    losses = values(series["train/loss"])
    assert [step for step, _ in losses] == [*range(128), 100, 101, 102]
    for step, value in losses[:128]:
        assert math.isnan(value) if step == 70 else math.isclose(value, expected[step], rel_tol=1e-6)
    assert [value for _, value in losses[128:]] == [9.0, 8.0, 7.0]
    assert values(series["val/accuracy"]) == [(31, 0.25), (63, 0.5), (95, 0.625), (127, 0.75)]
    assert values(series["tokens"])[-1] == (127, 4.0 * 1024 * 128 * 2**20 + 1)
    summary = series["train/loss"][1].summary
    assert summary is not None
    assert (summary.finite, summary.first_bad) == (63, 6)


def test_a_run_of_a_script_is_listed_and_drawn() -> None:
    summary = summarize(GOLDEN / "script")
    assert (summary.name, summary.state, summary.steps, summary.series) == ("resnet lr3", "finished", 128, "train/loss")
    state, trace = folded("script")
    assert state.script is not None
    assert state.script.config == {"lr": 0.1, "max_steps": 200, "optimizer/name": "adam"}
    assert state.script.settings["learning_rate"].value == 0.01
    assert state.verdict() == "finished: 128 steps in 4.00 s · best accuracy 0.7500"
    assert state.last_values["val/loss"] == 0.75
    assert (trace.main.first_bad_step, trace.main.seams) == (70, [100])
    assert [bucket.last for bucket in trace.main.buckets(99, 104)][1:4] == [9.0, 8.0, 7.0]
    assert trace.families == ["loss", "tokens", "accuracy"]
