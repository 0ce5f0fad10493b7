"""On a device that is slower than the host, windows are as long as the refresh, and Stop waits for no more than two of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from epochtop.engine.device import timer
from epochtop.engine.device.pace import DevicePace
from epochtop.engine.job.job import Job
from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.writer import create
from epochtop.engine.step import window
from epochtop.engine.training import clock, evaluations, loop
from epochtop.engine.training.recorder import Recorder
from tests.support.executors import built
from tests.support.simulated_device import Device, on_device, simulated_gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
REFRESH_S = 0.1


def test_the_cpu_has_no_limit() -> None:
    pace = DevicePace(CPU)
    pace.update(1, 5.0, waited=True)
    assert pace.steps_within(0.1) == math.inf


def test_the_limit_follows_the_device() -> None:
    pace = DevicePace(GPU)
    assert pace.steps_within(0.1) == 1
    pace.update(1, None, waited=True)
    pace.update(1, 0.05, waited=True)
    assert pace.steps_within(0.1) == 2
    assert pace.steps_within(0.01) == 1
    pace.update(100, 0.01, waited=True)
    assert pace.steps_within(0.1) == 400  # no more than four times as many as before
    pace.update(400, 0.04, waited=True)
    assert pace.steps_within(0.1) == 1000
    pace.update(1000, 0.1, waited=False)  # the host is the slower one: windows end by its clock
    assert pace.steps_within(0.1) == 2000


def test_a_slow_first_step_does_not_hold_up_the_run() -> None:
    """Libraries are loaded with the first step; steps of 20 µs after it reach whole windows within ten."""
    pace, windows = DevicePace(GPU), 0
    pace.update(1, 3.0, waited=True)
    while pace.steps_within(0.1) < 0.1 / 20e-6:
        steps = pace.steps_within(0.1)
        pace.update(int(steps), steps * 20e-6, waited=True)
        windows += 1
    assert windows <= 10


class Simulation:
    """A run on the simulated device that is stopped after a while; all times are virtual."""

    def __init__(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, device: Device, launches: int, step_s: float
    ) -> None:
        refresh_ms = int(REFRESH_S * 1000)
        spec = RunSpec(
            epochs=10**9, device="cpu", executor="eager", threads=1, refresh_ms=refresh_ms, eval_every=0, save_every=0
        )
        for module in (loop, window, clock, evaluations, timer):
            if hasattr(module, "perf_counter"):
                monkeypatch.setattr(module, "perf_counter", lambda: device.now)
        self.device, self.arrivals, self.stop_s = device, list[float](), 0.0
        job = self._on_gpu(built(spec), launches, step_s)
        run, lock = create(home, spec, {}, 0.0)
        with lock:
            recorder = Recorder(run, spec)
            self.loop = loop.Loop(job, recorder)
            published = self.loop.publisher.publish
            monkeypatch.setattr(
                self.loop.publisher, "publish", lambda reading: self._note(reading) or published(reading)
            )
            recorder.start(on_command=self.loop.wake)
            self.end = self.loop.run()
            assert recorder.close()

    def _on_gpu(self, job: Job, launches: int, step_s: float) -> Job:
        from dataclasses import replace

        def step() -> Any:
            loss = on_device(torch.zeros(()))
            self.device.launch(lambda: loss.held.fill_(1.0), step_s, launches)
            if not self.stop_s and self.device.now > 8 * max(REFRESH_S, step_s):
                self.stop_s = self.device.now
                self.loop.commands.put(Stop())
                self.loop.wake()
            return loss

        return replace(job, device=GPU, step=step)

    def _note(self, reading: Any) -> None:
        if len(reading.losses):
            assert bool((reading.losses == 1).all())
            self.arrivals.append(self.device.now)


@pytest.mark.parametrize(
    ("launches", "step_s"),
    [(25, 0.01), (25, 0.05), (25, 0.5), (120, 0.1), (600, 0.02), (25, 2e-4), (25, 5e-5)],
    ids=["10 ms", "50 ms", "500 ms", "100 ms", "20 ms in 600 launches", "0.2 ms", "slower host"],
)
def test_windows_and_stop_keep_the_refresh(
    launches: int, step_s: float, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated_gpu() as device:
        run = Simulation(home, monkeypatch, device, launches, step_s)
    gaps = [later - earlier for earlier, later in zip(run.arrivals, run.arrivals[1:], strict=False)]
    longest = max(3 * REFRESH_S, 2.5 * step_s)
    assert max(gaps) < longest
    assert device.now - run.stop_s < longest + 2 * step_s  # the last window, and the evaluation at the end
    assert run.end.device_reads <= run.end.seconds / REFRESH_S + 15
    assert run.end.steps > 5
