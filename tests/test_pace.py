"""The line on where a run's time goes: only what the run itself has measured."""

from __future__ import annotations

import msgspec
import pytest

from engine.protocol import Losses, Switched
from tests.made_runs import started
from tui.pace import pace
from tui.runstate import RunState


def run(device: str, seconds: float, waited_s: float, steps: int = 1000) -> RunState:
    told = RunState()
    told.apply(msgspec.structs.replace(started(), device=device))
    told.apply(Losses(first_step=0, seconds=seconds, values=bytes(4 * steps), reads=1, waited=waited_s))
    return told


@pytest.mark.parametrize(
    ("waited_s", "begins"),
    [
        (0.05, "the device waits for the host: 2.00 ms a step, of which the loop waited 2%"),
        (1.8, "the device sets the pace: the loop waited for it 90% of the time, 2.00 ms a step"),
        (0.6, "host and device are about even"),
    ],
)
def test_on_a_gpu_it_is_the_waiting_that_tells_who_is_behind(waited_s: float, begins: str) -> None:
    assert pace(run("cuda:0", 2.0, waited_s)).startswith(begins)


def test_a_switch_is_told_with_both_figures_that_were_measured() -> None:
    told = run("cpu", 2.0, 0.0)
    told.apply(Switched(step=625, executor="graph", why="a step takes 5.1 µs instead of 64 µs"))
    assert pace(told) == "graph: a step takes 5.1 µs instead of 64 µs"


def test_a_refused_graph_is_no_gain() -> None:
    told = run("cpu", 2.0, 0.0)
    told.apply(Switched(step=625, executor="eager", why="auto stays with eager: no compiler"))
    assert pace(told) == ""


def test_nothing_is_said_before_enough_was_measured() -> None:
    assert pace(RunState()) == ""
    assert pace(run("cuda:0", 0.5, 0.0)) == ""


def test_on_the_cpu_there_is_no_waiting_to_tell_from() -> None:
    told = run("cpu", 2.0, 0.0)
    assert pace(told) == ""
    told.died("killed")
    assert pace(told) == "a step takes 2.00 ms (eager) · a measures where it goes"
