"""How busy the device in use is, written into the run every few seconds by a thread of its own.

The loop knows nothing of it. A driver that hangs costs a figure, never a step and never the end of a run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from epochtop.engine.hardware import GpuSample
from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.gpu.processes import Processes
from epochtop.engine.hardware.gpu.watchdog import SILENT, GpuWatch
from epochtop.engine.hardware.sampler import process_use
from epochtop.engine.protocol import events

INTERVAL_S = 5.0
SHORTEST_S = 0.5
"""A last reading that covers less than this tells nothing."""
PATIENCE_S = 0.5
"""How long a reading waits for the driver, and the end of a run for the last reading."""


class Telemetry:
    """Puts an event every `interval_s` seconds, and one at the end. `uuid` names the GPU in use, None the CPU."""

    def __init__(
        self, put: Callable[[events.Telemetry], None], uuid: str | None, interval_s: float = INTERVAL_S
    ) -> None:
        self._put, self._uuid, self._interval_s = put, uuid, interval_s
        self._stop = threading.Event()
        self._closed = False
        self._turn = threading.Lock()
        self._before = (time.monotonic(), _engine_use()[0])
        self._watch = GpuWatch(Processes(Roots(), ""), uuid=uuid) if uuid is not None else None
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Put what the last seconds were like; nothing is put after this returns."""
        self._stop.set()
        self._thread.join(2 * PATIENCE_S)
        with self._turn:
            self._closed = True
        if self._watch is not None:
            self._watch.close()

    def _work(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._say()
        if time.monotonic() - self._before[0] >= SHORTEST_S:
            self._say()

    def _say(self) -> None:
        event = self._read()
        with self._turn:
            if not self._closed:
                self._put(event)

    def _read(self) -> events.Telemetry:
        cpu_s, memory = _engine_use()
        now, (then, cpu_before_s) = time.monotonic(), self._before
        self._before = (now, cpu_s)
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
        """The device's figures, or why there are none."""
        if self._watch is None:
            return None, ""
        samples, age_s = self._watch.sample(PATIENCE_S)
        if age_s > 0:
            return None, SILENT
        if not samples:
            return None, self._watch.identify(0).reason or "NVML does not count the device that torch uses"
        return samples[0], samples[0].utilization_percent.reason


def _engine_use() -> tuple[float, int]:
    try:
        return process_use(os.getpid())
    except OSError:
        return time.process_time(), 0
