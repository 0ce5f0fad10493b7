"""Processes that use a GPU: the driver reports their ids, /proc their users and commands. Never imports torch."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.facts import Fact, GpuProcess
from epochtop.engine.hardware.gpu.nvml import Driver

IN_CONTAINER = "the driver lists no processes inside a container"
ELSEWHERE = "not visible from here: it belongs to another container or user"
NOT_REPORTED = "not reported by the driver"


class Processes:
    """Describes processes by the /proc in `roots`; `container` is the type of container this process is in."""

    def __init__(self, roots: Roots, container: str) -> None:
        self.roots, self.container = roots, container

    def of(self, driver: Driver, index: int) -> Fact[tuple[GpuProcess, ...]]:
        """The processes on one GPU, the one with the most memory first."""
        processes: dict[int, GpuProcess] = {}
        for kind in ("Compute", "Graphics"):
            answer = driver.ask_gpu(index, kind, partial(_running, driver.nvml, kind))
            if answer.value is None:
                return Fact(reason=answer.reason)
            processes |= {process.pid: self._described(process) for process in answer.value}
        if not processes and self.container:
            return Fact(reason=IN_CONTAINER)
        return Fact(tuple(sorted(processes.values(), key=lambda process: -(process.memory_bytes.value or 0))))

    def _described(self, process: Any) -> GpuProcess:
        folder = self.roots.proc / str(process.pid)
        memory = process.usedGpuMemory
        command, user = Fact[str](reason=ELSEWHERE), Fact[str](reason=ELSEWHERE)
        # In a container the driver reports the host's ids; the same id here is another process.
        if not self.container:
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                text = " ".join(word.decode("utf-8", "replace") for word in words)
                command = Fact(text or (folder / "comm").read_text().strip())
            with contextlib.suppress(OSError, ValueError, IndexError):
                user = Fact(_user(int(_status(folder, "Uid").split()[0])))
        return GpuProcess(
            pid=process.pid,
            user=user,
            memory_bytes=Fact(memory) if memory is not None else Fact(reason=NOT_REPORTED),
            command=command,
        )


def _running(nvml: Any, kind: str, gpu: Any) -> list[Any]:
    """The running processes, by versioned names: pynvml's unversioned one fails on older drivers. Raises NVMLError."""
    try:
        running: list[Any] = getattr(nvml, f"nvmlDeviceGet{kind}RunningProcesses_v3")(gpu)
    except nvml.NVMLError_FunctionNotFound:
        running = getattr(nvml, f"nvmlDeviceGet{kind}RunningProcesses_v2")(gpu)
    return running


def _status(folder: Any, name: str) -> str:
    for line in (folder / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return str(line.partition(":")[2])
    return ""


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
