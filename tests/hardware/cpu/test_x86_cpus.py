"""What x86 processors are, by their numbers and names, against a list of real ones and of QEMU's."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.hardware import Roots
from epochtop.engine.hardware.cpu import x86
from epochtop.engine.hardware.cpu.generations import generation
from epochtop.engine.hardware.cpu.identify import identify_cpu
from epochtop.engine.hardware.cpu.names import clean_name

LINES = (Path(__file__).parents[2] / "fixtures" / "x86_cpus.txt").read_text().splitlines()
CPUS = [line.split("|") for line in LINES if not line.startswith("#")]


def cpuinfo(folder: Path, text: str) -> Roots:
    roots = Roots(folder / "proc", folder / "sys")
    roots.proc.mkdir(parents=True)
    (roots.proc / "cpuinfo").write_text(text)
    return roots


def a_block(vendor: str, family: int, model: int, stepping: int, name: str, flags: str = "fpu") -> str:
    return (
        f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n"
        f"model name\t: {name}\nstepping\t: {stepping}\nflags\t\t: {flags}\n\n"
    )


def test_the_list_is_long_and_covers_every_design_since_2006() -> None:
    assert len(CPUS) > 300
    assert len({cpu[6] for cpu in CPUS}) > 60


def test_every_real_processor_is_right_or_unknown() -> None:
    wrong = []
    for vendor, family, model, stepping, name, _, design, line in CPUS:
        block = {
            "vendor_id": vendor, "cpu family": family, "model": model, "stepping": stepping, "model name": name,
        }  # fmt: skip
        architecture = x86.microarchitecture(block)
        generation_ = generation(clean_name(name), x86.vendor(block).value, architecture.value)
        if (architecture.value or "-", generation_ or "-") != (design, line):
            wrong.append((name, architecture, generation_))
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "numbers", "design"),
    [
        ("Intel Xeon Processor (Icelake)", (6, 134, 0), "Ice Lake"),
        ("Intel Atom Processor (SnowRidge)", (6, 134, 1), "Tremont"),
        ("Intel Xeon Processor (Cascadelake)", (6, 85, 6), "Cascade Lake"),
        ("Intel Xeon Processor (Skylake, IBRS, no TSX)", (6, 85, 4), "Skylake"),
        ("Intel Core Processor (Haswell, no TSX, IBRS)", (6, 60, 1), "Haswell"),
        ("Intel Core Processor (Broadwell)", (6, 61, 2), "Broadwell"),
        ("Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)", (6, 58, 9), "Ivy Bridge"),
        ("Intel Xeon E312xx (Sandy Bridge)", (6, 42, 1), "Sandy Bridge"),
        ("Westmere E56xx/L56xx/X56xx (Nehalem-C)", (6, 44, 1), "Westmere"),
        ("Intel Core i7 9xx (Nehalem Class Core i7)", (6, 26, 3), "Nehalem"),
        ("Intel Celeron_4x0 (Conroe/Merom Class Core 2)", (6, 15, 3), "Core (Merom)"),
        ("Intel Core 2 Duo P9xxx (Penryn Class Core 2)", (6, 23, 3), "Core (Penryn)"),
        ("Intel Xeon Processor (SapphireRapids)", (6, 143, 4), "Sapphire Rapids"),
        ("Intel Atom Processor (Denverton)", (6, 95, 1), "Goldmont"),
        ("Intel Xeon Processor (Cooperlake)", (6, 85, 10), "Cooper Lake"),
    ],
)
def test_qemus_models(tmp_path: Path, name: str, numbers: tuple[int, int, int], design: str) -> None:
    cpu = identify_cpu(cpuinfo(tmp_path, a_block("GenuineIntel", *numbers, name, "fpu hypervisor")))
    assert cpu.microarchitecture.value == design


AVX2 = "cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave hypervisor"


@pytest.mark.parametrize(
    ("vendor", "numbers", "name", "flags", "note"),
    [
        ("GenuineIntel", (6, 6, 3), "QEMU Virtual CPU version 2.5+", "sse sse2 pni cx16 hypervisor", "older than x86-64-v2"),
        ("AuthenticAMD", (15, 107, 1), "QEMU Virtual CPU version 2.5+", AVX2, "x86-64-v3 (AVX2)"),
        ("AuthenticAMD", (6, 6, 3), "QEMU Virtual CPU version 1.0", "sse sse2 hypervisor", "older than x86-64-v2"),
        ("GenuineIntel", (15, 6, 1), "Common KVM processor", "sse sse2 pni hypervisor", "older than x86-64-v2"),
        ("AuthenticAMD", (15, 6, 1), "Common KVM processor", AVX2, "x86-64-v3 (AVX2)"),
        ("GenuineIntel", (15, 6, 1), "Common 32-bit KVM processor", "sse hypervisor", "older than x86-64-v2"),
        ("GenuineIntel", (6, 255, 0), "Intel(R) Xeon(R) Processor", AVX2, "x86-64-v3 (AVX2)"),
        ("GenuineIntel", (18, 9, 0), "Intel(R) Core(TM) Something", AVX2, "x86-64-v3 (AVX2)"),
        ("AuthenticAMD", (27, 2, 0), "AMD EPYC Processor", AVX2, "x86-64-v3 (AVX2)"),
        ("GenuineIntel", (6, 250, 1), "Intel Processor", "cx16 popcnt ssse3 sse4_1 sse4_2 hypervisor", "x86-64-v2 (SSE4.2)"),
        ("GenuineIntel", (6, 251, 1), "Intel Processor", f"{AVX2} avx512f avx512bw avx512cd avx512dq avx512vl", "x86-64-v4 (AVX-512)"),
    ],
)  # fmt: skip
def test_a_masked_processor_is_not_taken_for_an_old_one(
    tmp_path: Path, vendor: str, numbers: tuple[int, int, int], name: str, flags: str, note: str
) -> None:
    architecture = identify_cpu(cpuinfo(tmp_path, a_block(vendor, *numbers, name, flags))).microarchitecture
    assert architecture.value is None
    assert "masked by the hypervisor" in architecture.reason
    assert note in architecture.reason


def test_a_new_model_of_a_real_machine_is_not_called_masked(tmp_path: Path) -> None:
    reason = identify_cpu(cpuinfo(tmp_path, a_block("GenuineIntel", 19, 7, 0, "Intel", "fpu"))).microarchitecture.reason
    assert reason == "family 19, model 7: not in the table; its features are older than x86-64-v2"


@pytest.mark.parametrize(("family", "model", "design"), [(18, 1, "Nova Lake"), (18, 3, "Nova Lake"), (19, 1, "Diamond Rapids"),
    (6, 0xD5, "Wildcat Lake"), (6, 0xDD, "Clearwater Forest"), (6, 0xB6, "Grand Ridge"), (6, 0xE5, "Panther Lake"),
    (6, 0xD7, "Bartlett Lake"), (6, 0x75, "Airmont"), (6, 0x9D, "Ice Lake"), (6, 0x85, "Knights Mill")])  # fmt: skip
def test_the_kernels_list_of_models(tmp_path: Path, family: int, model: int, design: str) -> None:
    """Linux, arch/x86/include/asm/intel-family.h."""
    cpu = identify_cpu(cpuinfo(tmp_path, a_block("GenuineIntel", family, model, 0, "Intel")))
    assert cpu.microarchitecture.value == design


@pytest.mark.parametrize(
    ("name", "design", "line"),
    [
        ("Intel Pentium G850", "Sandy Bridge", None),
        ("Intel Celeron G530", "Sandy Bridge", None),
        ("Intel Xeon E3-1275 v6", "Kaby Lake", "Xeon E3 v6"),
        ("Intel Xeon E7-8890 v3", "Haswell", "Xeon E7 v3"),
        ("Intel Xeon E7-4850", "Westmere", "Xeon E7"),
        ("Intel Xeon D-2146NT", "Skylake", "Xeon D-2100"),
        ("Intel Xeon W-2295", "Cascade Lake", "Xeon W"),
        ("Intel Xeon w9-3495X", "Sapphire Rapids", "Xeon W"),
        ("Intel Xeon E-2388G", "Rocket Lake", "Xeon E"),
        ("Intel Xeon Gold 6248R", "Cascade Lake", "2nd generation Xeon Scalable"),
        ("Intel Xeon Platinum 8481C", "Sapphire Rapids", "4th generation Xeon Scalable"),
        ("Intel Xeon 6740P", "Granite Rapids", "Xeon 6 (performance cores)"),
        ("Intel Xeon 6766E", "Sierra Forest", "Xeon 6 (efficiency cores)"),
        ("Intel Xeon", "Haswell", None),
        ("Intel Core 5 120U", "Raptor Lake", "Core series 1"),
        ("Intel Core 9 270H", "Raptor Lake", "Core series 2"),
        ("Intel Core Ultra 5 226V", "Lunar Lake", "2nd generation Core Ultra"),
        ("Intel Core i3-N300", "Alder Lake-N", None),
        ("Intel Core i7-1065G7", "Ice Lake", "10th generation Core"),
        ("Intel Core m5-6Y54", "Skylake", "6th generation Core"),
        ("Intel Core i7 920", "Nehalem", "1st generation Core"),
        ("Intel Core i5 M 520", "Westmere", "1st generation Core"),
    ],
)
def test_intels_lines(name: str, design: str, line: str | None) -> None:
    """Families that the design alone does not tell: Intel's product pages."""
    assert generation(name, "Intel", design) == line


@pytest.mark.parametrize(
    ("name", "design", "line"),
    [
        ("AMD RYZEN AI MAX PRO 390", "Zen 5", "Ryzen AI Max 300 series"),
        ("AMD Ryzen AI 5 340", "Zen 5", "Ryzen AI 300 series"),
        ("AMD Ryzen 7 260", "Zen 4", "Ryzen 200 series"),
        ("AMD Ryzen 5 PRO 220", "Zen 4", "Ryzen 200 series"),
        ("AMD Ryzen Z1 Extreme", "Zen 4", "Ryzen Z1 series"),
        ("AMD Ryzen Z2 Go", "Zen 3", "Ryzen Z2 series"),
        ("AMD Ryzen Embedded R1606G", "Zen", "Ryzen Embedded R1000 series"),
        ("AMD EPYC 4585PX", "Zen 5", "EPYC 4005"),
        ("AMD EPYC 3251", "Zen", None),
        ("AMD EPYC 8534P", "Zen 4", "4th generation EPYC"),
        ("AMD FX-6300", "Piledriver", None),
        ("AMD Opteron 6272", "Bulldozer", None),
    ],
)
def test_amds_lines(name: str, design: str, line: str | None) -> None:
    assert generation(name, "AMD", design) == line


@pytest.mark.parametrize("model", [0xA7, 0x6A, 0x55, 0x4F, 0x8D, 0x97])
def test_numbers_that_the_features_contradict_are_masked(tmp_path: Path, model: int) -> None:
    """A hypervisor that reports Rocket Lake's numbers on a processor with AMX, as a real one does."""
    cpu = identify_cpu(
        cpuinfo(tmp_path, a_block("GenuineIntel", 6, model, 1, "Intel(R) Xeon(R) Processor", f"{AVX2} amx_tile"))
    )
    assert cpu.microarchitecture.value is None
    assert "masked by the hypervisor" in cpu.microarchitecture.reason


@pytest.mark.parametrize(
    ("model", "design"), [(0x8F, "Sapphire Rapids"), (0xCF, "Emerald Rapids"), (0xAD, "Granite Rapids")]
)
def test_amx_where_the_design_has_it(tmp_path: Path, model: int, design: str) -> None:
    cpu = identify_cpu(
        cpuinfo(tmp_path, a_block("GenuineIntel", 6, model, 8, "Intel(R) Xeon(R) Processor", f"{AVX2} amx_tile"))
    )
    assert cpu.microarchitecture.value == design


def test_rosetta_is_explained(tmp_path: Path) -> None:
    cpu = identify_cpu(cpuinfo(tmp_path, a_block("VirtualApple", 6, 44, 0, "VirtualApple @ 2.50GHz")))
    assert (cpu.vendor.value, cpu.microarchitecture.value) == ("Apple", None)
    assert "install a Python for arm64" in cpu.advice
