"""A capture that fails leaves no work in flight, no foreign stream and no capture mode; on the simulated device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from epochtop.engine.execution import cuda_graph
from epochtop.engine.execution.capture import CaptureError, GraphCapture
from epochtop.engine.execution.cuda_graph import CudaGraph, captured
from epochtop.engine.execution.executor import Unsupported
from tests.support.executors import again_and_again, asked, built
from tests.support.simulated_device import Device, on_device, simulated_gpu

GPU = torch.device("cuda", 0)


class FakeGraph:
    """A CUDA graph: what is enqueued inside is done again by a replay."""

    pools: list[object] = []

    def pool(self) -> object:
        return "pool"

    def replay(self) -> None:
        """Nothing."""


class Capture:
    """`torch.cuda.graph`, which fails as torch's does: the capture stream stays current."""

    fails: str = ""

    def __init__(self, _graph: FakeGraph, pool: object = None, stream: Any = None) -> None:
        FakeGraph.pools.append(pool)
        self._stream = stream

    def __enter__(self) -> None:
        self._before = torch.cuda.current_stream()
        torch.cuda.set_stream(self._stream)

    def __exit__(self, *_: object) -> None:
        if self.fails:
            raise RuntimeError(self.fails)
        torch.cuda.set_stream(self._before)


@pytest.fixture(params=["late", "early"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A simulated GPU that captures graphs, in both orders of work."""
    with simulated_gpu(request.param) as simulated:
        FakeGraph.pools.clear()
        monkeypatch.setattr(Capture, "fails", "")
        monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
        monkeypatch.setattr(torch.cuda, "graph", Capture)
        yield simulated


def test_trial_steps_that_fail_are_over_before_they_are_undone(device: Device) -> None:
    weights = on_device(torch.zeros(4))
    kept = weights.clone()

    def enqueue() -> None:
        weights.add_(1)
        weights.sum().item()  # waits, which the last trial forbids

    with pytest.raises(RuntimeError, match="synchronizing"):
        GraphCapture(GPU)(enqueue)
    weights.copy_(kept)
    device.finish()
    assert weights.held.tolist() == [0, 0, 0, 0]  # type: ignore[attr-defined]


def test_a_failed_capture_gives_the_stream_back(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "fails", "operation not permitted when stream is capturing")
    training = device.current
    with pytest.raises(RuntimeError, match="not permitted"):
        GraphCapture(GPU)(lambda: None)
    assert device.current is training


def test_a_device_that_does_not_recover_ends_the_run(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager steps would die later, in the middle of the run, with a message about graphs."""
    monkeypatch.setattr(Capture, "fails", "operation not permitted")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")

    monkeypatch.setattr(torch, "rand", broken)
    with pytest.raises(CaptureError, match="set executor to eager"):
        GraphCapture(GPU)(lambda: None)


def test_graphs_share_a_pool_and_have_streams_of_their_own(device: Device) -> None:
    capture = GraphCapture(GPU)
    for _ in range(3):
        capture(lambda: None)
    assert FakeGraph.pools == [None, "pool", "pool"]


def test_replays_are_timed_at_the_clock_rate_of_a_busy_gpu(device: Device) -> None:
    """An idle GPU needs 30 ms to reach its clock rate; until then a replay takes five times as long."""
    replay_s, busy_s = 50e-6, [0.0]

    def replay() -> None:
        seconds = replay_s * (5 if busy_s[0] < 0.03 else 1)
        busy_s[0] += seconds
        device.launch(lambda: None, seconds)

    assert cuda_graph._seconds(replay) == pytest.approx(replay_s, rel=0.3)


def test_a_capture_that_runs_out_of_memory_says_so() -> None:
    def full(_enqueue: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(Unsupported, match="do not fit into the device's memory"):
        captured(built(asked("graph")), capture=full, steps=2)


def test_a_broken_capture_is_not_taken_for_an_unsupported_job() -> None:
    def broken(_enqueue: object) -> Any:
        raise CaptureError("CUDA does not recover")

    with pytest.raises(CaptureError):
        CudaGraph(built(asked("graph")), capture=broken, steps=2)


def test_dropout_that_is_recomputed_is_not_captured() -> None:
    spec = asked("graph", dropout=0.2, checkpoint_activations=True, hidden=(8, 8))
    with pytest.raises(Unsupported, match="random numbers of dropout"):
        again_and_again(built(spec))
