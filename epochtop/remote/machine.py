"""What this machine is, once, and how busy it is, once a second, for a viewer on another one.

The kernel's files about processors go out as they are: the viewer knows what they mean. Loads are differences, so they are
computed here. Reads only. Imports the standard library and modules that are sent with it only.
"""

from __future__ import annotations

import glob
import json
import os
import time

from epochtop.engine.hardware import limits
from epochtop.engine.hardware.cgroups import Roots, cpu_quota, memory_limits
from epochtop.engine.hardware.cpu.load import CpuLoad, ProcessLoad
from epochtop.recording import directory
from epochtop.remote.gpus import GpuLines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from epochtop.remote.frames import Frame

INTERVAL_S = 1.0
"""Seconds between two samples."""
PATIENCE_S = 3.0
"""Longest wait of the first sample for nvidia-smi, which may have to wake the GPUs."""
PROC_FILES = ("cpuinfo", "self/cgroup", "self/mountinfo", "sys/kernel/osrelease", "device-tree/model")
CPU = "devices/system/cpu/cpu[0-9]*"
SYS_FILES = (
    f"{CPU}/topology/thread_siblings_list", f"{CPU}/topology/physical_package_id",
    f"{CPU}/cache/index[0-9]*/level", f"{CPU}/cache/index[0-9]*/type", f"{CPU}/cache/index[0-9]*/size",
    f"{CPU}/cache/index[0-9]*/shared_cpu_list", f"{CPU}/cpufreq/base_frequency", f"{CPU}/cpufreq/cpuinfo_max_freq",
    f"{CPU}/acpi_cppc/nominal_freq", f"{CPU}/cpu_capacity", "devices/cpu_core/cpus", "devices/cpu_atom/cpus",
    "devices/cpu_lowpower/cpus", "firmware/devicetree/base/model", "devices/virtual/dmi/id/product_name",
    "bus/pci/devices/*/class", "bus/pci/devices/*/vendor",
)  # fmt: skip
"""What identifies a processor and the devices next to it (:mod:`epochtop.engine.hardware.cpu`)."""
SYS_SIGNS = ("firmware/acpi/tables/PPTT",)
"""Files of which only the existence counts."""
MARKERS = (".dockerenv", "run/.containerenv")
"""Files in the root folder of a container."""
LARGEST_FILE, LARGEST_FILES = 1 << 20, 4 << 20
"""Most characters of one file, and of all of them."""


class MachineWatch:
    """Frames about this machine, whenever they are due. `root` is the root folder; tests pass another one."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self.engine_pid: int | None = None
        """Process whose load is included."""
        self.is_readable = os.path.exists(os.path.join(root, "proc/stat"))
        self._due, self._start = 0.0, time.monotonic()
        if self.is_readable:
            from pathlib import Path

            self._roots = Roots(Path(root, "proc"), Path(root, "sys"))
            self._cpus, self._engine, self._gpus = CpuLoad(self._roots), ProcessLoad(self._roots), GpuLines()

    def identity(self) -> Frame:
        """What the machine is."""
        facts: dict[str, Any] = {"host": directory.host_name(), "problem": ""}
        if not self.is_readable:
            facts["problem"] = f"{os.uname().sysname} has no /proc, so its figures cannot be read over ssh"
            return {"type": "machine"}, json.dumps(facts).encode()
        quota = cpu_quota(self._roots)
        facts["affinity"] = len(limits.affinity_cpus())
        facts["quota"] = None if quota is None else [quota.cpus, quota.version]
        facts["memory_bytes"] = limits.meminfo_bytes(self._roots).get("MemTotal", 0)
        facts["memory_limits"] = [list(limit) for limit in memory_limits(self._roots)]
        facts["markers"] = [name for name in MARKERS if os.path.exists(os.path.join(self._root, name))]
        facts["files"] = dict(self._files())
        return {"type": "machine"}, json.dumps(facts).encode()

    def _files(self) -> Iterator[tuple[str, str]]:
        """Path below the root folder, and content, of each file that exists."""
        room = LARGEST_FILES
        for pattern in (*(f"proc/{name}" for name in PROC_FILES), *(f"sys/{name}" for name in SYS_FILES)):
            for path in glob.glob(os.path.join(self._root, pattern)):
                try:
                    with open(path, encoding="utf-8", errors="replace") as file:
                        text = file.read(min(LARGEST_FILE, room)).rstrip("\0")
                except OSError:
                    continue
                room -= len(text)
                yield os.path.relpath(path, self._root), text
        for name in SYS_SIGNS:
            if os.path.exists(os.path.join(self._root, "sys", name)):
                yield f"sys/{name}", ""

    def due_sample(self) -> Frame | None:
        """How busy the machine is, once a second; None in between."""
        now = time.monotonic()
        if now < self._due or not self.is_readable:
            return None
        if not self._gpus.is_known and now < self._start + PATIENCE_S:
            return None
        self._due = now + INTERVAL_S
        cpu, total = self._cpus.read(), limits.usable_memory_bytes(self._roots)
        sample: dict[str, Any] = {
            "cpu_percent": cpu.percent,
            "cores": [[number, round(percent, 1)] for number, percent in cpu.cores.items()],
            "memory_bytes": [max(0, total - limits.available_memory_bytes(self._roots)), total],
            "swap_bytes": list(limits.swap_bytes(self._roots)),
            "engine": self._engine_load(),
            "gpus": self._gpus.newest(),
        }
        return {"type": "sample"}, json.dumps(sample).encode()

    def _engine_load(self) -> dict[str, Any] | None:
        if self.engine_pid is None:
            return None
        try:
            percent, memory = self._engine.read(self.engine_pid)
        except (OSError, ValueError, IndexError):
            return {"pid": self.engine_pid, "percent": None, "memory_bytes": None}
        return {"pid": self.engine_pid, "percent": percent, "memory_bytes": memory}
