"""Queries the driver in a separate thread, so that a call that never returns blocks nothing else.

NVML can hang on a faulty GPU, and no timeout can interrupt it. Callers here wait for a limited time, then get the last
answer and its age. The thread is a daemon, so the process can exit while it hangs. Never imports torch.
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


class GpuInventory(msgspec.Struct, frozen=True, kw_only=True):
    """The driver's GPUs and its versions."""

    gpus: tuple[Gpu, ...] = ()
    reason: str = ""
    """Why there are no GPUs; empty if there are some."""
    driver_version: Fact[str]
    cuda_version: Fact[str]


class GpuWatch:
    """Queries the driver in a thread. `clock` gives seconds; with `uuid`, only that GPU is sampled."""

    def __init__(
        self, processes: Processes, clock: Callable[[], float] = time.monotonic, uuid: str | None = None
    ) -> None:
        self._processes, self._clock, self._uuid = processes, clock, uuid
        self._inventory: GpuInventory | None = None
        self._samples: tuple[GpuSample, ...] = ()
        self._answered_s = clock()
        self._is_identified, self._is_fresh, self._is_requested = (
            threading.Event(),
            threading.Event(),
            threading.Event(),
        )
        self._is_closed = False
        threading.Thread(target=self._work, name="nvml", daemon=True).start()

    def identify(self, patience_s: float) -> GpuInventory:
        """The driver's GPUs; after `patience_s` seconds without an answer, an inventory with that reason."""
        self._is_identified.wait(patience_s)
        silent = Fact[str](reason=SILENT)
        return self._inventory or GpuInventory(reason=SILENT, driver_version=silent, cuda_version=silent)

    def sample(self, patience_s: float) -> tuple[tuple[GpuSample, ...], float]:
        """The latest load and its age in seconds, which is 0 if the driver answered within `patience_s`."""
        inventory = self._inventory
        if inventory is not None and not inventory.gpus:
            return (), 0.0
        self._is_fresh.clear()
        self._is_requested.set()
        fresh = self._is_fresh.wait(patience_s)
        return self._samples, 0.0 if fresh else self._clock() - self._answered_s

    @property
    def count(self) -> int:
        """Number of GPUs that the driver reports; 0 before its first answer."""
        return len(self._inventory.gpus) if self._inventory is not None else 0

    def close(self) -> None:
        """Disconnect as soon as the current call returns."""
        self._is_closed = True
        self._is_requested.set()

    def _work(self) -> None:
        try:
            self._serve(Driver())
        except Exception as error:  # a failing driver must not hide the rest of the machine
            unknown = Fact[str](reason=f"{type(error).__name__}: {error}")
            self._inventory = GpuInventory(reason=unknown.reason, driver_version=unknown, cuda_version=unknown)
            self._is_identified.set()

    def _serve(self, driver: Driver) -> None:
        self._inventory = GpuInventory(
            gpus=identify_gpus(driver),
            reason=driver.reason,
            driver_version=driver.version(),
            cuda_version=driver.cuda_version(),
        )
        self._is_identified.set()
        loads = GpuLoads(driver, self._processes, self._clock)
        indices = [gpu.index for gpu in self._inventory.gpus if self._uuid in (None, gpu.uuid.value)]
        while True:
            self._is_requested.wait()
            self._is_requested.clear()
            if self._is_closed:
                driver.close()
                return
            self._samples = loads.sample(indices)
            self._answered_s = self._clock()
            self._is_fresh.set()
