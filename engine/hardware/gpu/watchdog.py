"""A thread of its own for the driver: a call that never returns leaves everybody else alone.

NVML can hang on a sick GPU, and no time limit reaches into it. Whoever asks here waits for a while at most,
then gets the last answer and its age. The thread is a daemon: a process can end while it hangs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec

from epochtop.engine.hardware.facts import Fact, Gpu, GpuSample
from epochtop.engine.hardware.gpu.identity import identify_gpus
from epochtop.engine.hardware.gpu.load import GpuLoads
from epochtop.engine.hardware.gpu.nvml import Driver
from epochtop.engine.hardware.gpu.processes import Processes

SILENT = "the NVIDIA driver does not answer"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver counts and which it is."""

    gpus: tuple[Gpu, ...] = ()
    reason: str = ""
    driver_version: Fact[str]
    cuda_version: Fact[str]


class GpuWatch:
    """Asks the driver from a thread. `clock` gives seconds; with `uuid` that card alone is sampled."""

    def __init__(
        self, processes: Processes, clock: Callable[[], float] = time.monotonic, uuid: str | None = None
    ) -> None:
        self._processes, self._clock, self._uuid = processes, clock, uuid
        self._found: Found | None = None
        self._samples: tuple[GpuSample, ...] = ()
        self._answered_s = clock()
        self._is_found, self._is_fresh, self._is_wanted = threading.Event(), threading.Event(), threading.Event()
        self._is_closed = False
        threading.Thread(target=self._work, name="nvml", daemon=True).start()

    def identify(self, patience_s: float) -> Found:
        """What the driver counts; after `patience_s` seconds of silence, that it is silent."""
        self._is_found.wait(patience_s)
        silent = Fact[str](reason=SILENT)
        return self._found or Found(reason=SILENT, driver_version=silent, cuda_version=silent)

    def sample(self, patience_s: float) -> tuple[tuple[GpuSample, ...], float]:
        """The newest figures and their age in seconds: 0 when the driver answered within `patience_s`."""
        found = self._found
        if found is not None and not found.gpus:
            return (), 0.0
        self._is_fresh.clear()
        self._is_wanted.set()
        fresh = self._is_fresh.wait(patience_s)
        return self._samples, 0.0 if fresh else self._clock() - self._answered_s

    @property
    def count(self) -> int:
        """GPUs that the driver is known to count."""
        return len(self._found.gpus) if self._found is not None else 0

    def close(self) -> None:
        """Let the driver go as soon as it lets go of us."""
        self._is_closed = True
        self._is_wanted.set()

    def _work(self) -> None:
        try:
            self._serve(Driver())
        except Exception as error:  # whatever a driver does, the rest of the machine is still to be seen
            unknown = Fact[str](reason=f"{type(error).__name__}: {error}")
            self._found = Found(reason=unknown.reason, driver_version=unknown, cuda_version=unknown)
            self._is_found.set()

    def _serve(self, driver: Driver) -> None:
        self._found = Found(
            gpus=identify_gpus(driver),
            reason=driver.reason,
            driver_version=driver.version(),
            cuda_version=driver.cuda_version(),
        )
        self._is_found.set()
        loads = GpuLoads(driver, self._processes, self._clock)
        indices = [gpu.index for gpu in self._found.gpus if self._uuid in (None, gpu.uuid.value)]
        while True:
            self._is_wanted.wait()
            self._is_wanted.clear()
            if self._is_closed:
                driver.close()
                return
            self._samples = loads.sample(indices)
            self._answered_s = self._clock()
            self._is_fresh.set()
