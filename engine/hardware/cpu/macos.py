"""The processor of a system without /proc: macOS, asked by sysctl."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable

from epochtop.engine.hardware.cpu.tables import generation
from epochtop.engine.hardware.facts import Cache, Cpu, Fact

_UNTOLD = "not told by the system"


def _sysctl(name: str) -> str:
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=2).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def identify_by_sysctl(ask: Callable[[str], str] = _sysctl) -> Cpu:
    """The processor of a system without /proc; `ask` answers a sysctl name, empty when unknown."""
    from epochtop.engine.hardware.cpu.tables import clean_name

    def number(name: str) -> int | None:
        text = ask(name)
        return int(text) if text.isdigit() else None

    name, cores = clean_name(ask("machdep.cpu.brand_string")), number("hw.physicalcpu")
    apple = name.startswith("Apple ")
    hybrid = apple and number("hw.nperflevels") == 2
    line = generation(name, "Apple", None) if apple else None
    clock, sockets = number("hw.cpufrequency_max"), number("hw.packages")
    return Cpu(
        model=Fact(name) if name else Fact(platform.machine() or None, "the system names no model"),
        vendor=Fact("Apple") if apple else Fact(reason="the system names no vendor"),
        microarchitecture=Fact(name.removeprefix("Apple ")) if apple else Fact(reason=_UNTOLD),
        generation=Fact(line) if line else Fact(reason=_UNTOLD),
        sockets=Fact(sockets) if sockets else Fact(reason=_UNTOLD),
        cores=Fact(cores) if cores else Fact(reason=_UNTOLD),
        threads=number("hw.logicalcpu") or 1,
        performance_cores=number("hw.perflevel0.physicalcpu") if hybrid else None,
        efficiency_cores=number("hw.perflevel1.physicalcpu") if hybrid else None,
        base_clock_mhz=Fact(reason=_UNTOLD),
        max_clock_mhz=Fact(clock / 1e6) if clock else Fact(reason=_UNTOLD),
        vector_instructions=_vectors(number),
        caches=_caches(number),
    )


def _vectors(number: Callable[[str], int | None]) -> Fact[tuple[str, ...]]:
    names = {"hw.optional.neon": "NEON", "hw.optional.arm.FEAT_BF16": "BF16", "hw.optional.avx2_0": "AVX2"}
    found = tuple(said for name, said in names.items() if number(name) == 1)
    return Fact(found) if found else Fact(reason=_UNTOLD)


def _caches(number: Callable[[str], int | None]) -> Fact[tuple[Cache, ...]]:
    """Of the fastest kind of core."""
    asked = ((1, "data", "l1dcachesize"), (1, "instruction", "l1icachesize"), (2, "unified", "l2cachesize"))
    found = []
    for level, kind, name in asked:
        size = number(f"hw.perflevel0.{name}") or number(f"hw.{name}")
        if size:
            found.append(Cache(level, kind, size, 1))
    return Fact(tuple(found)) if found else Fact(reason=_UNTOLD)
