"""`auto`: switches to a graph if that pays off, else reports why not, and decides the same after a kill."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epochtop.engine.execution import auto
from epochtop.engine.execution.c import pointwise
from epochtop.engine.execution.c.graph import CGraph
from epochtop.engine.execution.c.reductions import OPERATORS
from epochtop.engine.execution.eager import Eager
from epochtop.engine.execution.executor import Rate, Unsupported
from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import Started, Switched, Warned
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.reader import is_alive
from epochtop.engine.step.window import LossWindow
from tests.support.engines import Engine, Watch, events, finished, is_window, losses, wait_until
from tests.support.executors import asked, built, go_on, reading_of_steps, train
from tests.support.plain_loop import needs_muon

TASK = """
import torch
from epochtop import Task

def make_task():
    x = torch.arange(400.0).reshape(100, 4) / 400
    return Task(model=torch.nn.Linear(4, 3), train=(x, torch.arange(100) % 3))
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def never_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tests independent of times measured on a busy machine."""
    monkeypatch.setattr(auto, "step_seconds", lambda job, executor, *_: 1e-3 if executor.name == "eager" else 1e-9)
    monkeypatch.setattr(auto, "LEAST_S", {"cpu": 0.0})


def changed(run: Path) -> list[Switched]:
    """Switches from eager steps to another executor."""
    return [event for event in news(run, Switched) if event.executor != "eager"]


def news(run: Path, kind: type[Any]) -> list[Any]:
    return [event for event in events(run) if isinstance(event, kind)]


def reasons(run: Path) -> str:
    """All notes and reasons of a run."""
    notes = [note for event in news(run, Started) for note in event.notes]
    return "\n".join([*notes, *(event.why for event in news(run, Switched))])


def test_the_default_job_switches_to_a_graph_while_it_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never_slow(monkeypatch)
    spec = asked("auto", epochs=60_000)
    CGraph(built(spec)).build()
    run = train(spec, home)
    (switched,) = news(run, Switched)
    assert switched.executor == "graph"
    assert switched.why == "a step takes 1.00 ns instead of 1.00 ms"
    assert 0 < switched.step < 60_000
    eager = train(asked("eager", epochs=3_000), home)
    np.testing.assert_allclose(losses(run)[:3_000], losses(eager), rtol=2e-4)
    assert finished(run).steps == len(losses(run)) == 60_000


def test_losses_are_published_and_commands_obeyed_while_the_graph_is_built(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that takes until losses are published and longer, the graph takes over at the same step."""
    never_slow(monkeypatch)
    spec = asked("auto", epochs=3_000)
    due = auto.ExecutorSearch(built(spec), 0, lambda _: 0.01).at
    assert due
    build = CGraph.build

    def slowly(self: CGraph) -> None:
        wait_until(lambda: any(is_window(event) for run in run_paths(home) if is_alive(run) for event in events(run)))
        time.sleep(0.3)
        build(self)

    monkeypatch.setattr(CGraph, "build", slowly)
    run = train(spec, home)
    (switched,) = news(run, Switched)
    assert switched.step == due
    stopped = train(spec, home, [(due, Stop())])
    assert (finished(stopped).outcome, finished(stopped).steps) == ("stopped", due)


def test_two_runs_have_the_same_losses(home: Path) -> None:
    """Regardless of how busy compiler and machine are."""
    spec = asked("auto", epochs=10_000, batch_size=40, max_steps=15_000, optimizer="adam", dropout=0.1)
    one, other = train(spec, home), train(spec, home)
    assert [event.step for event in news(one, Switched)] == [event.step for event in news(other, Switched)]
    assert len(news(one, Switched)) == 1
    np.testing.assert_array_equal(losses(one), losses(other))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"dataset": "digits", "hidden": (4096,), "max_steps": 60}, "its operators are large"),
        ({"dataset": "digits", "model": "cnn", "width": 1, "batch_size": 16}, "the operator convolution is not"),
        ({"precision": "bf16"}, "its values are bfloat16"),
        pytest.param({"optimizer": "muon"}, "muon is an optimizer of torch", marks=needs_muon),
        (
            {"hidden": (8, 8), "dropout": 0.5, "checkpoint_activations": True},
            "checkpoint_activations repeats the random numbers of dropout",
        ),
    ],
    ids=str,
)
def test_it_stays_eager_for_a_reason(
    fields: dict[str, Any], why: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_slow(monkeypatch)
    run = train(asked("auto", **{"epochs": 3000, **fields}, max_seconds=2.0), home)
    assert not changed(run)
    assert f"auto stays with eager: {why}" in reasons(run)


def test_a_custom_task_stays_eager(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never_slow(monkeypatch)
    file = tmp_path / "own.py"
    file.write_text(TASK)
    run = train(asked("auto", task=f"{file}:make_task", epochs=2_000), home)
    assert not changed(run)
    assert "your code" in reasons(run)
    asked_for = train(asked("graph", task=f"{file}:make_task", epochs=300), home)
    assert finished(asked_for).steps == 300


def test_a_slower_graph_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never_slow(monkeypatch)
    monkeypatch.setattr(auto, "step_seconds", lambda job, executor, *_: 1e-3 if executor.name == "eager" else 1.0)
    run = train(asked("auto", epochs=5_000), home)
    assert not changed(run)
    assert "as a graph a step takes" in reasons(run)


def test_a_graph_with_different_losses_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Simulates an error: a relu that returns its input."""
    never_slow(monkeypatch)
    monkeypatch.setenv("EPOCHTOP_CACHE", str(tmp_path))

    def leaky(program: Any, call: Any) -> None:
        pointwise.combine(program, call.results[0], call.arguments[:1], lambda x: x)

    monkeypatch.setitem(OPERATORS, "relu.default", leaky)
    run = train(asked("auto", epochs=5_000), home)
    assert not changed(run)
    assert "its losses differ" in reasons(run)


def test_a_decision_against_the_graph_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that continues does not search again."""
    never_slow(monkeypatch)
    decided = auto.step_seconds
    monkeypatch.setattr(auto, "step_seconds", lambda *_: 1.0)
    run = train(asked("auto", epochs=5_000), home, [(3_000, Stop())])
    monkeypatch.setattr(auto, "step_seconds", decided)
    go_on(run)
    assert not changed(run)
    np.testing.assert_array_equal(losses(run), losses(train(asked("eager", epochs=5_000), home)))


def test_a_run_stopped_at_the_switch_switches_when_it_continues(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never_slow(monkeypatch)
    spec = asked("auto", epochs=5_000)
    due = auto.ExecutorSearch(built(spec), 0, lambda _: 0.01).at
    assert due is not None
    straight, run = train(spec, home), go_on(train(spec, home, [(due, Stop())]))
    assert [event.step for event in changed(run)] == [event.step for event in changed(straight)] == [due]
    np.testing.assert_array_equal(losses(run), losses(straight))


def test_labels_that_are_not_classes_are_left_to_torch(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(TASK.replace("% 3", "% 3 - 100 * (torch.arange(100) == 51)"))
    training = built(asked("graph", task=f"{file}:make_task", epochs=300))
    with pytest.raises(Unsupported, match="its labels are"):
        CGraph(training)


def test_a_short_run_is_not_searched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "CGraph", None)  # a call would fail
    run = train(asked("auto", epochs=50), home)
    assert finished(run).steps == 50
    assert not changed(run)


def test_a_run_that_switched_continues_with_the_same_steps(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the switch; the last checkpoint may be older."""
    never_slow(monkeypatch)
    spec = asked("auto", epochs=1_500, dropout=0.1, optimizer="adam", eval_epochs=100)
    CGraph(built(spec)).build()
    run = train(spec, home, [(1_000, Stop())])
    (switched,) = news(run, Switched)
    go_on(run)
    assert not news(run, Warned)
    again = built(spec)
    eager = taken_as(again, switched.step, 1_500)
    np.testing.assert_array_equal(losses(run), eager)


def taken_as(training: Any, change: int, steps: int) -> np.ndarray[Any, Any]:
    """The losses of eager steps up to `change`, and of the graph from then on."""
    from epochtop.engine.execution.eager import Eager

    graph = CGraph(training)
    graph.build()
    first = reading_of_steps(Eager(training), training, change).losses
    return np.concatenate([first, reading_of_steps(graph, training, steps - change).losses])


def test_a_run_killed_after_the_switch_repeats_it(home: Path) -> None:
    """With real processes: the run continues from a checkpoint older than the switch."""
    spec = RunSpec(epochs=400_000, threads=1, device="cpu", refresh_ms=10, save_every=0, seed=4)
    CGraph(built(spec)).build()
    with Engine() as engine:
        run = engine.train(spec, home)
        watch = Watch(run)
        switched = watch.until(Switched)
        watch.until_step(switched.step + 10_000)
        engine.kill()
    recorded = len(losses(run))
    with Engine() as engine:
        assert isinstance(engine.resume(run), Accepted)
        engine.wait()
    assert finished(run).steps == 400_000
    assert recorded > switched.step
    assert not news(run, Warned)  # the recomputed losses are the same


def test_unexpected_errors_are_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in an executor must not make the run stay eager silently."""
    training = built(asked("auto", epochs=20_000))
    monkeypatch.setattr(auto, "CGraph", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        auto.ExecutorSearch(training, 0, lambda _: 0.01)
    monkeypatch.setattr(auto, "CGraph", _unfit)
    looking = auto.ExecutorSearch(training, 0, lambda _: 0.01)
    assert (looking.at, looking.why) == (None, "for a reason")


def _unfit(_: Any) -> CGraph:
    raise Unsupported("for a reason")


@pytest.mark.parametrize(
    ("precision", "factor", "differs"),
    [("fp32", 1 + 5e-4, True), ("fp32", 1 + 5e-5, False), ("bf16", 1 + 5e-3, False), ("bf16", 1.05, True)],
)
def test_losses_may_differ_by_what_the_precision_rounds(precision: str, factor: float, differs: bool) -> None:
    """Steps in 16 bits differ between two runs of the same kernels; fp32 has no such excuse."""
    training = built(asked("eager", precision=precision))

    class Other(Eager):
        def run(self, window: LossWindow, step: int, max_steps: int, rate: Rate) -> int:
            window.record(self._job.step() * factor)
            return 1

    assert bool(auto.difference(training, Other(training), 0, lambda _: 0.01)) is differs
