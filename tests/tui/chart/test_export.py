"""Exports: the table contains the losses of the run, and the drawing is well-formed and complete."""

from __future__ import annotations

import csv
import io
from array import array
from xml.etree import ElementTree

import pytest

from epochtop.engine.protocol.events import Evaluated, Losses, Started
from epochtop.tui.chart.curves import ChartView
from epochtop.tui.chart.export import HEADER, export_csv, export_svg
from epochtop.tui.chart.trace import Trace, Unit

SVG = "{http://www.w3.org/2000/svg}"


def losses(first_step: int, values: list[float], seconds: float) -> Losses:
    packed = array("f", values).tobytes()
    return Losses(first_step=first_step, seconds=seconds, values=packed, reads=1, waited=0.0)


@pytest.fixture
def trace() -> Trace:
    run = Trace("iris-mlp-7f3a", steps_per_epoch=10)
    run.feed(losses(0, [1 / (1 + i) for i in range(100)], 2.0))
    for step in (0, 50):
        run.feed(Evaluated(step=step, seconds=1.0, loss=0.5, metric=0.9))
    return run


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_table_has_every_step_if_buckets_are_single_steps(trace: Trace) -> None:
    text = export_csv(trace, ChartView(0, 100, "step", 40))
    assert text.splitlines()[0] == HEADER == "series,step,min,mean,max,last"
    train = [row for row in table(text) if row["series"] == "train"]
    assert [int(row["step"]) for row in train] == list(range(100))
    stored = array("f", [1 / (1 + i) for i in range(100)])
    for row, value in zip(train, stored, strict=True):
        assert {array("f", [float(row[key])])[0] for key in ("min", "mean", "max", "last")} == {value}
    assert [(row["step"], row["last"]) for row in table(text) if row["series"] == "test"] == [
        ("0", "0.5"),
        ("50", "0.5"),
    ]


@pytest.mark.parametrize(
    ("unit", "low", "high"),
    [("step", 20, 40), ("epoch", 2, 4), ("seconds", 0.4, 0.8)],
    ids=["step", "epoch", "seconds"],
)
def test_the_table_has_the_visible_range(trace: Trace, unit: Unit, low: float, high: float) -> None:
    rows = table(export_csv(trace, ChartView(low, high, unit, 40)))
    assert [int(row["step"]) for row in rows if row["series"] == "train"] == list(range(20, 40))


def test_buckets_of_several_steps_have_their_extremes() -> None:
    run = Trace()
    run.feed(losses(0, [float(i) for i in range(20_000)], 1.0))
    rows = table(export_csv(run, ChartView(0, 20_000, "step", 80)))
    assert len(rows) == 5_000
    assert rows[1] == {"series": "train", "step": "4", "min": "4", "mean": "5.5", "max": "7", "last": "7"}


def test_a_name_cannot_break_the_table(trace: Trace) -> None:
    other = Trace('=cmd|"x",\n')
    other.feed(losses(0, [1.0], 1.0))
    rows = table(export_csv(trace, ChartView(0, 100, "step", 40), [other]))
    assert rows[-1]["series"] == '\'=cmd|"x", '
    assert rows[-1]["last"] == "1"


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.9])
def test_the_drawing_is_well_formed_and_complete(trace: Trace, log: bool, smoothing: float) -> None:
    other = Trace("<b>&\x1b[31m")
    other.feed(losses(0, [0.3] * 100, 1.0))
    root = ElementTree.fromstring(
        export_svg(trace, ChartView(0, 100, "step", 40, smoothing, log), [other], "iris & co")
    )
    texts = [node.text for node in root.iter(f"{SVG}text")]
    assert {"train", "test", "iris & co", "step", "0", "100"} <= set(texts)
    assert "<b>&[31m" in texts
    squares = [node for node in root.iter(f"{SVG}rect") if node.get("width") == "6"]
    assert len(squares) == 2
    lines = [node for node in root.iter(f"{SVG}path") if (node.get("d") or "").count("L") > 20]
    assert len(lines) >= 2


def test_the_drawing_marks_the_first_bad_loss(trace: Trace) -> None:
    trace.feed(losses(100, [float("nan")], 3.0))
    assert "✗ NaN at step 100" in export_svg(trace, ChartView(0, 200, "step", 40))
    assert "✗ NaN" not in export_svg(trace, ChartView(0, 50, "step", 40))


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 0.0], [float("nan")], [float("inf"), -1.0]])
@pytest.mark.parametrize("log", [False, True])
def test_any_losses_can_be_drawn(values: list[float], log: bool) -> None:
    run = Trace()
    run.feed(losses(0, values, 1.0))
    root = ElementTree.fromstring(export_svg(run, ChartView(0, 10, "step", 40, 0.0, log)))
    for node in root.iter():
        assert "nan" not in " ".join(node.attrib.values())


def test_a_trace_takes_the_length_of_an_epoch_from_started() -> None:
    run = Trace()
    assert run.feed(
        Started(
            time=0.0,
            device="cpu",
            device_name="",
            executor="eager",
            threads=1,
            rows=1,
            test_rows=1,
            features=1,
            outputs=1,
            parameters=1,
            steps=10,
            steps_per_epoch=5,
            loss="cross_entropy",
            metric="accuracy",
            torch_version="2",
        )
    )
    assert run.to_step(2, "epoch") == 10
