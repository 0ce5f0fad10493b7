"""What `log()` accepts: every kind of number; anything else is reported once and never raised."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epochtop.engine.protocol.events import VALUE_IGNORED, ScriptEnded, Warned
from epochtop.engine.runs.index import summarize
from epochtop.recording.run import Run
from epochtop.recording.series import FiniteWatch
from tests.recording.scripts import only_run, recorded, series

NUMBERS: list[tuple[str, Any, float]] = [
    ("float", 0.1, 0.1),
    ("int", 3, 3.0),
    ("large int", 10**300, 1e300),
    ("bool", True, 1.0),
    ("nan", math.nan, math.nan),
    ("inf", -math.inf, -math.inf),
    ("numpy float64", np.float64(0.1), 0.1),
    ("numpy float32", np.float32(0.1), float(np.float32(0.1))),
    ("numpy float16", np.float16(0.5), 0.5),
    ("numpy int", np.int64(1 << 40), float(1 << 40)),
    ("numpy bool", np.bool_(True), 1.0),
    ("numpy array", np.array([[2.5]]), 2.5),
    ("decimal", Decimal("0.25"), 0.25),
    ("fraction", Fraction(1, 4), 0.25),
    ("tensor", torch.tensor(0.1), float(np.float32(0.1))),
    ("double tensor", torch.tensor(0.1, dtype=torch.float64), 0.1),
    ("half tensor", torch.tensor(0.5, dtype=torch.float16), 0.5),
    ("bfloat16 tensor", torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
    ("integer tensor", torch.tensor(1 << 40), float(1 << 40)),
    ("bool tensor", torch.tensor(True), 1.0),
    ("one element", torch.ones(1, 1), 1.0),
    ("view", torch.arange(6.0)[5:], 5.0),
    ("parameter", torch.nn.Parameter(torch.tensor(2.0)), 2.0),
    ("loss", torch.tensor(3.0, requires_grad=True) * 2, 6.0),
    ("nan tensor", torch.tensor(math.nan), math.nan),
    ("sparse tensor", torch.tensor([0.0, 2.0]).to_sparse()[1], 2.0),
]


@pytest.mark.parametrize(("value", "number"), [each[1:] for each in NUMBERS], ids=[each[0] for each in NUMBERS])
def test_a_number_of_any_kind_is_recorded(
    value: Any, number: float, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run() as recording:
        recording.log(x=value)
        recording.log({"x": value})
    np.testing.assert_equal(series(only_run(home)), {"x": [(0, number), (1, number)]})
    assert capsys.readouterr().err == ""


class Hostile:
    """An object that raises whenever it is looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __float__(self) -> float:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise AssertionError("an ignored value is never printed")


OTHERS: list[tuple[str, Any]] = [
    ("None", None),
    ("string", "0.5"),
    ("bytes", b"0.5"),
    ("10 MB string", "x" * 10_000_000),
    ("10 MB list", [0.0] * 1_250_000),
    ("10 MB array", np.zeros(1_250_000)),
    ("image", np.zeros((8, 8, 3), dtype=np.uint8)),
    ("vector", torch.ones(3)),
    ("empty tensor", torch.ones(0)),
    ("meta tensor", torch.ones((), device="meta")),
    ("complex", 1j),
    ("complex tensor", torch.tensor(1j)),
    ("complex numpy", np.complex64(1j)),
    ("date", np.datetime64("2026-01-01")),
    ("too large", 10**400),
    ("function", print),
    ("class", dict),
    ("module", torch.nn.Linear(2, 2)),
    ("hostile", Hostile),
]


@pytest.mark.parametrize("value", [each[1] for each in OTHERS], ids=[each[0] for each in OTHERS])
def test_anything_else_is_reported_once_and_the_rest_is_recorded(
    value: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if value is Hostile:
        value = Hostile()  # pytest itself must not look at it
    with Run() as recording:
        recording.log(a=1.0, bad=value, b=2)
        recording.log({"bad": value, "a": 3.0})
    assert series(only_run(home)) == {"a": [(0, 1.0), (1, 3.0)], "b": [(0, 2.0)]}
    errors = capsys.readouterr().err
    assert errors.startswith("epochtop: bad is ignored")
    assert errors.count("\n") == 1
    assert len(errors) < 400
    (warning,) = (event for event in recorded(only_run(home)) if isinstance(event, Warned))
    assert (warning.code, f"epochtop: {warning.message}\n") == (VALUE_IGNORED, errors)


def test_nested_dictionaries_are_joined(home: Path) -> None:
    with Run() as recording:
        recording.log({"train": {"loss": 1, "a": {"b": torch.tensor(2.0)}}, 3: 4})
        recording.log(val={"loss": 5})
    assert series(only_run(home)) == {
        "train/loss": [(0, 1.0)],
        "train/a/b": [(0, 2.0)],
        "3": [(0, 4.0)],
        "val/loss": [(1, 5.0)],
    }


def test_a_dictionary_that_contains_itself_is_reported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data: dict[str, Any] = {"a": 1.0}
    data["self"] = data
    with Run() as recording:
        recording.log(data)
        recording.log([1.0])  # type: ignore[arg-type]
        recording.log({f"n{i}": 1.0 for i in range(20_000)})
    errors = capsys.readouterr().err
    assert errors.count("epochtop: log() ignored values") == 3


@pytest.mark.parametrize("name", ["ä/€ 😀", 'quote " back \\ slash', "\ud800", "a" * 1000, "new\nline", ""])
def test_every_name_is_stored_as_text(name: str, home: Path) -> None:
    with Run(name) as recording:
        recording.log({name: 1.0})
    assert list(series(only_run(home)).values()) == [[(0, 1.0)]]


def test_a_tensor_that_changes_later_keeps_the_value_that_was_logged(home: Path) -> None:
    value = torch.ones(())
    with Run() as recording:
        for _ in range(3):
            recording.log(x=value, y=value.numpy())
            value += 1
    assert series(only_run(home)) == {name: [(0, 1.0), (1, 2.0), (2, 3.0)] for name in ("x", "y")}


def test_the_data_of_the_caller_is_not_changed(home: Path) -> None:
    data = {"x": 1, "y": {"z": None}}
    with Run() as recording:
        recording.log(data)
    assert data == {"x": 1, "y": {"z": None}}


def test_the_number_of_series_is_bounded(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("epochtop.recording.series.SERIES", 5)
    with Run() as recording:
        for step in range(10):
            recording.log({f"loss {step}": 1.0})
    assert len(series(only_run(home))) == 5
    assert capsys.readouterr().err == "epochtop: only the first 5 series are recorded\n"


class Lazy:
    """An array of a library that computes on a device of its own, as far as `log()` looks at it."""

    __module__ = "jaxlib.fake"

    def __init__(self) -> None:
        self.ready, self.reads = False, 0

    def is_ready(self) -> bool:
        return self.ready

    def item(self) -> float:
        assert self.ready
        self.reads += 1
        return 2.5


def test_an_array_of_jax_is_read_when_it_is_computed(home: Path) -> None:
    from tests.support.engines import wait_until

    array = Lazy()
    with Run() as recording:
        recording.log(x=array)
        recording.log(x=1.0)
        wait_until(lambda: recording._writer._numbering.next == 2)  # type: ignore[union-attr]
        assert (array.reads, series(only_run(home))) == (0, {})
        array.ready = True
        wait_until(lambda: series(only_run(home)))
    assert series(only_run(home)) == {"x": [(0, 2.5), (1, 1.0)]}


def test_a_real_array_of_jax_is_recorded(home: Path) -> None:
    jax = pytest.importorskip("jax")
    with Run() as recording:
        recording.log(x=jax.numpy.float32(0.5) * 2)
    assert series(only_run(home)) == {"x": [(0, 1.0)]}


# --- values that are not finite -----------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


def test_a_loss_that_ends_as_nan_is_the_reason_of_the_end(home: Path) -> None:
    with Run() as recording:
        for step in range(200):
            recording.log(loss=NAN if step == 3 or step >= 150 else 1.0)
    path = only_run(home)
    last = recorded(path)[-1]
    assert isinstance(last, ScriptEnded)
    assert (last.outcome, last.reason) == ("finished", "loss is NaN since step 150")
    assert (summarize(path).state, summarize(path).note) == ("finished", "loss is NaN since step 150")


@pytest.mark.parametrize(
    ("windows", "sentence"),
    [
        ([{"loss": [1.0, NAN]}, {"loss": [NAN, 2.0]}], ""),
        ([{"loss": [1.0, NAN]}, {"loss": [NAN, NAN]}], "loss is NaN since step 1"),
        ([{"loss": [NAN, 1.0, INF, NAN]}], "loss is infinite since step 2"),
        ([{"auc": [NAN], "val_loss": [1.0]}, {"val_loss": [NAN]}], "val_loss is NaN since step 1, and 1 more series is not finite"),
    ],
)  # fmt: skip
def test_series_are_not_finite_since_the_step_after_their_last_finite_value(
    windows: list[dict[str, list[float]]], sentence: str
) -> None:
    watch, steps = FiniteWatch(), dict.fromkeys(("loss", "auc", "val_loss"), 0)
    for window in windows:
        columns = {}
        for name, values in window.items():
            columns[name] = (range(steps[name], steps[name] + len(values)), values)
            steps[name] += len(values)
        watch.add(columns)
    assert watch.describe() == sentence
