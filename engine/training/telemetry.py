"""Telemetry of the device in use, written into the run every few seconds by a separate thread.

The loop does not depend on it. A driver that hangs costs a reading, never a step and never the end of a run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from epochtop.engine.hardware import GpuSample
from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.cpu.load import process_use
from epochtop.engine.hardware.gpu.processes import Processes
from epochtop.engine.hardware.gpu.watchdog import SILENT, GpuWatch
from epochtop.engine.protocol import events

INTERVAL_S = 5.0
SHORTEST_S = 0.5
"""A last reading that covers less than this is not taken."""
PATIENCE_S = 0.5
"""How long a reading waits for the driver."""


class TelemetryRecorder:
    """Puts an event every `interval_s` seconds, and one at the end."""

    def __init__(
        self, put: Callable[[events.Telemetry], None], uuid: str | None, interval_s: float = INTERVAL_S
    ) -> None:
        """`put` takes the events. `uuid` identifies the GPU in use; None for the CPU."""
        self._put, self._uuid, self._interval_s = put, uuid, interval_s
        self._stop = threading.Event()
        self._closed = False
        self._turn = threading.Lock()
        self._last = (time.monotonic(), _engine_use()[0])
        self._watch = GpuWatch(Processes(Roots(), ""), uuid=uuid) if uuid is not None else None
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Put the last reading; nothing is put after this returns."""
        self._stop.set()
        self._thread.join(2 * PATIENCE_S)
        with self._turn:
            self._closed = True
        if self._watch is not None:
            self._watch.close()

    def _work(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._put_reading()
        if time.monotonic() - self._last[0] >= SHORTEST_S:
            self._put_reading()

    def _put_reading(self) -> None:
        event = self._read()
        with self._turn:
            if not self._closed:
                self._put(event)

    def _read(self) -> events.Telemetry:
        cpu_s, memory = _engine_use()
        now, (then, cpu_before_s) = time.monotonic(), self._last
        self._last = (now, cpu_s)
        gpu, reason = self._gpu()
        return events.Telemetry(
            time=time.time(),
            engine_cpu_percent=round(100 * (cpu_s - cpu_before_s) / (now - then), 1) if now > then else None,
            engine_memory_bytes=memory,
            gpu_percent=gpu.utilization_percent.value if gpu else None,
            sm_percent=gpu.sm_percent.value if gpu else None,
            gpu_memory_bytes=gpu.memory_used_bytes.value if gpu else None,
            temperature_c=gpu.temperature_c.value if gpu else None,
            power_w=gpu.power_w.value if gpu else None,
            slowed_by=(gpu.slowed_by.value or ()) if gpu else (),
            reason=reason,
        )

    def _gpu(self) -> tuple[GpuSample | None, str]:
        """The reading of the GPU, or the reason why there is none."""
        if self._watch is None:
            return None, ""
        samples, age_s = self._watch.sample(PATIENCE_S)
        if age_s > 0:
            return None, SILENT
        if not samples:
            return None, self._watch.identify(0).reason or "NVML does not list the device that torch uses"
        return samples[0], samples[0].utilization_percent.reason


def _engine_use() -> tuple[float, int]:
    try:
        return process_use(os.getpid())
    except OSError:
        return time.process_time(), 0
