"""The child process that queries the driver, so that a crash or a hang inside NVML ends this process only.

`python -m epochtop.engine.hardware.gpu.child PROC SYS CONTAINER UUID`: a report on standard output after the start, then
one for every byte on standard input. A report is its length in 4 bytes, then msgpack. Never imports torch.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue

import msgspec

from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.facts import Fact, Gpu, GpuSample
from epochtop.engine.hardware.gpu.identity import identify_gpus
from epochtop.engine.hardware.gpu.load import GpuLoads
from epochtop.engine.hardware.gpu.nvml import Driver
from epochtop.engine.hardware.gpu.processes import Processes

AGAIN_S = 5.0
"""Seconds after which an identity that is not known yet is asked again."""


class GpuInventory(msgspec.Struct, frozen=True, kw_only=True):
    """The driver's GPUs and its versions."""

    gpus: tuple[Gpu, ...] = ()
    reason: str = ""
    """Why there are no GPUs; empty if there are some."""
    error: str = ""
    """NVML's name for the error that `reason` is about, such as `DriverNotLoaded`; empty without one."""
    driver_version: Fact[str]
    cuda_version: Fact[str]


class Report(msgspec.Struct, frozen=True):
    """An answer of the child process."""

    inventory: GpuInventory | None
    """The GPUs, if they were identified since the last report."""
    samples: tuple[GpuSample, ...] | None = None
    """Their load; None in the first report."""


class Reporter:
    """Queries the driver for one report after the other."""

    def __init__(self, processes: Processes, uuid: str | None) -> None:
        self._processes, self._uuid = processes, uuid
        self._open()

    def _open(self) -> None:
        self._driver = Driver()
        self._loads = GpuLoads(self._driver, self._processes)
        self.inventory = self._identified()

    def _identified(self) -> GpuInventory:
        driver = self._driver
        self._identified_s = time.monotonic()
        return GpuInventory(
            gpus=identify_gpus(driver),
            reason=driver.reason,
            error=driver.error,
            driver_version=driver.version(),
            cuda_version=driver.cuda_version(),
        )

    def report(self) -> Report:
        """The load of the GPUs; their identity too, if it was incomplete and is known now."""
        inventory = self._identity_again()
        indices = [gpu.index for gpu in self.inventory.gpus if self._uuid in (None, gpu.uuid.value)]
        return Report(inventory, self._loads.sample(indices))

    def _identity_again(self) -> GpuInventory | None:
        before = self.inventory
        is_known = bool(before.gpus) and all(gpu.is_complete for gpu in before.gpus)
        if is_known or time.monotonic() - self._identified_s < AGAIN_S:
            return None
        if before.gpus:
            self.inventory = self._identified()
        else:
            self._driver.close()
            self._open()
        return self.inventory if self.inventory != before else None


def send(report: Report) -> None:
    """Write a report to standard output."""
    body = msgspec.msgpack.encode(report)
    data = len(body).to_bytes(4, "big") + body
    while data:
        data = data[os.write(1, data) :]


def main(arguments: list[str]) -> None:
    """Serve until standard input ends, which also ends a hanging call."""
    proc, sys_, container, uuid = arguments
    requests: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    reporter = Reporter(Processes(Roots(Path(proc), Path(sys_)), container), uuid or None)
    send(Report(reporter.inventory))
    while True:
        requests.get()
        send(reporter.report())


def _read_requests(requests: SimpleQueue[bytes]) -> None:
    while data := os.read(0, 1):
        requests.put(data)
    os._exit(0)  # the parent is gone; the other thread may hang inside the driver


if __name__ == "__main__":
    main(sys.argv[1:])
