"""Runs under every executor in this process, also those that were cut off, and the executors that need no GPU or compiler."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from epochtop.engine.execution import choice, compiled
from epochtop.engine.execution.cuda_graph import CudaGraph
from epochtop.engine.execution.executor import Executor
from epochtop.engine.job import job
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.commands import AnyCommand
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.writer import commands_end, create
from epochtop.engine.step.window import Reading
from epochtop.engine.training import loop, recorder, resume
from tests.support.engines import finished, losses

EXECUTORS = ("eager", "graph", "compile", "captured")
"""`captured` is `graph` on CUDA without CUDA: the captured work is done again by doing it again."""


def asked(executor: str, **fields: Any) -> RunSpec:
    """A short run on one thread, or on the first GPU."""
    defaults: dict[str, Any] = {"epochs": 200, "threads": 1, "device": "cpu", "refresh_ms": 10, "seed": 3}
    asked_for = "graph" if executor == "captured" else executor
    return RunSpec(**{**defaults, **fields, "executor": asked_for})


def built(spec: RunSpec) -> job.Job:
    """What the loop trains."""
    return prepare_job(spec)


def use(executor: str, monkeypatch: Any) -> None:
    """Let runs in this process have it without a long compilation: traced and functionalized, but left to torch.

    Two steps are one program, as several are without this; tracing takes as many times as long.
    """
    torch.set_num_threads(1)
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    monkeypatch.setattr(compiled, "STEPS", 2)
    if executor == "captured":
        make = choice.make

        def captured(training: job.Job, name: str) -> Executor:
            return again_and_again(training) if name == "graph" else make(training, name)

        monkeypatch.setattr(choice, "make", captured)


def again_and_again(training: job.Job, steps: int = 5) -> CudaGraph:
    """The executor for CUDA on any device: a replay is the same function called again."""
    return CudaGraph(training, capture=lambda enqueue: enqueue, steps=steps)


class Cut(loop.Loop):
    """A loop that ends after so many steps as if somebody had stopped it, or gives commands at steps."""

    def __init__(self, *arguments: Any, at: Sequence[tuple[int, AnyCommand]], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._at = list(at)

    def _milestone(self) -> int:
        return min([super()._milestone(), *(step for step, _ in self._at if step > self.step)])

    def _arrive(self) -> None:
        super()._arrive()
        due = [command for step, command in self._at if step <= self.step]
        self._at = self._at[len(due) :]
        for command in due:
            self.commands.put(command)
        if due:
            self._boundary()


def train(spec: RunSpec, home: Path, at: Sequence[tuple[int, AnyCommand]] = ()) -> Path:
    """A run in this process with commands at exact steps."""
    run, lock = create(home, spec, {}, time.time())
    with lock:
        writing = recorder.Recorder(run, spec)
        training = Cut(built(spec), writing, at=at)
        writing.start(on_command=training.wake)
        writing.put(started(training))
        writing.put(training.run())
        assert writing.close()
    return run


def go_on(run: Path, at: Sequence[tuple[int, AnyCommand]] = ()) -> Path:
    """Take up a run that was stopped, as an engine does."""
    left = resume.resumable_run(run)
    continued = built(left.spec)
    origin = left.restore(continued)
    writing = recorder.Recorder(run, left.spec, commands_end(run))
    training = Cut(continued, writing, origin, at=at)
    writing.start(on_command=training.wake)
    training.prepare()
    writing.put(training.run())
    assert writing.close()
    return run


def started(training: loop.Loop) -> Any:
    """The first event of a run."""
    import msgspec

    from tests.support.logs import STARTED

    name, choice = training.prepare().name, training.choice
    notes = tuple(note.message for note in choice.notes)
    return msgspec.structs.replace(STARTED, executor=name, notes=notes, fallback=choice.fallback)


def reading_of_steps(executor: Executor, training: job.Job, steps: int, most: int = 10**9) -> Reading:
    """The losses of some steps, in calls of at most `most`."""
    window, step = loop.LossWindow(training.device), 0
    while step < steps:
        step += executor.run(window, step, min(most, steps - step), lambda _: training.spec.learning_rate)
    reading = window.turn(0.0) or window.drain()
    assert reading is not None
    return reading


__all__ = ["EXECUTORS", "asked", "built", "finished", "go_on", "losses", "reading_of_steps", "train", "use"]
