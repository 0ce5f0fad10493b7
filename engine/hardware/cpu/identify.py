"""Identifies the processor from the kernel's files.

Virtual machines mask names ("AMD EPYC") and Arm reports two numbers, so family and model decide, then archspec's
feature sets. Never uses py-cpuinfo, whose call takes a second. Never imports torch or Textual.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.cpu.tables import (
    AMD_MODELS,
    INTEL_MODELS,
    SPELLED,
    VENDORS,
    clean_name,
    generation,
    vector_instructions,
)
from epochtop.engine.hardware.facts import Cache, Cpu, Fact


def identify_cpu(roots: Roots = Roots()) -> Cpu:  # noqa: B008 - frozen
    """The processor, by /proc/cpuinfo and /sys (under `roots`), or by sysctl if there is no /proc."""
    blocks = _blocks(roots)
    if not blocks:
        from epochtop.engine.hardware.cpu.macos import identify_by_sysctl

        return identify_by_sysctl()
    first = blocks[0]
    cores = _core_sets(roots)
    count = Fact(len(cores)) if cores else _cores_by_cpuinfo(blocks)
    vendor = _vendor(first)
    architecture = _microarchitecture(first, vendor)
    performance, efficiency = (_kind_cores(roots, name, cores) for name in ("cpu_core", "cpu_atom"))
    is_hybrid = performance is not None and efficiency is not None
    model = _model(first, vendor, architecture)
    line = generation(model.value or "", vendor.value, architecture.value)
    base, highest = _clocks(roots, first)
    return Cpu(
        model=model,
        vendor=vendor,
        microarchitecture=architecture,
        generation=Fact(line) if line else Fact(reason="not known from its name or design"),
        sockets=_sockets(roots, blocks),
        cores=count,
        threads=len(blocks),
        performance_cores=performance if is_hybrid else None,
        efficiency_cores=efficiency if is_hybrid else None,
        base_clock_mhz=base,
        max_clock_mhz=highest,
        vector_instructions=_vectors(first),
        caches=_caches(roots),
    )


def _blocks(roots: Roots) -> list[dict[str, str]]:
    """The blocks of /proc/cpuinfo, one per CPU; fields outside these blocks are added to the first."""
    blocks: list[dict[str, str]] = []
    extra: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for block in (roots.proc / "cpuinfo").read_text(errors="replace").split("\n\n"):
            pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
            fields = {name.strip(): value.strip() for name, _, value in pairs}
            if fields.get("processor", "").isdigit():
                blocks.append(fields)
            else:
                extra |= fields  # Arm and POWER list the board after the CPUs
    if blocks:
        blocks[0] = extra | blocks[0]
    return blocks


def _vendor(block: dict[str, str]) -> Fact[str]:
    if name := block.get("vendor_id"):
        return Fact(VENDORS.get(name, name))
    if code := block.get("CPU implementer"):
        from archspec.cpu.schema import TARGETS_JSON

        name = TARGETS_JSON["conversions"]["arm_vendors"].get(code)
        return Fact("Arm" if name == "ARM" else name) if name else Fact(reason=f"unknown implementer {code}")
    return Fact(reason="/proc/cpuinfo names no vendor")


def _model(block: dict[str, str], vendor: Fact[str], architecture: Fact[str]) -> Fact[str]:
    name = block.get("model name") or block.get("cpu")
    if name and name.strip("- ").lower() not in ("", "unknown"):
        return Fact(clean_name(name))
    if vendor.value and architecture.value:
        return Fact(f"{vendor.value} {architecture.value}")
    if part := block.get("CPU part"):
        return Fact(f"{vendor.value or 'implementer ' + block.get('CPU implementer', '?')} part {part}")
    return Fact(reason="the kernel names no model")


def _microarchitecture(block: dict[str, str], vendor: Fact[str]) -> Fact[str]:
    numbers = [block.get(key, "") for key in ("cpu family", "model", "stepping")]
    if all(number.isdigit() for number in numbers):
        family, model, stepping = (int(number) for number in numbers)
        if name := _by_model(vendor.value, family, model, stepping):
            return Fact(name)
    return _by_features(block)


def _by_model(vendor: str | None, family: int, model: int, stepping: int) -> str | None:
    if vendor == "Intel" and family == 6:
        if model == 0x55:
            return "Skylake" if stepping < 5 else "Cascade Lake" if stepping < 10 else "Cooper Lake"
        return next((name for name, models in INTEL_MODELS.items() if model in models), None)
    if vendor in ("AMD", "Hygon"):
        for table_family, name, ranges in AMD_MODELS:
            if table_family == family and any(low <= model <= high for low, high in ranges):
                return name
    return None


def _by_features(block: dict[str, str]) -> Fact[str]:
    """The newest of archspec's targets that this CPU's vendor and features allow; does not query the host."""
    from archspec.cpu import TARGETS
    from archspec.cpu.schema import TARGETS_JSON

    code, part = block.get("CPU implementer"), block.get("CPU part", "")
    vendor = TARGETS_JSON["conversions"]["arm_vendors"].get(code) if code else block.get("vendor_id")
    features = set((block.get("flags") or block.get("Features") or "").split())
    makers = [target for target in TARGETS.values() if target.vendor == vendor]
    exact = [target for target in makers if part and target.cpu_part == part]
    fitting = exact or [target for target in makers if not code and features and target.features <= features]
    if not fitting:
        return Fact(reason=f"unknown part {part}" if part else "not known from its features")
    return Fact(spell(max(fitting, key=lambda target: (len(target.ancestors), len(target.features))).name))


def spell(name: str) -> str:
    """archspec's name as the vendor writes it: `zen4` is `Zen 4`."""
    if name in SPELLED:
        return SPELLED[name]
    words = re.sub(r"^(zen|power|ampere)(?=\d)", r"\1 ", name.replace("_", " ")).split()
    return " ".join(word.upper() if re.fullmatch(r"[a-z]{1,2}\d\w*|a64fx", word) else word.title() for word in words)


# --- cores ------------------------------------------------------------------------------------------------


def _core_sets(roots: Roots) -> set[frozenset[int]]:
    """The threads of each online physical core, from /sys; empty if it has no such files."""
    pattern = "devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"
    return {threads for path in roots.sys.glob(pattern) if (threads := _cpu_list(path))}


def _cores_by_cpuinfo(blocks: list[dict[str, str]]) -> Fact[int]:
    pairs = {(block.get("physical id"), block["core id"]) for block in blocks if "core id" in block}
    return Fact(len(pairs)) if pairs else Fact(reason="the kernel does not report cores")


def _kind_cores(roots: Roots, kind: str, cores: Iterable[frozenset[int]]) -> int | None:
    """Physical cores of one type in a hybrid processor; None if there is no such type."""
    threads = _cpu_list(roots.sys / "devices" / kind / "cpus")
    if not threads:
        return None
    return sum(1 for core in cores if core <= threads) or len(threads)


def _cpu_list(path: Path) -> frozenset[int]:
    """CPU numbers in a file such as `0-3,8`."""
    numbers: set[int] = set()
    with contextlib.suppress(OSError, ValueError):
        for part in path.read_text().strip().split(","):
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


# --- clocks, caches, instructions -------------------------------------------------------------------------

_CPU = "devices/system/cpu"
_NOT_REPORTED = "not reported by the kernel"
_VIRTUAL = "not visible inside a virtual machine"


def _sockets(roots: Roots, blocks: list[dict[str, str]]) -> Fact[int]:
    """Sockets by /sys, else by /proc/cpuinfo. Arm kernels number them -1 if the firmware does not report them."""
    texts = {_text(path) for path in roots.sys.glob(f"{_CPU}/cpu[0-9]*/topology/physical_package_id")}
    texts = texts or {block.get("physical id", "") for block in blocks}
    numbers = {text for text in texts if text.isdigit()}
    return Fact(len(numbers)) if numbers else Fact(reason=_NOT_REPORTED)


def _clocks(roots: Roots, block: dict[str, str]) -> tuple[Fact[float], Fact[float]]:
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


def _vectors(block: dict[str, str]) -> Fact[tuple[str, ...]]:
    text = block.get("flags") or block.get("Features")
    return Fact(vector_instructions(set(text.split()))) if text else Fact(reason="/proc/cpuinfo lists no features")


def _caches(roots: Roots) -> Fact[tuple[Cache, ...]]:
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
