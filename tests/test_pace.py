"""The line on where a run's time goes: only what the run itself has measured."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.protocol import Losses, RunRecord, Switched
from engine.spec import RunSpec
from tests.made_runs import CREATED, started
from tui.pace import pace
from tui.runstate import RunState


def run(
    device: str, seconds: float, waited_s: float, steps: int = 1000, notes: tuple[str, ...] = (), **fields: Any
) -> RunState:
    spec = RunSpec(**fields)
    told = RunState(RunRecord(spec=spec, created=CREATED, host="box", user="ada", pid=1, versions={}))
    told.apply(msgspec.structs.replace(started(), device=device, notes=notes))
    told.apply(Losses(first_step=0, seconds=seconds, values=bytes(4 * steps), reads=1, waited=waited_s))
    return told


@pytest.mark.parametrize(
    ("waited_s", "said"),
    [
        (0.05, "host-bound: 2.00 ms a step, 2% waited · executor=graph may help: press a"),
        (1.8, "device-bound: 2.00 ms a step, 90% waited for it · precision=bf16 may help: press a"),
        (0.6, "host and device about even: 2.00 ms a step, 30% waited · press a to see where it goes"),
    ],
)
def test_on_a_gpu_it_is_the_waiting_that_tells_who_is_behind(waited_s: float, said: str) -> None:
    assert pace(run("cuda:0", 2.0, waited_s)) == said


def test_what_the_run_has_already_is_not_offered() -> None:
    graph = run("cuda:0", 2.0, 0.05)
    graph.executor = "graph"
    assert pace(graph) == "host-bound: 2.00 ms a step, 2% waited · press a to see where it goes"
    assert "precision" not in pace(run("cuda:0", 2.0, 1.8, precision="bf16"))


def test_a_switch_is_told_with_both_figures_that_were_measured() -> None:
    told = run("cpu", 2.0, 0.0)
    told.apply(Switched(step=625, executor="graph", why="a step takes 5.1 µs instead of 64 µs"))
    assert pace(told) == "graph: a step takes 5.1 µs instead of 64 µs"


def test_a_refused_graph_is_told_with_its_reason_and_not_offered() -> None:
    told = run("cpu", 2.0, 0.0)
    told.apply(Switched(step=625, executor="eager", why="auto stays with eager: no compiler"))
    line = "2.00 ms a step, eager · press a to see where it goes · auto stays with eager: no compiler"
    assert pace(told) == line
    noted = run("cpu", 2.0, 0.0, notes=("auto stays with eager: no compiler",))
    assert pace(noted) == line


def test_nothing_is_said_before_enough_was_measured() -> None:
    assert pace(RunState()) == ""
    assert pace(run("cuda:0", 0.5, 0.0)) == ""


def test_on_the_cpu_the_step_is_told_and_what_may_help_while_it_goes_on_and_after() -> None:
    told = run("cpu", 2.0, 0.0, executor="eager")
    assert pace(told) == "2.00 ms a step, eager · executor=graph may help: press a"
    told.died("killed")
    assert pace(told) == "2.00 ms a step, eager · executor=graph may help: press a"


def test_as_long_as_auto_has_timed_no_graph_none_is_offered_and_none_is_promised() -> None:
    """In a run of few steps it never does."""
    assert pace(run("cpu", 2.0, 0.0)) == "2.00 ms a step, eager: auto has timed no graph so far"


@pytest.mark.parametrize("executor", ["auto", "eager"])
def test_several_processes_are_offered_no_graph(executor: str) -> None:
    cpu = run("cpu", 2.0, 0.0, processes=2, executor=executor)
    assert pace(cpu) == "2.00 ms a step, eager · press a to see where it goes"
    gpu = run("cuda:0", 2.0, 0.05, processes=2, executor=executor)
    assert pace(gpu) == "host-bound: 2.00 ms a step, 2% waited · press a to see where it goes"


def test_a_graph_that_a_gpu_refused_is_not_offered_either() -> None:
    why = "auto stays with eager: its rows are streamed or loaded"
    line = f"host-bound: 2.00 ms a step, 2% waited · press a to see where it goes · {why}"
    assert pace(run("cuda:0", 2.0, 0.05, notes=(why,))) == line
