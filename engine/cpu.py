"""Which processor this is, from what the kernel tells.

Virtual machines mask names ("AMD EPYC"), Arm says two numbers, so family and model decide, then archspec's
feature sets. Never py-cpuinfo, whose call costs a second. Must not need a GPU, torch or Textual.
"""

from __future__ import annotations

import contextlib
import platform
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.cgroup import Roots
from engine.facts import Cpu, Fact

_VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel", "HygonGenuine": "Hygon", "CentaurHauls": "Zhaoxin"}

_AMD_MODELS = (
    (0x17, "Zen", ((0x00, 0x2F), (0x50, 0x5F))),
    (0x17, "Zen 2", ((0x30, 0x4F), (0x60, 0x7F), (0x90, 0x91), (0xA0, 0xAF))),
    (0x18, "Zen", ((0x00, 0xFF),)),  # Hygon
    (0x19, "Zen 3", ((0x00, 0x0F), (0x20, 0x5F))),
    (0x19, "Zen 4", ((0x10, 0x1F), (0x60, 0xAF))),
    (0x1A, "Zen 5", ((0x00, 0x2F), (0x40, 0x4F), (0x60, 0x7F))),
    (0x1A, "Zen 6", ((0x50, 0x5F), (0x80, 0xAF), (0xC0, 0xCF))),
)
"""Family, name, ranges of models: as in Linux, arch/x86/kernel/cpu/amd.c."""

_INTEL_MODELS = {
    "Sandy Bridge": (0x2A, 0x2D),
    "Ivy Bridge": (0x3A, 0x3E),
    "Haswell": (0x3C, 0x3F, 0x45, 0x46),
    "Broadwell": (0x3D, 0x47, 0x4F, 0x56),
    "Skylake": (0x4E, 0x5E),
    "Kaby Lake": (0x8E, 0x9E),
    "Comet Lake": (0xA5, 0xA6),
    "Ice Lake": (0x6A, 0x6C, 0x7D, 0x7E),
    "Tiger Lake": (0x8C, 0x8D),
    "Rocket Lake": (0xA7,),
    "Alder Lake": (0x97, 0x9A),
    "Alder Lake-N": (0xBE,),
    "Raptor Lake": (0xB7, 0xBA, 0xBF),
    "Meteor Lake": (0xAA, 0xAC),
    "Lunar Lake": (0xBD,),
    "Arrow Lake": (0xB5, 0xC5, 0xC6),
    "Panther Lake": (0xCC,),
    "Knights Landing": (0x57,),
    "Sapphire Rapids": (0x8F,),
    "Emerald Rapids": (0xCF,),
    "Granite Rapids": (0xAD, 0xAE),
    "Sierra Forest": (0xAF,),
}
"""Models of family 6, as in Linux, arch/x86/include/asm/intel-family.h. Skylake-X is told by its stepping."""

_SPELLED = {"sapphirerapids": "Sapphire Rapids", "cascadelake": "Cascade Lake", "alderlake": "Alder Lake"}


def identify_cpu(roots: Roots = Roots()) -> Cpu:  # noqa: B008 - frozen
    """The processor. Reads /proc/cpuinfo and /sys (under `roots`), or asks sysctl where there is no /proc."""
    blocks = _blocks(roots)
    if not blocks:
        return identify_by_sysctl()
    first = blocks[0]
    cores = _core_sets(roots)
    count = Fact(len(cores)) if cores else _cores_by_cpuinfo(blocks)
    vendor = _vendor(first)
    architecture = _microarchitecture(first, vendor)
    performance, efficiency = (_kind_cores(roots, name, cores) for name in ("cpu_core", "cpu_atom"))
    both = performance is not None and efficiency is not None
    return Cpu(
        model=_model(first, vendor, architecture),
        vendor=vendor,
        microarchitecture=architecture,
        cores=count,
        threads=len(blocks),
        performance_cores=performance if both else None,
        efficiency_cores=efficiency if both else None,
    )


def _blocks(roots: Roots) -> list[dict[str, str]]:
    """The blocks of /proc/cpuinfo that describe a CPU; what one block alone says is in the first."""
    blocks: list[dict[str, str]] = []
    extra: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for block in (roots.proc / "cpuinfo").read_text(errors="replace").split("\n\n"):
            pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
            found = {name.strip(): value.strip() for name, _, value in pairs}
            if found.get("processor", "").isdigit():
                blocks.append(found)
            else:
                extra |= found  # Arm and POWER put the board after the CPUs
    if blocks:
        blocks[0] = extra | blocks[0]
    return blocks


def _vendor(block: dict[str, str]) -> Fact[str]:
    if name := block.get("vendor_id"):
        return Fact(_VENDORS.get(name, name))
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


def clean_name(name: str) -> str:
    """A model name without marks, clock and filler: `Intel Core i7-12800HX`."""
    name = re.sub(r"\((R|TM|r|tm)\)", " ", name)
    name = re.sub(r"\s@.*|\b\d+-Core\b|\bProcessor\b|\bCPU\b|^\d+th Gen\b", " ", name)
    return " ".join(name.split())


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
        return next((name for name, models in _INTEL_MODELS.items() if model in models), None)
    if vendor in ("AMD", "Hygon"):
        for known, name, ranges in _AMD_MODELS:
            if known == family and any(low <= model <= high for low, high in ranges):
                return name
    return None


def _by_features(block: dict[str, str]) -> Fact[str]:
    """The best of archspec's targets that this CPU's features and vendor allow; never asks the host itself."""
    from archspec.cpu import TARGETS
    from archspec.cpu.schema import TARGETS_JSON

    code, part = block.get("CPU implementer"), block.get("CPU part", "")
    vendor = TARGETS_JSON["conversions"]["arm_vendors"].get(code) if code else block.get("vendor_id")
    features = set((block.get("flags") or block.get("Features") or "").split())
    makers = [target for target in TARGETS.values() if target.vendor == vendor]
    exact = [target for target in makers if part and target.cpu_part == part]
    fitting = exact or [target for target in makers if not code and features and target.features <= features]
    if not fitting:
        return Fact(reason=f"part {part} is not known" if part else "not known from its features")
    return Fact(spell(max(fitting, key=lambda target: (len(target.ancestors), len(target.features))).name))


def spell(name: str) -> str:
    """archspec's name as its maker writes it: `zen4` is `Zen 4`."""
    if name in _SPELLED:
        return _SPELLED[name]
    words = re.sub(r"^(zen|power|ampere)(?=\d)", r"\1 ", name.replace("_", " ")).split()
    return " ".join(word.upper() if re.fullmatch(r"[a-z]{1,2}\d\w*|a64fx", word) else word.title() for word in words)


# --- cores ------------------------------------------------------------------------------------------------


def _core_sets(roots: Roots) -> set[frozenset[int]]:
    """The threads of each physical core that is online, from /sys; empty where it does not say."""
    pattern = "devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"
    return {threads for path in roots.sys.glob(pattern) if (threads := _cpu_list(path))}


def _cores_by_cpuinfo(blocks: list[dict[str, str]]) -> Fact[int]:
    pairs = {(block.get("physical id"), block["core id"]) for block in blocks if "core id" in block}
    return Fact(len(pairs)) if pairs else Fact(reason="the kernel does not tell cores from threads")


def _kind_cores(roots: Roots, kind: str, cores: Iterable[frozenset[int]]) -> int | None:
    """Physical cores of one kind of a hybrid processor; None where there is no such kind."""
    threads = _cpu_list(roots.sys / "devices" / kind / "cpus")
    if not threads:
        return None
    return sum(1 for core in cores if core <= threads) or len(threads)


def _cpu_list(path: Path) -> frozenset[int]:
    """CPU numbers of a file like `0-3,8`."""
    numbers: set[int] = set()
    with contextlib.suppress(OSError, ValueError):
        for part in path.read_text().strip().split(","):
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


# --- macOS ------------------------------------------------------------------------------------------------


def _sysctl(name: str) -> str:
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=2).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def identify_by_sysctl(ask: Callable[[str], str] = _sysctl) -> Cpu:
    """The processor of a system without /proc; `ask` answers a sysctl name, empty when unknown."""

    def number(name: str) -> int | None:
        text = ask(name)
        return int(text) if text.isdigit() else None

    name, cores = clean_name(ask("machdep.cpu.brand_string")), number("hw.physicalcpu")
    apple = name.startswith("Apple ")
    hybrid = apple and number("hw.nperflevels") == 2
    return Cpu(
        model=Fact(name) if name else Fact(platform.machine() or None, "the system names no model"),
        vendor=Fact("Apple") if apple else Fact(reason="the system names no vendor"),
        microarchitecture=Fact(name.removeprefix("Apple ")) if apple else Fact(reason="not told by the system"),
        cores=Fact(cores) if cores else Fact(reason="not told by the system"),
        threads=number("hw.logicalcpu") or 1,
        performance_cores=number("hw.perflevel0.physicalcpu") if hybrid else None,
        efficiency_cores=number("hw.perflevel1.physicalcpu") if hybrid else None,
    )
