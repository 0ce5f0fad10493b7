"""The learning rate follows torch's own schedulers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from epochtop.engine.protocol.events import Warned
from epochtop.engine.protocol.schedules import PLATEAU_PATIENCE, RANGE, Schedule
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.series import LEARNING_RATE, windows_of
from tests.support.engines import events, finished, losses, train_here

Make = Callable[[torch.optim.Optimizer, int], torch_schedules.LRScheduler]
THEIRS: dict[str, Make] = {
    "cosine": lambda optimizer, steps: torch_schedules.CosineAnnealingLR(optimizer, steps),
    "linear": lambda optimizer, steps: torch_schedules.LinearLR(optimizer, 1.0, 0.0, steps),
    "one_cycle": lambda optimizer, steps: torch_schedules.OneCycleLR(optimizer, 1.0, steps),
    "step": lambda optimizer, steps: torch_schedules.StepLR(optimizer, -(-steps // 3), 0.1),
    "constant": lambda optimizer, steps: torch_schedules.ConstantLR(optimizer, 1.0),
}


@pytest.mark.parametrize("steps", [12, 99, 300])
@pytest.mark.parametrize("name", THEIRS)
def test_a_schedule_is_that_of_torch(name: str, steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = THEIRS[name](optimizer, steps)
    ours = Schedule(RunSpec(schedule=name), steps)  # type: ignore[arg-type]
    for step in range(steps):
        assert ours.factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12), step
        optimizer.step()
        if step < steps - 1:
            theirs.step()


@pytest.mark.parametrize("name", [*THEIRS, "plateau", "range_test"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_short_run_has_a_schedule_too(name: str, steps: int) -> None:
    schedule = Schedule(RunSpec(schedule=name), steps)  # type: ignore[arg-type]
    assert all(0 <= schedule.factor(step) <= 1 for step in range(steps))


def test_warm_up_is_linear_and_the_schedule_starts_after_it() -> None:
    schedule = Schedule(RunSpec(schedule="cosine", warmup=10), 110)
    assert [schedule.factor(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    alone = Schedule(RunSpec(schedule="cosine"), 100)
    assert [schedule.factor(10 + step) for step in range(100)] == [alone.factor(step) for step in range(100)]


def test_a_range_test_rises_by_the_same_factor_every_step() -> None:
    schedule = Schedule(RunSpec(schedule="range_test"), 101)
    factors = [schedule.factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(RANGE)
    assert factors[-1] == 1.0
    ratios = [after / before for before, after in itertools.pairwise(factors)]
    assert ratios == pytest.approx([ratios[0]] * 100)


def test_plateau_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch_schedules.ReduceLROnPlateau(optimizer, patience=PLATEAU_PATIENCE, threshold=0.0, eps=0.0)
    ours = Schedule(RunSpec(schedule="plateau", eval_epochs=1), 100)
    chance = torch.Generator().manual_seed(3)
    for _ in range(60):
        loss = float(torch.rand((), generator=chance))
        theirs.step(loss)
        ours.observe(loss)
        assert ours.factor(0) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_the_state_of_plateau_can_be_restored() -> None:
    one, other = (Schedule(RunSpec(schedule="plateau", eval_epochs=1), 100) for _ in range(2))
    for loss in (1.0, 2.0, 2.0):
        one.observe(loss)
    other.load_state_dict(one.state_dict())
    assert [one.observe(2.0) for _ in range(6)] == [other.observe(2.0) for _ in range(6)]
    assert one.factor(0) == other.factor(0) < 1


# --- in a run ----------------------------------------------------------------------------------------------


def run(home: Path, **fields: object) -> Path:
    """A short run with evaluations at fixed steps."""
    common = {"device": "cpu", "threads": 1, "epochs": 200, "eval_every": 0.0, "save_every": 0.0, "refresh_ms": 10}
    return train_here(RunSpec(**(common | fields)), home)  # type: ignore[arg-type]


def test_a_run_records_the_rate_of_its_last_step(home: Path) -> None:
    path = run(home, schedule="linear", learning_rate=0.5)
    rates = [window for window in windows_of(events(path)) if window.name == LEARNING_RATE]
    assert rates[-1].last_step == 199
    assert rates[-1].last == pytest.approx(0.5 / 200)
    (constant,) = (window for window in windows_of(events(run(home))) if window.name == LEARNING_RATE)
    assert (constant.first_step, constant.count, constant.last) == (0, 1, 0.01)


def test_a_run_ends_when_patience_is_over(home: Path) -> None:
    """With a rate that changes nothing, no evaluation is better than the first."""
    end = finished(run(home, learning_rate=1e-30, patience=4, eval_epochs=10))
    assert (end.outcome, end.steps) == ("finished", 50)
    assert "no better loss in 4 evaluations" in end.reason


def test_a_plateau_lowers_the_rate_and_notes_it(home: Path) -> None:
    path = run(home, learning_rate=1e-30, schedule="plateau", eval_epochs=10)
    warnings = [event.message for event in events(path) if isinstance(event, Warned)]
    assert warnings
    assert "1e-31" in warnings[0]


def test_steps_and_seconds_limit_a_run(home: Path) -> None:
    assert finished(run(home, max_steps=33)).steps == 33
    assert len(losses(run(home, max_steps=33))) == 33
    timed = finished(run(home, epochs=10**9, max_seconds=0.3))
    assert timed.outcome == "finished"
    assert timed.seconds >= 0.3
    assert "the training time of 0.3 s is over" in timed.reason
