"""The quick way of a usual step records what the way of every other step does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from epochtop.hooks import steps
from epochtop.hooks.step_hook import make_step_hook
from epochtop.hooks.steps import LOSS, STEP_MS, UNSEEN_STEPS, StepMeter
from epochtop.hooks.torch_patches import TorchPatches
from epochtop.recording.series import COMMITTED, MEASURED, Numbering, columns_of
from epochtop.recording.values.usual_steps import UsualSteps

USUAL = 8
"""A step that the quick way takes."""


class Optimizer:
    def __init__(self, rate: float) -> None:
        self.param_groups = [{"lr": rate}]


def recorded(act: Callable[[int, StepMeter, Optimizer, Any], None], *, quick: bool) -> tuple[list[Any], int]:
    """Rows of a loop (step, names of series, values but times), and how many steps took the long way. `act` happens before every step."""
    run = SimpleNamespace(_gate=None, _entries=[])
    long_ways: list[Any] = []

    def emit(step: int, values: dict[str, Any]) -> None:
        run._entries.append((MEASURED - step, values))

    reports: list[str] = []
    meter = StepMeter(emit, reports.append, lambda _: "first", lambda: 1)
    stepped = meter.stepped
    meter.stepped = lambda optimizer: (long_ways.append(1), stepped(optimizer))[1]  # type: ignore[method-assign]
    step = partial(make_step_hook(lambda: False, meter), args=(), kwargs={}) if quick else meter.stepped
    optimizer = Optimizer(0.125)
    meter.record_into(run, 0)  # type: ignore[arg-type]
    for number in range(USUAL + 12):
        if meter.fast.expected_class is None:
            meter.fast.loss_class = float
            meter.waiting.append(1.0 + number)
        else:  # as a backward pass of the fast path does
            meter.fast.loss, meter.fast.expected_class = 1.0 + number, None
        act(number, meter, optimizer, run)
        step(optimizer)
    assert not reports
    rows = [
        (number, list(row), [value for name, value in row.items() if not name.startswith("time/")])
        for number, row in Numbering().rows(run._entries)
    ]
    return rows, len(long_ways)


def nothing(number: int, meter: StepMeter, optimizer: Optimizer, run: Any) -> None:
    """A usual step."""


def rate(number: int, meter: StepMeter, optimizer: Optimizer, run: Any) -> None:
    if number == USUAL:
        optimizer.param_groups[0]["lr"] = 0.25


def group(number: int, meter: StepMeter, optimizer: Optimizer, run: Any) -> None:
    if number == USUAL:
        optimizer.param_groups.append({"lr": 0.5})


def micro_batches(number: int, meter: StepMeter, optimizer: Optimizer, run: Any) -> None:
    if number == USUAL:
        meter.fast.leave(meter.waiting)
        meter.waiting.append(3.0)


def no_loss(number: int, meter: StepMeter, optimizer: Optimizer, run: Any) -> None:
    if number == USUAL:
        meter.fast.leave(meter.waiting)
        meter.waiting.clear()


def tensor(number: int, meter: StepMeter, optimizer: Optimizer, run: Any) -> None:
    if number == USUAL:
        meter.fast.leave(meter.waiting)
        meter.waiting[:] = [SimpleNamespace()]


def data(number: int, meter: StepMeter, optimizer: Optimizer, run: Any) -> None:
    if number == USUAL:
        meter.data_wait_s = 1e-9
        meter.fast.close()


def gate(number: int, meter: StepMeter, optimizer: Optimizer, run: Any) -> None:
    run._gate = run if number == USUAL else None


def test_both_ways_record_the_same() -> None:
    _, beginning = recorded(nothing, quick=True)
    assert beginning < 5
    for act in (nothing, rate, group, micro_batches, no_loss, data, gate):
        quick, long_ways = recorded(act, quick=True)
        assert quick == recorded(act, quick=False)[0], act.__name__
        assert len(quick) == USUAL + 12
        assert (long_ways > beginning) == (act is not nothing), act.__name__
    assert len(recorded(tensor, quick=True)[0]) == USUAL + 12


def test_usual_steps_have_the_numbers_and_the_order_of_rows() -> None:
    """A script that logs values of its own between them; given at once and one entry at a time."""
    usual, own = {"loss": 0.0, "ms": 1000 / 1024}, {"own": 1.0}
    rows = [(MEASURED - 4, usual), (MEASURED - 5, usual), (COMMITTED, own), (MEASURED - 6, usual), (COMMITTED, own)]
    usual_steps = [0.0, 1.0 + 2**-10, 0.0, 1.0 + 2**-9, (COMMITTED, own), 0.0, 1.0 + 3 * 2**-10, (COMMITTED, own)]
    expected, at_once, before = Numbering(), Numbering(), Numbering()
    assert at_once.rows([UsualSteps("loss", "ms", 4, 1.0), *usual_steps]) == expected.rows(rows)
    assert (at_once.next, at_once.end) == (expected.next, expected.end)
    assert before.next_after([UsualSteps("loss", "ms", 4, 1.0), *usual_steps]) == expected.next


def test_a_window_of_usual_steps_needs_no_rows() -> None:
    numbering, by_row = Numbering(), Numbering()
    assert numbering.usual_columns([1.0, 0.5]) is None
    assert numbering.rows([UsualSteps(LOSS, STEP_MS, 7, 0.0)]) == []
    by_row.rows([UsualSteps(LOSS, STEP_MS, 7, 0.0)])
    numbers = [number for step in range(5) for number in (0.5 * step, float(step * step))]
    columns = numbering.usual_columns(numbers)
    assert columns is not None
    series = {name: (list(steps), values) for name, (steps, values) in columns.items()}
    assert series == columns_of(by_row.rows(numbers))
    assert series[LOSS] == ([7, 8, 9, 10, 11], [0.0, 0.5, 1.0, 1.5, 2.0])
    assert series[STEP_MS] == ([7, 8, 9, 10, 11], [0.0, 1000.0, 3000.0, 5000.0, 7000.0])
    assert (numbering.end, numbering.position) == (by_row.end, by_row.position) == (12, 12)


def test_an_analysis_sees_every_step_from_the_next_one_on() -> None:
    seen: list[int] = []

    def analyze(number: int, meter: StepMeter, optimizer: Optimizer, run: Any) -> None:
        if number == USUAL:
            meter.on_boundary = seen.append
        if number == USUAL + 3:
            meter.on_boundary = None

    recorded(analyze, quick=True)
    assert seen == [USUAL + 1, USUAL + 2, USUAL + 3]


def test_steps_that_only_backward_passes_show_are_recorded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a script takes its steps by hand; its loss arrives with every backward pass, not with every second one."""
    monkeypatch.setattr(steps, "COMPILER", "")  # another test may have loaded it
    rows: list[tuple[int, dict[str, Any]]] = []
    patches = TorchPatches(lambda step, values: rows.append((step, values)), lambda _: None)

    class Loss(float):
        is_cpu = True

        def numel(self) -> int:
            return 1

        def item(self) -> float:
            return float(self)

    def backward(
        tensors: Any,
        grad_tensors: Any = None,
        retain_graph: Any = None,
        create_graph: bool = False,
        grad_variables: Any = None,
        inputs: Any = None,
    ) -> None:
        """With the parameters of torch.autograd.backward."""

    module = SimpleNamespace(backward=backward)
    patches.patch_autograd(module)
    counts = []
    for step in range(UNSEEN_STEPS + 20):
        module.backward(Loss(step))
        counts.append(len(rows))
    assert counts[UNSEEN_STEPS - 1 :] == list(range(UNSEEN_STEPS, UNSEEN_STEPS + 21))
    assert [values[LOSS] for _, values in rows] == list(range(UNSEEN_STEPS + 20))
