"""The environment of this process: operating system, container, and GPUs on the PCI bus. Never imports torch."""

from __future__ import annotations

import contextlib
import platform
import re
from pathlib import Path

from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.facts import OtherGpu

_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_DISPLAY = ("0x0300", "0x0302", "0x0380", "0x1200")
"""PCI classes: VGA, 3D and other display controllers, processing accelerators."""
_CONTAINERS = (("kubernetes", "kubepods"), ("docker", "docker"), ("podman", "libpod"), ("lxc", "lxc"))


def system(roots: Roots) -> str:
    """Name and release of the operating system, such as `Linux 6.8.0 (WSL)`."""
    try:
        release = (roots.proc / "sys/kernel/osrelease").read_text().strip()
    except OSError:
        return f"{platform.system()} {platform.release()}"
    is_wsl = "microsoft" in release.lower()
    return f"Linux {release.split('-')[0]}{' (WSL)' if is_wsl else ''}"


def container(roots: Roots, root: Path = Path("/")) -> str:
    """The type of container this process is in; empty if there is no sign of one.

    Signs are the marker files of docker and podman, the names of control groups, and a root mounted as an overlay.
    """
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    with contextlib.suppress(OSError):
        groups = (roots.proc / "self/cgroup").read_text()
        for name, sign in _CONTAINERS:
            if re.search(rf"/{sign}", groups):
                return name
    with contextlib.suppress(OSError):
        for line in (roots.proc / "self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            if left.split()[4:5] == ["/"] and right.startswith("overlay"):
                return "container"
    return ""


def display_devices(roots: Roots) -> tuple[OtherGpu, ...]:
    """GPUs of any vendor on the PCI bus, with or without a driver."""
    devices = []
    for folder in sorted(roots.sys.glob("bus/pci/devices/*")):
        with contextlib.suppress(OSError):
            if (folder / "class").read_text().strip()[:6] in _DISPLAY:
                vendor = (folder / "vendor").read_text().strip()
                if vendor in _VENDORS:  # a server's management chip is a display device too, but computes nothing
                    devices.append(OtherGpu(_VENDORS[vendor], folder.name))
    return tuple(devices)
