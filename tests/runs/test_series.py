"""Events of every version as windows of named series."""

from __future__ import annotations

import math
import struct

from epochtop.engine.protocol.events import (
    AnyEvent,
    Evaluated,
    Logged,
    Losses,
    Noted,
    SeriesSummary,
    Started,
    Telemetry,
    decode_event,
    encode,
)
from epochtop.engine.runs.series import SeriesWindow, summary_of, windows_of
from tests.support.logs import FINISHED, STARTED, packed

VALIDATED = Started(
    **{**{name: getattr(STARTED, name) for name in STARTED.__struct_fields__}, "eval_split": "validation"}
)


def values(windows: list[SeriesWindow]) -> dict[str, list[tuple[int, float]]]:
    """All values by series."""
    result: dict[str, list[tuple[int, float]]] = {}
    for window in windows:
        result.setdefault(window.name, []).extend(zip(window.step_numbers(), window.numbers(), strict=True))
    return result


def read(*events: AnyEvent) -> dict[str, list[tuple[int, float]]]:
    return values(list(windows_of(events)))


def test_losses_of_protocol_1_are_the_series_of_the_training_loss_and_the_learning_rate() -> None:
    windows = [
        Losses(first_step=0, seconds=0.1, values=packed(3, 2), reads=1, waited=0.0, learning_rate=0.5),
        Losses(first_step=2, seconds=0.2, values=packed(1), reads=2, waited=0.0, learning_rate=0.25),
        Losses(first_step=3, seconds=0.3, values=packed(0.5), reads=3, waited=0.0, learning_rate=0.25),
        Losses(first_step=4, seconds=0.3, values=b"", reads=3, waited=0.0),
    ]
    assert read(STARTED, *windows, FINISHED) == {
        "train/loss": [(0, 3.0), (1, 2.0), (2, 1.0), (3, 0.5)],
        "optimizer/learning_rate": [(1, 0.5), (2, 0.25)],
    }
    times = [(window.seconds, window.time) for window in windows_of([STARTED, *windows]) if window.name == "train/loss"]
    assert times == [(0.1, 1.1), (0.2, 1.2), (0.3, 1.3)]


def test_evaluations_are_series_by_rows_and_metric() -> None:
    first = Evaluated(step=3, seconds=0.1, loss=0.5, metric=0.75, metrics={"accuracy": 0.75, "macro F1": 0.5})
    bad = Evaluated(step=4, seconds=0.2, loss=None, metric=0.8)
    series = read(VALIDATED, first, bad)
    assert list(series) == ["validation/loss", "validation/accuracy", "validation/macro F1"]
    assert series["validation/accuracy"] == [(3, 0.75), (4, 0.8)]
    assert series["validation/loss"][0] == (3, 0.5)
    assert math.isnan(series["validation/loss"][1][1])
    assert list(read(STARTED, first)) == ["test/loss", "test/accuracy", "test/macro F1"]


def test_telemetry_is_series_at_the_last_recorded_step() -> None:
    on_gpu = Started(**{**{name: getattr(STARTED, name) for name in STARTED.__struct_fields__}, "device": "cuda:1"})
    losses = Losses(first_step=0, seconds=0.1, values=packed(3, 2, 1), reads=1, waited=0.0)
    load = Telemetry(time=9.0, engine_cpu_percent=99.5, gpu_percent=50.0, gpu_memory_bytes=3 * 2**31)
    series = read(on_gpu, losses, load)
    assert series["system/gpu1/percent"] == [(2, 50.0)]
    assert series["system/gpu1/memory_bytes"] == [(2, 3.0 * 2**31)]
    assert series["system/engine/cpu_percent"] == [(2, 99.5)]
    assert "system/gpu1/power_w" not in series


def test_logged_windows_are_read_as_they_were_written() -> None:
    steps = struct.pack("<3q", 7, 9, 2**40)
    event = Logged(
        time=5.0,
        seconds=2.0,
        first_step=7,
        count=3,
        steps=steps,
        values={"loss": packed(1, 2, 3), "tokens": struct.pack("<3d", 1e9 + 1, 2e9 + 1, 3e9 + 1)},
        summaries={"loss": summary_of([1, 2, 3])},
    )
    first, second = windows_of([decode_event(encode(event))])
    assert list(first.step_numbers()) == list(second.step_numbers()) == [7, 9, 2**40]
    assert (list(first.numbers()), first.last, first.last_step, first.double) == ([1, 2, 3], 3, 2**40, False)
    assert (list(second.numbers()), second.last, second.double) == ([1e9 + 1, 2e9 + 1, 3e9 + 1], 3e9 + 1, True)
    assert first.summary == SeriesSummary(finite=3, first=1, minimum=1, maximum=3, last=3, mean=2)
    assert (first.time, first.seconds, second.summary) == (5.0, 2.0, None)


def test_damaged_windows_and_other_events_have_no_series() -> None:
    short = Logged(time=1, seconds=1, first_step=0, count=3, values={"a": packed(1, 2), "b": packed(1, 2, 3)})
    no_steps = Logged(time=1, seconds=1, first_step=0, count=3, steps=b"\0" * 8, values={"b": packed(1, 2, 3)})
    empty = Logged(time=1, seconds=1, first_step=0, count=0, values={})
    assert read(short, no_steps, empty, Noted(message="x"), FINISHED) == {"b": [(0, 1), (1, 2), (2, 3)]}


def test_a_summary_leaves_out_what_is_not_finite() -> None:
    inf, nan = math.inf, math.nan
    assert summary_of([4.0, nan, 1.0, -inf, 7.0]) == SeriesSummary(
        finite=3, first=4.0, minimum=1.0, maximum=7.0, last=7.0, mean=4.0, first_bad=1
    )
    assert summary_of([nan]).finite == 0
    assert summary_of([nan]).mean is None
