"""The line on where a run's time goes: only what was measured, by the run itself or of its job in the lab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from epochtop.engine.protocol.events import AnyEvent, Losses, Switched
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.app.bottleneck_line import bottleneck_line
from epochtop.tui.lab.prior_findings import finding_for
from epochtop.tui.state.run import RunState
from tests.support.lab_runs import ended, prepared, write_experiment
from tests.support.runs import CREATED, engine_alive, events_of, started, write_run
from tests.support.ui.screens import furnished, show_run, still_app


def run(device: str, seconds: float, waited_s: float, steps: int = 1000, fallback: str = "", **fields: Any) -> RunState:
    spec = RunSpec(**fields)
    state = RunState(RunRecord(spec=spec, created=CREATED, host="box", user="ada", pid=1, versions={}))
    state.apply(msgspec.structs.replace(started(), device=device, fallback=fallback))
    state.apply(Losses(first_step=0, seconds=seconds, values=bytes(4 * steps), reads=1, waited=waited_s))
    return state


@pytest.mark.parametrize(
    ("waited_s", "line"),
    [
        (0.05, "host-bound: 2.00 ms a step, 2% waited · executor=graph may help: press a"),
        (1.8, "device-bound: 2.00 ms a step, 90% waited for it · precision=bf16 may help: press a"),
        (0.6, "host and device about even: 2.00 ms a step, 30% waited · press a to see where it goes"),
    ],
)
def test_on_a_gpu_the_waiting_shows_who_is_behind(waited_s: float, line: str) -> None:
    assert bottleneck_line(run("cuda:0", 2.0, waited_s)) == line


def test_what_the_run_has_already_is_not_offered() -> None:
    graph = run("cuda:0", 2.0, 0.05)
    graph.executor = "graph"
    assert bottleneck_line(graph) == "host-bound: 2.00 ms a step, 2% waited · press a to see where it goes"
    assert "precision" not in bottleneck_line(run("cuda:0", 2.0, 1.8, precision="bf16"))


def test_a_switch_is_shown_with_both_measured_figures() -> None:
    state = run("cpu", 2.0, 0.0)
    state.apply(Switched(step=625, executor="graph", why="a step takes 5.1 µs instead of 64 µs"))
    assert bottleneck_line(state) == "graph: a step takes 5.1 µs instead of 64 µs"


def test_a_refused_graph_is_shown_with_its_reason_and_not_offered() -> None:
    state = run("cpu", 2.0, 0.0)
    state.apply(Switched(step=625, executor="eager", why="auto stays with eager: no compiler"))
    line = "2.00 ms a step, eager · press a to see where it goes · auto stays with eager: no compiler"
    assert bottleneck_line(state) == line
    noted = run("cpu", 2.0, 0.0, fallback="auto stays with eager: no compiler")
    assert bottleneck_line(noted) == line


def test_nothing_is_shown_before_enough_was_measured() -> None:
    assert bottleneck_line(RunState()) == ""
    assert bottleneck_line(run("cuda:0", 0.5, 0.0)) == ""


def test_on_the_cpu_the_step_and_what_may_help_are_shown_during_the_run_and_after() -> None:
    state = run("cpu", 2.0, 0.0, executor="eager")
    assert bottleneck_line(state) == "2.00 ms a step, eager · executor=graph may help: press a"
    state.died("killed")
    assert bottleneck_line(state) == "2.00 ms a step, eager · executor=graph may help: press a"


def test_as_long_as_auto_has_timed_no_graph_none_is_offered_and_none_is_promised() -> None:
    """In a run of few steps it never does."""
    assert bottleneck_line(run("cpu", 2.0, 0.0)) == "2.00 ms a step, eager: auto has timed no graph so far"


@pytest.mark.parametrize("executor", ["auto", "eager"])
def test_several_processes_are_offered_no_graph(executor: str) -> None:
    cpu = run("cpu", 2.0, 0.0, processes=2, executor=executor)
    assert bottleneck_line(cpu) == "2.00 ms a step, eager · press a to see where it goes"
    gpu = run("cuda:0", 2.0, 0.05, processes=2, executor=executor)
    assert bottleneck_line(gpu) == "host-bound: 2.00 ms a step, 2% waited · press a to see where it goes"


def test_a_graph_that_a_gpu_refused_is_not_offered_either() -> None:
    why = "auto stays with eager: its rows are streamed or loaded"
    line = f"host-bound: 2.00 ms a step, 2% waited · press a to see where it goes · {why}"
    assert bottleneck_line(run("cuda:0", 2.0, 0.05, fallback=why)) == line


# --- what the lab has found ----------------------------------------------------------------------------------------


def events_with(finding: str) -> list[AnyEvent]:
    """The events of an experiment that found this."""
    return [prepared(), ended(Verdict(finding=finding, evidence=(), next_step="n", uncertainty="u"))]


def test_the_labs_finding_for_the_same_job_replaces_the_hint() -> None:
    known = "anatomy: on cpu this job is launch-bound"
    assert bottleneck_line(run("cpu", 0.1, 0.0), known) == known
    switched = run("cpu", 2.0, 0.0)
    switched.apply(Switched(step=625, executor="graph", why="a step takes 5.1 µs instead of 64 µs"))
    assert bottleneck_line(switched, known) == "graph: a step takes 5.1 µs instead of 64 µs"


def test_only_a_finished_result_of_the_same_job_on_the_same_host_counts(tmp_path: Path) -> None:
    spec = RunSpec(hidden=(32,), name="mine")
    wanted = RunRecord(spec=spec, created=CREATED, host="box", user="ada", pid=1, versions={})
    assert finding_for(tmp_path, wanted) == ""
    write_experiment(tmp_path, "anatomy-0001", events_with("of another job"), hidden=(64,))
    write_experiment(tmp_path, "reads-0002", events_with("of another kind"), hidden=(32,))
    write_experiment(tmp_path, "executors-0003", [prepared()], hidden=(32,))
    assert finding_for(tmp_path, wanted) == ""
    write_experiment(tmp_path, "executors-0004", events_with("graph is best"), hidden=(32,))
    assert finding_for(tmp_path, wanted) == "executors: graph is best"
    assert finding_for(tmp_path, msgspec.structs.replace(wanted, host="elsewhere")) == ""


async def test_the_finding_is_under_the_chart_as_soon_as_the_experiment_ends(home: Path) -> None:
    path = write_run(home, "iris-mlp-20260921-143305-7f3a", events_of("finished"))
    app = still_app(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await furnished(pilot)
        await show_run(pilot, path, 1)
        assert app.main.chart.border_subtitle == "200 µs a step, eager · executor=graph may help: press a"
        measured = write_experiment(home, "anatomy-11c0", events_with("this job is launch-bound"))
        with engine_alive(measured):
            app.lab.page.follow(measured)
        while app.lab.running is not None:
            await pilot.pause(0.01)
            app.beat()
        app.beat()
        assert app.main.chart.border_subtitle == "anatomy: this job is launch-bound"
