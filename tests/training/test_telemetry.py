"""Telemetry: recorded by the engine, summarized for the screen, never in the way of a run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import Finished, Started, Telemetry
from epochtop.engine.protocol.requests import Plan
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.writer import send
from epochtop.tui.state.run import RunState
from epochtop.tui.state.telemetry import LONGEST, RunTelemetry, planned_and_peak
from tests.support.engines import Engine, Watch, events
from tests.support.engines import finished as last_word
from tests.support.fakes import fake_nvml
from tests.support.runs import events_of, finished, losses_like_iris


def test_a_run_records_how_busy_its_engine_is(engine: Engine, home: Path) -> None:
    run = engine.train(RunSpec(threads=1, device="cpu", epochs=10**9), home)
    watch = Watch(run)
    watch.windows()
    time.sleep(1.2)  # more than the shortest time that a reading covers
    send(run, Stop())
    assert isinstance(watch.end(), Finished)
    readings = [event for event in events(run) if isinstance(event, Telemetry)]
    assert readings
    assert 0 < (readings[-1].engine_cpu_percent or 0) <= 400  # however little of the processor it gets
    assert 50 << 20 < (readings[-1].engine_memory_bytes or 0) < 50 << 30
    assert readings[-1].gpu_percent is None
    assert readings[-1].reason == ""
    assert last_word(run)  # the summary remains the last event


def test_a_run_reports_planned_and_used_memory(engine: Engine, home: Path) -> None:
    spec = RunSpec(threads=1, device="cpu", dataset="digits", hidden=(3000, 3000), epochs=2, save_every=0)
    plan = engine.describe(spec)
    assert isinstance(plan, Plan)
    end = Watch(engine.train(spec, home)).end()
    assert isinstance(end, Finished)
    assert end.planned_memory_bytes == plan.memory_bytes
    weights = 4 * plan.parameters
    assert end.peak_memory_bytes is not None
    # Weights and gradients at least; the copies of the best weights and what the allocator keeps on top.
    assert 2 * weights < end.peak_memory_bytes < 12 * weights


# --- the thread -------------------------------------------------------------------------------------------

_HANG = """
import json, os, sys, time
from epochtop.engine.training import telemetry as module
module.PATIENCE_S = {patience_s}
os.environ["FAKE_NVML_HANG"] = sys.stdin.read()
events = []
telemetry = module.TelemetryRecorder(events.append, "GPU-00000001", interval_s=0.05)
telemetry.start()
while not events:
    time.sleep(0.01)
begun = time.monotonic()
telemetry.close()
count = len(events)
os.environ.pop("FAKE_NVML_HANG")
time.sleep(0.3)
event = events[-1]
print(json.dumps([event.gpu_percent, event.sm_percent, event.power_w, event.reason, event.engine_memory_bytes > 0, count == len(events)]))
"""


def readings_of(library: Path, hang: str = "", **environment: str) -> list[Any]:
    patience_s = "0.5" if hang else "120"
    answer: list[Any] = json.loads(
        fake_nvml.run(library, _HANG.replace("{patience_s}", patience_s), stdin=hang or "nothing", **environment)
    )
    return answer


def test_only_the_device_in_use_is_read(library: Path, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    load, real, power, reason, memory, silent = readings_of(library, FAKE_NVML_LOG=str(log))
    assert (load, power, reason, memory, silent) == (97, 412.3, "", True, True)
    assert real in (41.5, None)  # a rate needs an earlier reading
    assert "nvmlDeviceGetPowerUsage 1" in log.read_text()
    assert "nvmlDeviceGetPowerUsage 0" not in log.read_text()


def test_a_driver_that_hangs_costs_readings_but_no_run_its_end(library: Path) -> None:
    load, _, _, reason, memory, silent = readings_of(library, "nvmlDeviceGetPowerUsage")
    assert (load, reason) == (None, "the NVIDIA driver does not answer")
    assert memory
    assert silent  # nothing is put after the end


def test_a_device_that_the_driver_does_not_list(library: Path) -> None:
    _, _, _, reason, _, _ = readings_of(library, FAKE_NVML_COUNT="1")
    assert reason == "NVML does not list the device that torch uses"


# --- for the screen ---------------------------------------------------------------------------------------


def reading(**figures: Any) -> Telemetry:
    return Telemetry(time=0.0, **figures)


def test_a_summary_has_means_and_the_greatest_memory() -> None:
    run = RunTelemetry()
    assert run.summary() == ""
    run.add(
        reading(gpu_percent=90.0, sm_percent=20.0, gpu_memory_bytes=1 << 30, power_w=100.0, engine_cpu_percent=90.0)
    )
    run.add(
        reading(
            gpu_percent=None,
            gpu_memory_bytes=3 << 30,
            power_w=200.0,
            engine_cpu_percent=110.0,
            slowed_by=("power limit",),
        )
    )
    assert run.summary() == (
        "GPU busy 90 % of the time · multiprocessors 20 % · GPU memory up to 3.0 GiB · 150 W · engine used 1.0 CPUs · "
        "slowed by power limit (50 %)"
    )


def test_unknown_figures_have_their_reason() -> None:
    run = RunTelemetry()
    run.add(reading(reason="the NVIDIA driver does not answer", engine_cpu_percent=50.0))
    assert run.summary() == "engine used 0.5 CPUs · GPU unknown: the NVIDIA driver does not answer"


def test_a_long_run_is_summarized_in_bounded_memory() -> None:
    run = RunTelemetry()
    for number in range(10_000):
        run.add(reading(gpu_percent=0.0 if number < 5_000 else 100.0))
    history = run.history("gpu_percent", 20)
    assert len(run.history("gpu_percent", 10**6)) <= LONGEST
    assert len(history) <= 20
    assert history[0] == 0
    assert history[-1] == 100
    assert 40 < run.figures["gpu_percent"].mean < 60  # type: ignore[operator]


@pytest.mark.parametrize(
    ("planned", "peak", "text"),
    [
        (26_000, 9 << 20, "25.4 KiB planned, 9.0 MiB peak"),
        (26_000, None, ""),
        (None, 9 << 20, ""),
    ],
)
def test_planned_and_peak_memory(planned: int | None, peak: int | None, text: str) -> None:
    assert planned_and_peak(planned, peak) == text


def test_a_finished_run_shows_its_device() -> None:
    state = RunState()
    values = losses_like_iris(100)
    for event in [*events_of("running")[:1], reading(gpu_percent=50.0)]:
        assert not state.apply(event) or isinstance(event, Started)
    *summary, verdict = state.apply(finished("finished", values, planned_memory_bytes=1024, peak_memory_bytes=2048))
    assert verdict.text.startswith("finished: ")
    assert [line.text for line in summary] == state.device_summary()
    assert state.device_summary() == ["device: GPU busy 50 % of the time", "memory: 1.0 KiB planned, 2.0 KiB peak"]
