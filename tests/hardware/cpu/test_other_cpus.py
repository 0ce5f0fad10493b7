"""Processors that are not x86, by /proc/cpuinfo as people posted it, shortened to what the code reads.

Sources: the kernels' own formats (arch/*/kernel) and files posted for these machines in issues, forums and test suites
(util-linux, pytorch/cpuinfo, avocado, hwloc). Designs: util-linux, sys-utils/lscpu-arm.c and the vendors' manuals.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.hardware import CoreKind, Cpu, Roots
from epochtop.engine.hardware.cpu.identify import identify_cpu
from epochtop.engine.hardware.cpu.macos import identify_by_sysctl


def identified(folder: Path, text: str, model: str = "") -> Cpu:
    roots = Roots(folder / "proc", folder / "sys")
    roots.proc.mkdir(parents=True)
    (roots.proc / "cpuinfo").write_text(text)
    if model:
        (roots.proc / "device-tree").mkdir()
        (roots.proc / "device-tree/model").write_text(f"{model}\0")
    return identify_cpu(roots)


def arm(*parts: tuple[int, int, int], tail: str = "", name: str = "") -> str:
    """Blocks of (implementer, part, number of CPUs)."""
    blocks, number = [], 0
    for implementer, part, count in parts:
        for _ in range(count):
            model = f"model name\t: {name}\n" if name else ""
            blocks.append(
                f"processor\t: {number}\n{model}BogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
                f"CPU implementer\t: {implementer:#04x}\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part:#05x}\n"
            )
            number += 1
    return "\n".join(blocks) + tail


FILLER = "ARMv8 Processor rev 1 (v8l)"

ARM = [
    ("DGX Spark", arm((0x41, 0xD87, 10), (0x41, 0xD85, 10)), "Arm", "Cortex-A725 + Cortex-X925", 20),
    ("Jetson AGX Orin", arm((0x41, 0xD42, 12), name=FILLER), "Arm", "Cortex-A78AE", 12),
    ("Jetson Xavier NX", arm((0x4E, 0x004, 6), name="ARMv8 Processor rev 0 (v8l)"), "NVIDIA", "Carmel", 6),
    ("Jetson Nano", arm((0x41, 0xD07, 4), name=FILLER), "Arm", "Cortex-A57", 4),
    ("Jetson TX2", arm((0x4E, 0x003, 2), (0x41, 0xD07, 4)), "NVIDIA", "Denver 2 + Cortex-A57", 6),
    ("Grace", arm((0x41, 0xD4F, 72)), "Arm", "Neoverse V2", 72),
    ("Graviton 2", arm((0x41, 0xD0C, 4)), "Arm", "Neoverse N1", 4),
    ("Graviton 3", arm((0x41, 0xD40, 4)), "Arm", "Neoverse V1", 4),
    ("Graviton 5", arm((0x41, 0xD84, 8)), "Arm", "Neoverse V3", 8),
    ("Neoverse N3", arm((0x41, 0xD8E, 8)), "Arm", "Neoverse N3", 8),
    ("Cobalt 100", arm((0x6D, 0xD49, 4)), "Microsoft", "Neoverse N2 (Azure Cobalt 100)", 4),
    ("Ampere Altra", arm((0x41, 0xD0C, 80)), "Arm", "Neoverse N1", 80),
    ("AmpereOne", arm((0xC0, 0xAC3, 16)), "Ampere", "Ampere-1", 16),
    ("Kunpeng 920", arm((0x48, 0xD01, 48)), "HiSilicon", "TaiShan v110 (Kunpeng 920)", 48),
    ("Kunpeng, next", arm((0x48, 0xD02, 16)), "HiSilicon", "TaiShan v120", 16),
    ("Phytium S2500", arm((0x70, 0x663, 64)), "Phytium", "FTC663", 64),
    ("Phytium D3000", arm((0x70, 0x862, 8)), "Phytium", "FTC862", 8),
    ("Phytium E2000Q", arm((0x70, 0x664, 2), (0x70, 0x303, 2)), "Phytium", "FTC664 + FTC310", 4),
    ("Snapdragon X Elite", arm((0x51, 0x001, 12)), "Qualcomm", "Oryon", 12),
    ("Snapdragon 845", arm((0x51, 0x803, 4), (0x51, 0x802, 4)), "Qualcomm", "Kryo 3xx Silver + Kryo 3xx Gold", 8),
    ("Snapdragon 8cx Gen 3", arm((0x41, 0xD4B, 4), (0x41, 0xD4C, 4)), "Arm", "Cortex-A78C + Cortex-X1C", 8),
    ("RK3588", arm((0x41, 0xD05, 4), (0x41, 0xD0B, 4)), "Arm", "Cortex-A55 + Cortex-A76", 8),
    ("RK3399", arm((0x41, 0xD03, 4), (0x41, 0xD08, 2)), "Arm", "Cortex-A53 + Cortex-A72", 6),
    ("M1, Asahi", arm((0x61, 0x022, 4), (0x61, 0x023, 4)), "Apple", "Icestorm (M1) + Firestorm (M1)", 8),
    ("M1 Pro, Asahi", arm((0x61, 0x024, 2), (0x61, 0x025, 8)), "Apple", "Icestorm (M1 Pro) + Firestorm (M1 Pro)", 10),
    ("M2, Asahi", arm((0x61, 0x032, 4), (0x61, 0x033, 4)), "Apple", "Blizzard (M2) + Avalanche (M2)", 8),
    ("M2 Ultra, Asahi", arm((0x61, 0x038, 8), (0x61, 0x039, 16)), "Apple",
     "Blizzard (M2 Max or Ultra) + Avalanche (M2 Max or Ultra)", 24),
    ("A64FX", arm((0x46, 0x001, 48)), "Fujitsu", "A64FX", 48),
    ("ThunderX2", arm((0x43, 0x0AF, 224)), "Cavium", "ThunderX2", 224),
    ("Vera", arm((0x4E, 0x010, 88)), "NVIDIA", "Olympus", 88),
]  # fmt: skip


@pytest.mark.parametrize(("text", "vendor", "design", "threads"), [row[1:] for row in ARM], ids=[row[0] for row in ARM])
def test_arm_processors(tmp_path: Path, text: str, vendor: str, design: str, threads: int) -> None:
    cpu = identified(tmp_path, text)
    assert (cpu.vendor.value, cpu.microarchitecture.value, cpu.threads) == (vendor, design, threads)
    assert cpu.model.value == f"{vendor} {design}"  # never the kernel's filler


def test_the_kinds_of_cores_are_counted_and_the_fastest_comes_first(tmp_path: Path) -> None:
    roots = Roots(tmp_path / "proc", tmp_path / "sys")
    for number in range(20):
        folder = roots.sys / f"devices/system/cpu/cpu{number}"
        folder.mkdir(parents=True)
        (folder / "cpu_capacity").write_text("718\n" if number < 10 else "1024\n")
    cpu = identified(tmp_path, arm((0x41, 0xD87, 10), (0x41, 0xD85, 10)))
    assert cpu.core_kinds == (CoreKind("Cortex-X925", 10), CoreKind("Cortex-A725", 10))
    assert cpu.generation.value == "Armv9.2"


def test_apple_silicon_in_a_virtual_machine(tmp_path: Path) -> None:
    cpu = identified(tmp_path, arm((0x61, 0x000, 8)))
    assert (cpu.vendor.value, cpu.model.value, cpu.microarchitecture.value) == ("Apple", "Apple silicon", None)
    assert "masked by the hypervisor" in cpu.microarchitecture.reason


@pytest.mark.parametrize(
    ("text", "tree", "board"),
    [
        (arm((0x41, 0xD0B, 4), tail="\nRevision\t: d04170\nSerial\t\t: 1\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"), "",
         "Raspberry Pi 5 Model B Rev 1.0"),
        (arm((0x41, 0xD03, 4), tail="\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 3 Model B Plus Rev 1.3\n"), "",
         "Raspberry Pi 3 Model B Plus Rev 1.3"),
        (arm((0x41, 0xD05, 4), (0x41, 0xD0B, 4)), "Orange Pi 5 Plus", "Orange Pi 5 Plus"),
        (arm((0x41, 0xD42, 8)), "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
         "NVIDIA Jetson Orin NX Engineering Reference Developer Kit"),
        (arm((0x41, 0xD03, 4), tail="\nHardware\t: Amlogic\n"), "", "Amlogic"),
    ],
)  # fmt: skip
def test_the_board(tmp_path: Path, text: str, tree: str, board: str) -> None:
    assert identified(tmp_path, text, tree).board.value == board


def test_clusters_are_not_sockets(tmp_path: Path) -> None:
    roots = Roots(tmp_path / "proc", tmp_path / "sys")
    for number in range(8):
        folder = roots.sys / f"devices/system/cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{number // 4}\n")
    text = arm((0x51, 0x803, 4), (0x51, 0x802, 4))
    assert identified(tmp_path, text, "Google Pixel 3").sockets.value == 1
    (roots.proc / "device-tree/model").unlink()
    (roots.proc / "device-tree").rmdir()
    assert identify_cpu(roots).sockets.reason == "the kernel reports clusters only"
    (roots.sys / "firmware/acpi/tables").mkdir(parents=True)
    (roots.sys / "firmware/acpi/tables/PPTT").touch()
    assert identify_cpu(roots).sockets.value == 2  # an Arm server with two sockets


PI_1 = """Processor\t: ARMv6-compatible processor rev 7 (v6l)
BogoMIPS\t: 697.95
Features\t: swp half thumb fastmult vfp edsp java tls
CPU implementer\t: 0x41
CPU architecture: 7
CPU variant\t: 0x0
CPU part\t: 0xb76
CPU revision\t: 7

Hardware\t: BCM2708
Revision\t: 0002
Serial\t\t: 00000000
"""


def test_a_file_without_a_numbered_processor_is_read(tmp_path: Path) -> None:
    cpu = identified(tmp_path, PI_1)  # not the way of macOS
    assert (cpu.vendor.value, cpu.microarchitecture.value, cpu.threads) == ("Arm", "ARM1176", 1)
    assert cpu.board.value == "BCM2708"


Z15 = """vendor_id       : IBM/S390
# processors    : 12
bogomips per cpu: 13370.00
max thread id   : 0
features\t: esan3 zarch stfle msa ldisp eimm dfp edat vx vxd vxe
processor 0: version = 00,  identification = 000000,  machine = {0}
processor 1: version = 00,  identification = 100000,  machine = {0}

cpu number      : 0
version         : 00
machine         : {0}
"""
LOONGARCH = """system type\t\t: generic-loongson-machine

processor\t\t: 0
package\t\t\t: 0
core\t\t\t: 0
CPU Family\t\t: Loongson-64bit
Model Name\t\t: {0}
Features\t\t: cpucfg lam ual fpu lsx lasx crc32 lvz
"""
RISCV = "processor\t: 0\nhart\t\t: 1\nisa\t\t: {0}\nmmu\t\t: sv39\nuarch\t\t: {1}\nmvendorid\t: {2}\n"
POWER = "processor\t: 0\ncpu\t\t: {0}\nclock\t\t: 3800.0MHz\nrevision\t: 2.2\n\ntimebase\t: 512000000\nplatform\t: PowerNV\nmodel\t\t: 8335-GTH\n"
SPARC = "cpu\t\t: UltraSparc T5 (Niagara5)\nfpu\t\t: UltraSparc T5 integrated FPU\nncpus probed\t: 128\nncpus active\t: 120\n"


@pytest.mark.parametrize(
    ("text", "vendor", "design", "model", "threads"),
    [
        (Z15.format("8561"), "IBM", "z15", "IBM z15 (8561)", 12),
        (Z15.format("2964"), "IBM", "z13", "IBM z13 (2964)", 12),
        (Z15.format("3906"), "IBM", "z14", "IBM z14 (3906)", 12),
        (Z15.format("3931"), "IBM", "z16", "IBM z16 (3931)", 12),
        (Z15.format("9999"), "IBM", None, "IBM Z 9999", 12),
        (LOONGARCH.format("Loongson-3A5000-HV"), "Loongson", "LA464", "Loongson-3A5000-HV", 1),
        (LOONGARCH.format("Loongson-3A6000"), "Loongson", "LA664", "Loongson-3A6000", 1),
        (LOONGARCH.format("Loongson-3C5000L"), "Loongson", "LA464", "Loongson-3C5000L", 1),
        (LOONGARCH.format("Loongson-2K1000LA"), "Loongson", "LA264", "Loongson-2K1000LA", 1),
        (LOONGARCH.format("Loongson-9Z"), "Loongson", None, "Loongson-9Z", 1),
        (RISCV.format("rv64imafdc_zicntr_zba_zbb", "sifive,u74-mc", "0x489"), "SiFive", "U74-MC", "SiFive U74-MC", 1),
        (RISCV.format("rv64imafdc", "thead,c910", "0x5b7"), "T-Head", "C910", "T-Head C910", 1),
        (RISCV.format("rv64imafdcv_zicbom", "spacemit,x60", "0x710"), "SpacemiT", "X60", "SpacemiT X60", 1),
        (RISCV.format("rv64imafdcvh_zicbom", "spacemit,x100", "0x710"), "SpacemiT", "X100", "SpacemiT X100", 1),
        (RISCV.format("rv64imafdc", "sifive,bullet0", "0x489"), "SiFive", "BULLET0", "SiFive BULLET0", 1),
        (RISCV.format("rv64imafdch", "", "0x0"), None, None, None, 1),
        (POWER.format("POWER9, altivec supported"), "IBM", "POWER9", "IBM POWER9", 1),
        (POWER.format("POWER10 (architected), altivec supported"), "IBM", "POWER10", "IBM POWER10", 1),
        (POWER.format("POWER8E (raw), altivec supported"), "IBM", "POWER8", "IBM POWER8", 1),
        (POWER.format("POWER7+ (architected), altivec supported"), "IBM", "POWER7+", "IBM POWER7+", 1),
        (POWER.format("PPC970MP, altivec supported"), "IBM", "PPC970MP", "IBM PPC970MP", 1),
        (SPARC, None, None, "UltraSparc T5 (Niagara5)", 120),
    ],
)
def test_other_architectures(
    tmp_path: Path, text: str, vendor: str | None, design: str | None, model: str | None, threads: int
) -> None:
    cpu = identified(tmp_path, text)
    assert (cpu.vendor.value, cpu.microarchitecture.value, cpu.model.value) == (vendor, design, model)
    assert cpu.threads == threads
    for fact in (cpu.vendor, cpu.microarchitecture, cpu.model):
        assert fact.value or fact.reason


@pytest.mark.parametrize(
    ("text", "vectors"),
    [
        (LOONGARCH.format("Loongson-3A6000"), ("LSX", "LASX")),
        (RISCV.format("rv64imafdcv_zicbom_zve64d", "spacemit,x60", "0x710"), ("RVV 1.0",)),
        (RISCV.format("rv64imafdc_xtheadvector", "thead,c920", "0x5b7"), ("RVV 0.7",)),
        (RISCV.format("rv64imafdc_zve32x_svpbmt", "sifive,u74", "0x489"), ()),
        (POWER.format("POWER9, altivec supported"), ("AltiVec", "VSX")),
        (POWER.format("PPC970MP, altivec supported"), ("AltiVec",)),
        (Z15.format("8561"), ("Vector facility",)),
    ],
)
def test_their_vector_instructions(tmp_path: Path, text: str, vectors: tuple[str, ...]) -> None:
    assert identified(tmp_path, text).vector_instructions.value == vectors


def test_rosetta_on_a_mac() -> None:
    answers = {
        "machdep.cpu.brand_string": "VirtualApple @ 2.50GHz processor",
        "hw.physicalcpu": "8",
        "hw.logicalcpu": "8",
    }
    cpu = identify_by_sysctl(lambda name: answers.get(name, ""))
    assert cpu.vendor.value == "Apple"
    assert "install a Python for arm64" in cpu.advice
