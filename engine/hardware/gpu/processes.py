"""Who holds memory on a GPU: the driver tells process ids, /proc tells whose they are."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.facts import Fact, GpuProcess
from epochtop.engine.hardware.gpu.nvml import Driver

IN_CONTAINER = "the driver names no processes inside a container"
ELSEWHERE = "not visible from here: of another container or user"
NOT_TOLD = "the driver does not tell"


class Processes:
    """Names processes by the /proc of `roots`; `container` says what kind of container this is in."""

    def __init__(self, roots: Roots, container: str) -> None:
        self._roots, self._container = roots, container

    def of(self, driver: Driver, index: int) -> Fact[tuple[GpuProcess, ...]]:
        """The processes on one GPU, those with most memory first."""
        found: dict[int, GpuProcess] = {}
        for kind in ("Compute", "Graphics"):
            answer = driver.ask_gpu(index, kind, partial(_running, driver.nvml, kind))
            if answer.value is None:
                return Fact(reason=answer.reason)
            found |= {process.pid: self._named(process) for process in answer.value}
        if not found and self._container:
            return Fact(reason=IN_CONTAINER)
        return Fact(tuple(sorted(found.values(), key=lambda process: -(process.memory_bytes.value or 0))))

    def _named(self, process: Any) -> GpuProcess:
        folder = self._roots.proc / str(process.pid)
        memory = process.usedGpuMemory
        command, user = Fact[str](reason=ELSEWHERE), Fact[str](reason=ELSEWHERE)
        # In a container the driver's numbers are the host's: the same number here is another process.
        if not self._container:
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                text = " ".join(word.decode("utf-8", "replace") for word in words)
                command = Fact(text or (folder / "comm").read_text().strip())
            with contextlib.suppress(OSError, ValueError, IndexError):
                user = Fact(_user(int(_status(folder, "Uid").split()[0])))
        return GpuProcess(
            pid=process.pid,
            user=user,
            memory_bytes=Fact(memory) if memory is not None else Fact(reason=NOT_TOLD),
            command=command,
        )


def _running(nvml: Any, kind: str, gpu: Any) -> list[Any]:
    """By the versions' own names: pynvml refuses the plain one to an older driver. Raises NVMLError."""
    try:
        found: list[Any] = getattr(nvml, f"nvmlDeviceGet{kind}RunningProcesses_v3")(gpu)
    except nvml.NVMLError_FunctionNotFound:
        found = getattr(nvml, f"nvmlDeviceGet{kind}RunningProcesses_v2")(gpu)
    return found


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
