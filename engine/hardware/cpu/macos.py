"""Identifies the processor of macOS, which has no /proc, by sysctl. Never imports torch."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable

from epochtop.engine.hardware.cpu.generations import generation
from epochtop.engine.hardware.cpu.names import BEHIND_ROSETTA, ROSETTA, clean_name
from epochtop.engine.hardware.facts import Cache, CoreKind, Cpu, Fact

_NOT_REPORTED = "not reported by the system"


def _sysctl(name: str) -> str:
    try:
        command = ["/usr/sbin/sysctl", "-n", name]
        return subprocess.run(command, capture_output=True, text=True, timeout=2).stdout.strip()  # noqa: S603 - our names
    except (OSError, subprocess.TimeoutExpired):
        return ""


def identify_by_sysctl(ask: Callable[[str], str] = _sysctl) -> Cpu:
    """The processor of a system without /proc; `ask` returns the value of a sysctl name, empty if unknown."""

    def number(name: str) -> int | None:
        text = ask(name)
        return int(text) if text.isdigit() else None

    name, cores = clean_name(ask("machdep.cpu.brand_string")), number("hw.physicalcpu")
    is_rosetta = name.startswith("VirtualApple")
    apple = name.startswith("Apple ") or is_rosetta
    hybrid = apple and number("hw.nperflevels") == 2
    levels = (("performance", "hw.perflevel0.physicalcpu"), ("efficiency", "hw.perflevel1.physicalcpu"))
    kinds = [(kind, count) for kind, key in levels if hybrid and (count := number(key))]
    line = generation(name, "Apple", None) if apple else None
    clock, sockets = number("hw.cpufrequency_max"), number("hw.packages")
    return Cpu(
        model=Fact(name) if name else Fact(platform.machine() or None, "the system names no model"),
        vendor=Fact("Apple") if apple else Fact(reason="the system names no vendor"),
        microarchitecture=_design(name),
        generation=Fact(line) if line else Fact(reason=_NOT_REPORTED),
        sockets=Fact(sockets) if sockets else Fact(reason=_NOT_REPORTED),
        cores=Fact(cores) if cores else Fact(reason=_NOT_REPORTED),
        threads=number("hw.logicalcpu") or 1,
        core_kinds=tuple(CoreKind(kind, count) for kind, count in kinds) if hybrid else (),
        performance_cores=dict(kinds).get("performance"),
        efficiency_cores=dict(kinds).get("efficiency"),
        base_clock_mhz=Fact(reason=_NOT_REPORTED),
        max_clock_mhz=Fact(clock / 1e6) if clock else Fact(reason=_NOT_REPORTED),
        vector_instructions=_vectors(number),
        caches=_caches(number),
        advice=ROSETTA if is_rosetta else "",
    )


def _design(name: str) -> Fact[str]:
    if name.startswith("Apple "):
        return Fact(name.removeprefix("Apple "))
    return Fact(reason=BEHIND_ROSETTA if name.startswith("VirtualApple") else _NOT_REPORTED)


def _vectors(number: Callable[[str], int | None]) -> Fact[tuple[str, ...]]:
    names = {"hw.optional.neon": "NEON", "hw.optional.arm.FEAT_BF16": "BF16", "hw.optional.avx2_0": "AVX2"}
    supported = tuple(instructions for name, instructions in names.items() if number(name) == 1)
    return Fact(supported) if supported else Fact(reason=_NOT_REPORTED)


def _caches(number: Callable[[str], int | None]) -> Fact[tuple[Cache, ...]]:
    """Caches of the fastest type of core."""
    names = ((1, "data", "l1dcachesize"), (1, "instruction", "l1icachesize"), (2, "unified", "l2cachesize"))
    caches = []
    for level, kind, name in names:
        size = number(f"hw.perflevel0.{name}") or number(f"hw.{name}")
        if size:
            caches.append(Cache(level, kind, size, 1))
    return Fact(tuple(caches)) if caches else Fact(reason=_NOT_REPORTED)
