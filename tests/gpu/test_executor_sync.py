"""On a GPU, no executor waits for the device between two windows, and all train like eager steps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from epochtop.engine.execution.choice import make
from epochtop.engine.runs.writer import create
from epochtop.engine.step.window import LossWindow
from epochtop.engine.training import loop, recorder
from tests.gpu.waits import waiting_forbidden
from tests.support.engines import finished, losses
from tests.support.executors import asked, built, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.xdist_group("gpu"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]

EXECUTORS = ("eager", "graph", "compile")
JOBS: dict[str, dict[str, Any]] = {
    "full batch": {},
    "batches": {"batch_size": 32, "optimizer": "adam"},
    "schedule": {"schedule": "cosine", "momentum": 0.9},
    "dropout": {"dropout": 0.2},
    "bf16": {"precision": "bf16", "dataset": "digits", "batch_size": 128},
    "fp16": {"precision": "fp16", "dataset": "digits", "batch_size": 128, "optimizer": "adam", "clip_norm": 1.0},
}
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMemcpy")


@pytest.mark.parametrize("kind", JOBS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_executor_waits_for_the_device(executor: str, kind: str) -> None:
    training = built(asked(executor, device="cuda:0", epochs=10**6, **JOBS[kind]))
    if executor == "compile" and kind == "fp16":
        pytest.skip("fp16 is not compiled")
    takes, window, step = make(training, executor), LossWindow(training.device), 0
    while step < 200:  # the first steps load kernels and reserve memory
        step += takes.run(window, step, 200 - step, lambda _: 0.01)
    with waiting_forbidden():
        while step < 3_000:
            step += takes.run(window, step, 3_000 - step, lambda _: 0.01)
    window.turn(0.0)
    reading = window.drain()
    assert reading is not None
    assert len(reading.losses) == 3_000
    assert bool(torch.isfinite(reading.losses).all())


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_trace_of_a_run_has_no_more_waits_than_reads(executor: str, home: Path) -> None:
    # every launch is an event of the trace, and an eager step has a hundred of them
    steps = 2_000 if executor == "eager" else 20_000
    spec = asked(executor, device="cuda:0", epochs=steps, refresh_ms=20, eval_every=0, save_every=0)
    run, lock = create(home, spec, {}, 0.0)
    with lock:
        writing = recorder.Recorder(run, spec)
        training = loop.Loop(built(spec), writing)
        training.prepare()
        writing.start(on_command=training.wake)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
            writing.put(training.run())
        assert writing.close()
    counted = Counter(event.name for event in trace.events())
    # the profiler itself waits for the device once or twice when it ends
    assert sum(counted[name] for name in WAITS) <= finished(run).device_reads + 2, counted


def test_the_graph_is_as_fast_as_the_device_and_records_every_loss(home: Path) -> None:
    """Compared with eager steps on the same device, without absolute times."""
    spec = asked("graph", device="cuda:0", epochs=20_000, refresh_ms=100)
    graph, eager = finished(train(spec, home)), finished(train(asked("eager", device="cuda:0", epochs=20_000), home))
    assert graph.steps_per_second > eager.steps_per_second


@pytest.mark.parametrize(
    ("executor", "job"),
    [
        ("graph", {}),
        ("eager", {}),
        ("eager", {"dataset": "digits", "hidden": (8192,) * 6, "batch_size": 0}),
    ],
    ids=["graph", "eager", "large steps of few kernels"],
)
def test_the_host_is_at_most_a_window_ahead(executor: str, job: dict[str, Any], home: Path) -> None:
    """The launch queue can hold minutes of work; Stop must not wait for it."""
    run = train(asked(executor, device="cuda:0", epochs=10**9, max_seconds=2.0, refresh_ms=100, **job), home)
    end = finished(run)
    assert len(losses(run)) == end.steps
    assert np.isfinite(losses(run)).all()
    assert end.seconds < 4.0
