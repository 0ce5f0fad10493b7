"""Identifies Arm processors by implementer and part number, and names the board. Never imports torch.

The kernel's `ARMv8 Processor rev 1 (v8l)` is filler, no model. A hypervisor can hide the part (Apple's 0x000).
"""

from __future__ import annotations

from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.cpu.cpuinfo import Block, CpuInfo, number_of
from epochtop.engine.hardware.facts import Fact

IMPLEMENTERS = {
    0x41: "Arm", 0x42: "Broadcom", 0x43: "Cavium", 0x44: "DEC", 0x46: "Fujitsu", 0x48: "HiSilicon", 0x49: "Infineon",
    0x4D: "Freescale", 0x4E: "NVIDIA", 0x50: "Applied Micro", 0x51: "Qualcomm", 0x53: "Samsung", 0x56: "Marvell",
    0x61: "Apple", 0x66: "Faraday", 0x69: "Intel", 0x6D: "Microsoft", 0x70: "Phytium", 0xC0: "Ampere",
}  # fmt: skip
"""Codes of MIDR_EL1: Linux, arch/arm64/include/asm/cputype.h; util-linux, sys-utils/lscpu-arm.c."""

PARTS: dict[int, dict[int, str]] = {
    0x41: {
        0xB02: "ARM11 MPCore", 0xB36: "ARM1136", 0xB56: "ARM1156", 0xB76: "ARM1176", 0xC05: "Cortex-A5",
        0xC07: "Cortex-A7", 0xC08: "Cortex-A8", 0xC09: "Cortex-A9", 0xC0D: "Cortex-A17", 0xC0E: "Cortex-A17",
        0xC0F: "Cortex-A15", 0xD01: "Cortex-A32", 0xD02: "Cortex-A34", 0xD03: "Cortex-A53", 0xD04: "Cortex-A35",
        0xD05: "Cortex-A55", 0xD06: "Cortex-A65", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73",
        0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse N1", 0xD0D: "Cortex-A77", 0xD0E: "Cortex-A76AE",
        0xD40: "Neoverse V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD43: "Cortex-A65AE", 0xD44: "Cortex-X1",
        0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse N2", 0xD4A: "Neoverse E1",
        0xD4B: "Cortex-A78C", 0xD4C: "Cortex-X1C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse V2",
        0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4", 0xD83: "Neoverse V3AE", 0xD84: "Neoverse V3",
        0xD85: "Cortex-X925", 0xD87: "Cortex-A725", 0xD88: "Cortex-A520AE", 0xD89: "Cortex-A720AE", 0xD8A: "C1-Nano",
        0xD8B: "C1-Pro", 0xD8C: "C1-Ultra", 0xD8E: "Neoverse N3", 0xD8F: "Cortex-A320", 0xD90: "C1-Premium",
    },
    0x42: {0x0F: "Brahma-B15", 0x100: "Brahma-B53", 0x516: "ThunderX2"},
    0x43: {
        0x0A0: "ThunderX", 0x0A1: "ThunderX 88XX", 0x0A2: "ThunderX 81XX", 0x0A3: "ThunderX 83XX",
        0x0AF: "ThunderX2", 0x0B0: "OcteonTX2", 0x0B1: "OcteonTX2 98XX", 0x0B2: "OcteonTX2 96XX",
        0x0B3: "OcteonTX2 95XX", 0x0B4: "OcteonTX2 95XXN", 0x0B5: "OcteonTX2 95XXMM", 0x0B6: "OcteonTX2 95XXO",
        0x0B8: "ThunderX3",
    },
    0x46: {0x001: "A64FX", 0x003: "Monaka"},
    0x48: {0xD01: "TaiShan v110 (Kunpeng 920)", 0xD02: "TaiShan v120", 0xD40: "Cortex-A76", 0xD41: "Cortex-A77"},
    0x4E: {0x000: "Denver", 0x003: "Denver 2", 0x004: "Carmel", 0x010: "Olympus"},
    0x50: {0x000: "X-Gene"},
    0x51: {
        0x001: "Oryon", 0x00F: "Scorpion", 0x02D: "Scorpion", 0x04D: "Krait", 0x06F: "Krait", 0x201: "Kryo",
        0x205: "Kryo", 0x211: "Kryo", 0x800: "Kryo 2xx Gold or Falkor V1", 0x801: "Kryo 2xx Silver",
        0x802: "Kryo 3xx Gold", 0x803: "Kryo 3xx Silver", 0x804: "Kryo 4xx Gold", 0x805: "Kryo 4xx Silver",
        0xC00: "Falkor", 0xC01: "Saphira",
    },
    0x53: {0x001: "Exynos M1", 0x002: "Exynos M3", 0x003: "Exynos M4", 0x004: "Exynos M5"},
    0x56: {0x131: "Feroceon 88FR131", 0x581: "PJ4", 0x584: "PJ4B-MP"},
    0x61: {
        0x020: "Icestorm (A14)", 0x021: "Firestorm (A14)", 0x022: "Icestorm (M1)", 0x023: "Firestorm (M1)",
        0x024: "Icestorm (M1 Pro)", 0x025: "Firestorm (M1 Pro)", 0x028: "Icestorm (M1 Max or Ultra)",
        0x029: "Firestorm (M1 Max or Ultra)", 0x030: "Blizzard (A15)", 0x031: "Avalanche (A15)",
        0x032: "Blizzard (M2)", 0x033: "Avalanche (M2)", 0x034: "Blizzard (M2 Pro)", 0x035: "Avalanche (M2 Pro)",
        0x036: "Sawtooth (A16)", 0x037: "Everest (A16)", 0x038: "Blizzard (M2 Max or Ultra)",
        0x039: "Avalanche (M2 Max or Ultra)", 0x048: "Sawtooth (M3 Max)", 0x049: "Everest (M3 Max)",
    },
    0x6D: {0xD49: "Neoverse N2 (Azure Cobalt 100)"},
    0x70: {
        0x303: "FTC310", 0x660: "FTC660", 0x661: "FTC661", 0x662: "FTC662", 0x663: "FTC663", 0x664: "FTC664",
        0x862: "FTC862",
    },
    0xC0: {0xAC3: "Ampere-1", 0xAC4: "Ampere-1A"},
}  # fmt: skip
"""Designs by implementer and part. Sources: util-linux, sys-utils/lscpu-arm.c; Linux, arch/arm64/include/asm/cputype.h
(M1 and M2 parts, Olympus, Cobalt); Arm's technical reference manuals. libcpuid, recog_arm.c, has 126 of them likewise."""


def is_arm(block: Block) -> bool:
    """Whether a CPU reports Arm's identification register."""
    return "cpu implementer" in block


def vendor(block: Block) -> Fact[str]:
    """The implementer of the core, which is Arm where a vendor uses Arm's design."""
    code = number_of(block.get("cpu implementer", ""))
    name = IMPLEMENTERS.get(code)
    return Fact(name) if name else Fact(reason=f"unknown implementer {block.get('cpu implementer', '')}")


def part_name(block: Block) -> Fact[str]:
    """The design of one core."""
    implementer, part = number_of(block.get("cpu implementer", "")), number_of(block.get("cpu part", ""))
    if implementer == 0x61 and part == 0:
        return Fact(
            reason="masked by the hypervisor: Apple silicon, of which the virtual machine does not see the model"
        )
    name = PARTS.get(implementer, {}).get(part)
    return Fact(name) if name else Fact(reason=f"unknown part {block.get('cpu part', '')}".strip())


def board(roots: Roots, info: CpuInfo) -> str:
    """The board by the `Model` line, the device tree or DMI: `Raspberry Pi 5 Model B Rev 1.0`; empty if unknown."""
    if name := info.common.get("model", ""):
        return name
    paths = (
        roots.proc / "device-tree/model",
        roots.sys / "firmware/devicetree/base/model",
        roots.sys / "devices/virtual/dmi/id/product_name",
    )
    for path in paths:
        try:
            if text := path.read_text(errors="replace").strip("\0\n "):
                return text
        except OSError:
            continue
    return info.common.get("hardware", "")
