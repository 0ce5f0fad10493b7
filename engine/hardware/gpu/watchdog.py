"""Queries the driver in a child process, so that a call that crashes or never returns harms nothing else.

NVML can hang on a faulty GPU and has crashed in WSL. A thread talks to the child; callers wait for a limited time, then
get the last answer and its age. A child that ends or hangs is replaced, with growing pauses. Never imports torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from epochtop.engine.hardware.facts import Fact, GpuSample
from epochtop.engine.hardware.gpu.child import GpuInventory, Report
from epochtop.engine.hardware.gpu.nvml import NO_DRIVER, NOT_INSTALLED
from epochtop.engine.hardware.gpu.processes import Processes

SILENT = "the NVIDIA driver does not answer"
HANG_S = 30.0
"""Seconds without an answer after which the child process is replaced."""
PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Pauses before each new child process; the last one repeats."""
CHILD = "epochtop.engine.hardware.gpu.child"
LIBRARY = "libnvidia-ml.so.1"
FOLDERS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/lib/wsl/lib")
"""Folders of the dynamic linker besides its cache and LD_LIBRARY_PATH: ld.so(8)."""


class GpuWatch:
    """Queries the driver. `clock` gives seconds; with `uuid`, only that GPU is sampled."""

    def __init__(
        self, processes: Processes, clock: Callable[[], float] = time.monotonic, uuid: str | None = None
    ) -> None:
        roots = processes.roots
        self._arguments = [str(roots.proc), str(roots.sys), processes.container, uuid or ""]
        self._clock = clock
        self._inventory: GpuInventory | None = None
        self._samples: tuple[GpuSample, ...] = ()
        self._answered_s = clock()
        self._is_identified, self._is_fresh, self._is_requested = (
            threading.Event(),
            threading.Event(),
            threading.Event(),
        )
        self._is_closed = threading.Event()
        self.identified = 0
        """How often the identity of the GPUs became known or changed."""
        threading.Thread(target=self._work, name="nvml", daemon=True).start()

    def identify(self, patience_s: float) -> GpuInventory:
        """The driver's GPUs; after `patience_s` seconds without an answer, an inventory with that reason."""
        self._is_identified.wait(patience_s)
        return self._inventory or _without_gpus(SILENT)

    def sample(self, patience_s: float) -> tuple[tuple[GpuSample, ...], float]:
        """The latest load and its age in seconds, which is 0 if the driver answered within `patience_s`."""
        inventory = self._inventory
        self._is_fresh.clear()
        self._is_requested.set()
        if inventory is not None and not inventory.gpus:
            return (), 0.0
        fresh = self._is_fresh.wait(patience_s)
        return self._samples, 0.0 if fresh else self._clock() - self._answered_s

    @property
    def count(self) -> int:
        """Number of GPUs that the driver reports; 0 before its first answer."""
        return len(self._inventory.gpus) if self._inventory is not None else 0

    def close(self) -> None:
        """End the child process soon."""
        self._is_closed.set()
        self._is_requested.set()

    # --- the thread ---

    def _work(self) -> None:
        if reason := why_no_library():
            self._set_inventory(_without_gpus(reason))
            return
        pauses = iter(PAUSES_S)
        while not self._is_closed.is_set():
            reason = self._serve()
            if self._inventory is None or not self._inventory.gpus:
                self._set_inventory(_without_gpus(reason))
            self._is_closed.wait(next(pauses, PAUSES_S[-1]))

    def _serve(self) -> str:
        """Talk to one child process until it ends, hangs or is not needed; why there are no figures any more."""
        try:
            child = subprocess.Popen(  # noqa: S603 - this Python and a module of ours
                [sys.executable, "-P", "-m", CHILD, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,  # the terminal's interrupt is not for it
            )
        except OSError as error:
            return f"the process that reads the NVIDIA driver does not start: {error}"
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            self._converse(child.stdin, child.stdout)
        except OSError:  # the child ended
            pass
        finally:
            child.stdin.close()  # ends it, unless a call hangs inside the kernel
            child.stdout.close()
            end(child)
        return _why_ended(child)

    def _converse(self, requests: IO[bytes], reports: IO[bytes]) -> None:
        while self._take(_read(reports)):
            self._is_requested.wait()
            if self._is_closed.is_set():
                return
            self._is_requested.clear()
            requests.write(b"s")

    def _take(self, report: Report | None) -> bool:
        if report is None:
            return False
        if report.inventory is not None:
            self._set_inventory(report.inventory)
        if report.samples is not None:
            self._samples, self._answered_s = report.samples, self._clock()
            self._is_fresh.set()
        return True

    def _set_inventory(self, inventory: GpuInventory) -> None:
        if inventory != self._inventory:
            self._inventory = inventory
            self.identified += 1
        self._is_identified.set()


def end(child: subprocess.Popen[bytes]) -> None:
    """Wait for a child process that was asked to end, then kill it; never wait for one that cannot be killed."""
    for wait_s in (1.0, 1.0):
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(wait_s)
            return
        child.kill()


def _without_gpus(reason: str) -> GpuInventory:
    unknown = Fact[str](reason=reason)
    return GpuInventory(reason=reason, driver_version=unknown, cuda_version=unknown)


def _read(pipe: IO[bytes]) -> Report | None:
    """The child's next report; None if it ends or does not answer."""
    header = _read_bytes(pipe, 4)
    body = _read_bytes(pipe, int.from_bytes(header, "big")) if header else b""
    return msgspec.msgpack.decode(body, type=Report) if body else None


def _read_bytes(pipe: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        ready, _, _ = select.select([pipe], [], [], HANG_S)
        part = os.read(pipe.fileno(), size - len(data)) if ready else b""
        if not part:
            return b""
        data += part
    return data


def _why_ended(child: subprocess.Popen[bytes]) -> str:
    code = child.returncode
    if code is not None and code < 0 and -code != signal.SIGKILL:
        return f"NVIDIA's library crashed ({signal.Signals(-code).name}); it is tried again"
    return SILENT


def why_no_library() -> str:
    """Why NVML cannot be there, without loading it; empty if it may be there."""
    if importlib.util.find_spec("pynvml") is None:
        return NOT_INSTALLED
    folders = [*os.environ.get("LD_LIBRARY_PATH", "").split(":"), *FOLDERS]
    folders += [f"/usr/lib/{os.uname().machine}-linux-gnu", f"/lib/{os.uname().machine}-linux-gnu"]
    if any(folder and (Path(folder) / LIBRARY).exists() for folder in folders):
        return ""
    try:
        return "" if LIBRARY.encode() in Path("/etc/ld.so.cache").read_bytes() else NO_DRIVER
    except OSError:
        return ""  # no glibc: let the linker decide
