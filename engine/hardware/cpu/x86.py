"""Identifies x86 processors by vendor, family, model and stepping. Never imports torch.

The tables list what their sources list; a model that is not listed stays unknown. Features never name a design: a
hypervisor can hide any of them, and every later design has those of the earlier ones.
"""

from __future__ import annotations

import re

from epochtop.engine.hardware.cpu.cpuinfo import Block
from epochtop.engine.hardware.cpu.intel import by_numbers, in_qemus_name
from epochtop.engine.hardware.cpu.names import BEHIND_ROSETTA
from epochtop.engine.hardware.facts import Fact

VENDORS = {
    "AuthenticAMD": "AMD",
    "GenuineIntel": "Intel",
    "HygonGenuine": "Hygon",
    "CentaurHauls": "VIA",
    "Shanghai": "Zhaoxin",
    "VirtualApple": "Apple",
}
"""CPUID vendor strings: Linux, arch/x86/kernel/cpu. Apple's is Rosetta's."""

AMD_DESIGNS: tuple[tuple[int, str, tuple[tuple[int, int], ...]], ...] = (
    (0x0F, "K8", ((0x00, 0xFF),)),
    (0x10, "K10", ((0x00, 0x0F),)),
    (0x11, "K8 (Griffin)", ((0x03, 0x03),)),
    (0x12, "K10 (Llano)", ((0x00, 0x01),)),
    (0x14, "Bobcat", ((0x00, 0x0F),)),
    (0x15, "Bulldozer", ((0x00, 0x01),)),
    (0x15, "Piledriver", ((0x02, 0x02), (0x10, 0x1F))),
    (0x15, "Steamroller", ((0x30, 0x3F),)),
    (0x15, "Excavator", ((0x60, 0x7F),)),
    (0x16, "Jaguar", ((0x00, 0x0F), (0x20, 0x2F))),
    (0x16, "Puma", ((0x30, 0x3F),)),
    (0x17, "Zen+", ((0x08, 0x08), (0x18, 0x18))),
    (0x17, "Zen", ((0x00, 0x07), (0x10, 0x17), (0x20, 0x2F), (0x50, 0x5F))),
    (0x17, "Zen 2", ((0x30, 0x4F), (0x60, 0x7F), (0x84, 0x87), (0x90, 0x91), (0x98, 0x98), (0xA0, 0xAF))),
    (0x19, "Zen 3", ((0x00, 0x0F), (0x20, 0x5F))),
    (0x19, "Zen 4", ((0x10, 0x1F), (0x60, 0xAF))),
    (0x1A, "Zen 5", ((0x00, 0x2F), (0x40, 0x4F), (0x60, 0x7F))),
    (0x1A, "Zen 6", ((0x50, 0x5F), (0x80, 0xAF), (0xC0, 0xCF))),
)
"""Family, design, ranges of models. Sources: Linux, arch/x86/kernel/cpu/amd.c (Zen) and AMD's revision guides of each
family; CPUID dumps of the Kaveri, Carrizo, Pinnacle Ridge and Picasso parts for the ranges within a family."""

_HYGON = {0x00: "Zen", 0x01: "Zen"}
"""Hygon's family 0x18: Dhyana, under AMD's license (cpu_features, GetX86Microarchitecture). Its later designs are not
published."""
_ZHAOXIN = {0x1B: "Wudaokou", 0x3B: "Lujiazui", 0x5B: "Yongfeng", 0x6B: "Shijidadao"}
"""Family 7: GCC, gcc/common/config/i386/cpuinfo.h."""

_LEVELS = (
    ("x86-64-v4", "AVX-512", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3", "AVX2", {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}),
    ("x86-64-v2", "SSE4.2", {"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
)
"""Level, its widest instructions, flags that it requires: x86-64 psABI, "Micro-Architecture Levels"; Linux's flag names."""
_WITH_AMX = ("Sapphire Rapids", "Emerald Rapids", "Granite Rapids", "Diamond Rapids")
"""Designs with AMX: Intel, Architecture Instruction Set Extensions Programming Reference."""
_MASKED = re.compile(r"QEMU Virtual CPU|Common (32-bit )?KVM processor|\b(qemu|kvm)(32|64)\b", re.IGNORECASE)
"""Model names of QEMU's generic processors, whose family and model are those of decades-old ones."""


def is_x86(block: Block) -> bool:
    """Whether a CPU has x86's fields."""
    return "flags" in block or block.get("vendor_id") in VENDORS


def vendor(block: Block) -> Fact[str]:
    """The vendor's name by the CPUID vendor string."""
    code = block.get("vendor_id", "")
    if not code:
        return Fact(reason="/proc/cpuinfo names no vendor")
    is_zhaoxin = block.get("cpu family") == "7" or "ZHAOXIN" in block.get("model name", "")
    if code == "CentaurHauls" and is_zhaoxin:
        return Fact("Zhaoxin")  # VIA's partner, which kept the string
    return Fact(VENDORS.get(code, code))


def microarchitecture(block: Block) -> Fact[str]:
    """The design by QEMU's name for it or by the CPUID numbers; a reason with the level of the features otherwise."""
    numbers = [int(text) if (text := block.get(key, "")).isdigit() else -1 for key in ("cpu family", "model")]
    stepping = int(text) if (text := block.get("stepping", "")).isdigit() else 0
    name, is_virtual = block.get("model name", ""), "hypervisor" in _flags(block)
    if design := in_qemus_name(name):
        return Fact(design)
    if block.get("vendor_id") == "VirtualApple":
        return Fact(reason=BEHIND_ROSETTA)
    if _MASKED.search(name):
        return Fact(reason=f"masked by the hypervisor{_features_note(block)}")
    if design := _by_numbers(block.get("vendor_id", ""), numbers[0], numbers[1], stepping, name):
        if "amx_tile" in _flags(block) and design not in _WITH_AMX:
            cause = f"the hypervisor reports the numbers of {design}, which has no AMX"
            return Fact(reason=f"masked by the hypervisor: {cause}{_features_note(block)}")
        return Fact(design)
    if numbers[0] < 0 or numbers[1] < 0:
        return Fact(reason=f"the kernel reports no family and model{_features_note(block)}")
    cause = "masked by the hypervisor, or newer than the table" if is_virtual else "not in the table"
    return Fact(reason=f"family {numbers[0]}, model {numbers[1]}: {cause}{_features_note(block)}")


def _by_numbers(code: str, family: int, model: int, stepping: int, name: str) -> str | None:
    if code == "GenuineIntel":
        return by_numbers(family, model, stepping, name)
    if code == "AuthenticAMD":
        for table_family, design, ranges in AMD_DESIGNS:
            if table_family == family and any(low <= model <= high for low, high in ranges):
                return design
    if code == "HygonGenuine" and family == 0x18:
        return _HYGON.get(model)
    return _ZHAOXIN.get(model) if code in ("CentaurHauls", "Shanghai") and family == 7 else None


def _flags(block: Block) -> set[str]:
    return set(block.get("flags", "").split())


def _features_note(block: Block) -> str:
    flags = _flags(block)
    for level, widest, required in _LEVELS:
        if required <= flags:
            return f"; its features are those of {level} ({widest})"
    return "; its features are older than x86-64-v2" if flags else ""
