"""CPU and memory limits that a container or a batch system puts on this process, by control groups.

On a host with 168 threads a job may get only two of them, and only the control groups tell. Both versions are read from
files; an unreadable limit counts as none. This module is also sent to other machines (:mod:`epochtop.remote`), so it works
with Python 3.9 and imports the standard library only.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Roots(NamedTuple):
    """Folders of the kernel's file systems; tests pass recorded ones."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


class CpuQuota(NamedTuple):
    """The CPU time that a control group may use."""

    cpus: float
    """Quota as a number of CPUs."""
    version: int
    """Version of control groups, 1 or 2."""
    folder: Path
    """Folder of the control group."""

    def used_seconds(self) -> float | None:
        """CPU seconds that the group has used; None if the kernel does not count them."""
        try:
            if self.version == 1:
                return int((self.folder / "cpuacct.usage").read_text()) / 1e9
            return int(_table(self.folder / "cpu.stat")["usage_usec"]) / 1e6
        except (OSError, ValueError, KeyError):
            return None


class MemoryLimit(NamedTuple):
    """The memory limit of a control group, and its use."""

    limit_bytes: int
    used_bytes: int
    """Memory in use, without the file cache that the kernel drops first."""
    version: int


def cpu_quota(roots: Roots = Roots()) -> CpuQuota | None:  # noqa: B008 - frozen
    """The smallest CPU quota of this process's group and its parents; None without one."""
    version, folders = _groups(roots, "cpu")
    quotas = [CpuQuota(cpus, version, folder) for folder in folders if (cpus := _quota(folder, version))]
    return min(quotas, key=lambda quota: quota.cpus, default=None)


def memory_limits(roots: Roots = Roots()) -> list[MemoryLimit]:  # noqa: B008 - frozen
    """The memory limits of this process's group and its parents, its own group first."""
    version, folders = _groups(roots, "memory")
    return [limit for folder in folders if (limit := _memory(folder, version))]


def _quota(folder: Path, version: int) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        if version == 1:
            allowed, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        else:
            first, second = (folder / "cpu.max").read_text().split()
            allowed, period = int(first), int(second)  # "max" is not a number and means no limit
        if allowed > 0 and period > 0:
            return allowed / period
    return None


def _memory(folder: Path, version: int) -> MemoryLimit | None:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit_name, used_name, cache_name = names if version == 1 else ("memory.max", "memory.current", "inactive_file")
    with contextlib.suppress(OSError, ValueError):
        limit = int((folder / limit_name).read_text())
        used = int((folder / used_name).read_text())
        cache = 0
        with contextlib.suppress(OSError, ValueError, KeyError):
            cache = int(_table(folder / "memory.stat")[cache_name])
        return MemoryLimit(limit, max(0, used - cache), version)
    return None


def _table(path: Path) -> dict[str, str]:
    """A file of "name value" lines."""
    return dict(line.split(None, 1) for line in path.read_text().splitlines() if " " in line)


def _groups(roots: Roots, controller: str) -> tuple[int, list[Path]]:
    """Version, and the folders of this process's group for `controller` and of its parents up to the mount point."""
    paths = dict(_group_paths(roots))
    version = 1 if controller in paths else 2
    path = paths.get(controller if version == 1 else "")
    mount = _mount(roots, controller if version == 1 else "")
    if path is None or mount is None:
        return version, []
    root, point = mount
    inside = path.removeprefix(root.rstrip("/")).strip("/") if _is_under(path, root) else ""
    # A path that leads out of the mount belongs to another namespace: the mounted tree counts.
    folder = point if ".." in inside else point / inside
    return version, [folder, *(parent for parent in folder.parents if parent.is_relative_to(point))]


def _is_under(path: str, root: str) -> bool:
    return root == "/" or path == root or path.startswith(root + "/")


def _group_paths(roots: Roots) -> Iterator[tuple[str, str]]:
    """Controllers in /proc/self/cgroup with the path of their group; version 2 has an empty name."""
    with contextlib.suppress(OSError):
        for line in (roots.proc / "self/cgroup").read_text().splitlines():
            parts = line.split(":", 2)
            if len(parts) == 3:
                yield from ((name, parts[2]) for name in parts[1].split(","))


def _mount(roots: Roots, controller: str) -> tuple[str, Path] | None:
    """Root and mount point of the tree of `controller`; an empty name means version 2."""
    with contextlib.suppress(OSError):
        for line in (roots.proc / "self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            fields, kind = left.split(), right.split()
            if len(fields) < 5 or len(kind) < 3:
                continue
            if kind[0] == "cgroup2" if not controller else kind[0] == "cgroup" and controller in kind[2].split(","):
                return fields[3], _rooted(roots, fields[4])
    return None


def _rooted(roots: Roots, point: str) -> Path:
    return roots.sys / point.removeprefix("/sys/") if point.startswith("/sys/") else Path(point)
