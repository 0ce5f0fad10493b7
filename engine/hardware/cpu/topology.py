"""Cores, sockets, clocks and caches, from /sys. Knows no product. Never imports torch."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.cpu.cpuinfo import Block, CpuInfo
from epochtop.engine.hardware.facts import Cache, CoreKind, Fact

_CPU = "devices/system/cpu"
_NOT_REPORTED = "not reported by the kernel"
_VIRTUAL = "not visible inside a virtual machine"

# --- cores ------------------------------------------------------------------------------------------------


def core_sets(roots: Roots) -> set[frozenset[int]]:
    """The threads of each online physical core, from /sys; empty if it has no such files."""
    pattern = "devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"
    return {threads for path in roots.sys.glob(pattern) if (threads := _cpu_list(path))}


def cores_by_cpuinfo(blocks: list[Block]) -> Fact[int]:
    """Physical cores by the core ids of /proc/cpuinfo."""
    pairs = {(block.get("physical id"), block["core id"]) for block in blocks if "core id" in block}
    return Fact(len(pairs)) if pairs else Fact(reason="the kernel does not report cores")


HYBRID = (("performance", "cpu_core"), ("efficiency", "cpu_atom"), ("low-power efficiency", "cpu_lowpower"))
"""Kinds of cores in Intel's hybrid processors, and their folders in /sys/devices."""


def hybrid_cores(roots: Roots, cores: Iterable[frozenset[int]]) -> tuple[CoreKind, ...]:
    """Physical cores by kind in one of Intel's hybrid processors; empty if all cores are alike."""
    kinds = []
    for name, folder in HYBRID:
        if threads := _cpu_list(roots.sys / "devices" / folder / "cpus"):
            kinds.append(CoreKind(name, sum(1 for core in cores if core <= threads) or len(threads)))
    return tuple(kinds) if len(kinds) > 1 else ()


def kinds_by_name(roots: Roots, names: Sequence[str]) -> tuple[CoreKind, ...]:
    """Cores by the design of each CPU in `names`, fastest first; empty if all are alike. Arm's have one thread each."""
    counts = Counter(names)
    capacity = {name: _capacity(roots, names.index(name)) for name in counts}
    ordered = sorted(counts, key=lambda name: -capacity[name])
    return tuple(CoreKind(name, counts[name]) for name in ordered) if len(counts) > 1 else ()


def _capacity(roots: Roots, cpu: int) -> int:
    """Relative speed of a CPU, by the scheduler's capacity or the highest clock; 0 if unknown."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        if (text := _text(roots.sys / _CPU / f"cpu{cpu}" / name)).isdigit():
            return int(text)
    return 0


def _cpu_list(path: Path) -> frozenset[int]:
    """CPU numbers in a file such as `0-3,8`."""
    numbers: set[int] = set()
    with contextlib.suppress(OSError, ValueError):
        for part in path.read_text().strip().split(","):
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


# --- sockets, clocks, caches -------------------------------------------------------------------------------


def sockets(roots: Roots, info: CpuInfo, is_arm: bool) -> Fact[int]:
    """Sockets by /sys, else by /proc/cpuinfo.

    Arm kernels number clusters of cores instead, unless the firmware has ACPI's table of processors.
    """
    texts = {_text(path) for path in roots.sys.glob(f"{_CPU}/cpu[0-9]*/topology/physical_package_id")}
    texts = texts or {block.get("physical id", "") for block in info.blocks}
    numbers = {text for text in texts if text.isdigit()}
    if is_arm and len(numbers) > 1 and not (roots.sys / "firmware/acpi/tables/PPTT").exists():
        trees = (roots.proc / "device-tree", roots.sys / "firmware/devicetree")
        return Fact(1) if any(tree.exists() for tree in trees) else Fact(reason="the kernel reports clusters only")
    return Fact(len(numbers)) if numbers else Fact(reason=_NOT_REPORTED)


def clocks(roots: Roots, block: Block) -> tuple[Fact[float], Fact[float]]:
    """Base and highest clock of the fastest core, in MHz."""
    reason = _VIRTUAL if "hypervisor" in block.get("flags", "").split() else _NOT_REPORTED
    base, highest = (
        _largest(roots, f"{_CPU}/cpu[0-9]*/cpufreq/{name}") for name in ("base_frequency", "cpuinfo_max_freq")
    )
    nominal = _largest(roots, f"{_CPU}/cpu[0-9]*/acpi_cppc/nominal_freq")
    named = re.search(r"@ *([\d.]+) *GHz", block.get("model name", ""))
    if base is not None:
        lowest = Fact(base / 1000)
    elif nominal:  # in MHz; from AMD's drivers
        lowest = Fact(nominal)
    else:
        lowest = Fact(float(named[1]) * 1000) if named else Fact[float](reason=reason)
    return lowest, Fact(highest / 1000) if highest is not None else Fact(reason=reason)


def _largest(roots: Roots, pattern: str) -> float | None:
    return max((float(text) for path in roots.sys.glob(pattern) if (text := _text(path)).isdigit()), default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def caches(roots: Roots) -> Fact[tuple[Cache, ...]]:
    """All caches, each counted once however many CPUs share it."""
    sizes: dict[tuple[int, str], dict[str, int]] = {}
    for folder in roots.sys.glob(f"{_CPU}/cpu[0-9]*/cache/index[0-9]*"):
        level, kind, size = _text(folder / "level"), _text(folder / "type").lower(), _size(_text(folder / "size"))
        if level.isdigit() and size:
            sizes.setdefault((int(level), kind), {})[_text(folder / "shared_cpu_list") or str(folder)] = size
    if sizes:
        return Fact(
            tuple(Cache(level, kind, max(group.values()), len(group)) for (level, kind), group in sorted(sizes.items()))
        )
    return Fact(reason=_NOT_REPORTED)


def _size(text: str) -> int:
    """Bytes of a size such as `48K` or `32768K`."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]] if match else 0
