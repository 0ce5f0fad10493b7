"""Identifies RISC-V, POWER, LoongArch, IBM Z and SPARC processors by their kernels' fields. Never imports torch."""

from __future__ import annotations

import re
from typing import NamedTuple

from epochtop.engine.hardware.cpu.cpuinfo import Block, number_of
from epochtop.engine.hardware.facts import Fact

NO_MODEL = "the kernel names no model"


class Identity(NamedTuple):
    """Vendor, design, model and vector instructions of a processor."""

    vendor: Fact[str]
    microarchitecture: Fact[str]
    model: Fact[str]
    vectors: Fact[tuple[str, ...]]


_RISCV_VENDORS = {
    "sifive": "SiFive", "thead": "T-Head", "spacemit": "SpacemiT", "andestech": "Andes", "starfive": "StarFive",
    "ultrarisc": "UltraRISC", "tenstorrent": "Tenstorrent", "eswin": "ESWIN", "ventana": "Ventana",
}  # fmt: skip
_RISCV_IDS = {0x489: "SiFive", 0x5B7: "T-Head", 0x31E: "Andes", 0x710: "SpacemiT"}
"""Prefixes of `uarch` (Linux, devicetree/bindings/vendor-prefixes.yaml) and values of `mvendorid` (Linux,
arch/riscv/include/asm/vendorid_list.h)."""

_LOONGSON = (
    (r"3[ABCDE]6000", "LA664"), (r"3[ABCDE]5\d00|3[CD]5000", "LA464"), (r"2K1000LA", "LA264"), (r"2K2000", "LA364"),
)  # fmt: skip
"""Cores of Loongson's processors: the Loongson 3A5000, 3A6000, 2K1000LA and 2K2000 processor reference manuals."""

_Z_MACHINES = {
    "2094": "z9", "2096": "z9", "2097": "z10", "2098": "z10", "2817": "z196", "2818": "z114", "2827": "zEC12",
    "2828": "zBC12", "2964": "z13", "2965": "z13s", "3906": "z14", "3907": "z14 ZR1", "8561": "z15", "8562": "z15 T02",
    "3931": "z16", "3932": "z16 A02", "9175": "z17", "9176": "z17 ME1",
}  # fmt: skip
"""Machine types: Linux, arch/s390/Kconfig and arch/s390/kernel/processor.c."""

_NO_VECTORS: Fact[tuple[str, ...]] = Fact(reason="/proc/cpuinfo lists no features")


def identify_other(first: Block) -> Identity:
    """A processor that is neither x86 nor Arm, by the fields of its first CPU."""
    if first.get("isa", "").startswith("rv") or "mvendorid" in first:
        return _riscv(first)
    if first.get("vendor_id") == "IBM/S390":
        return _z(first)
    if "loongson" in f"{first.get('model name', '')} {first.get('cpu family', '')}".lower():
        return _loongarch(first)
    if re.match(r"POWER|PPC970", first.get("cpu", "")):
        return _power(first)
    return _named(first)


def _riscv(first: Block) -> Identity:
    prefix, _, core = first.get("uarch", "").partition(",")
    vendor = _RISCV_VENDORS.get(prefix) or _RISCV_IDS.get(number_of(first.get("mvendorid", "")))
    design: Fact[str] = Fact(core.upper()) if core else Fact(reason="the kernel reports no uarch")
    name = f"{vendor} {core.upper()}" if vendor and core else first.get("model name", "")
    return Identity(
        Fact(vendor) if vendor else Fact(reason="/proc/cpuinfo names no vendor"),
        design,
        Fact(name) if name else Fact(reason=NO_MODEL),
        Fact(_riscv_vectors(first.get("isa", ""))),
    )


def _riscv_vectors(isa: str) -> tuple[str, ...]:
    letters, *extensions = isa.split("_")
    ratified = "v" in letters.removeprefix("rv64").removeprefix("rv32")
    draft = "xtheadvector" in extensions
    return (*(["RVV 1.0"] if ratified else []), *(["RVV 0.7"] if draft else []))


def _power(first: Block) -> Identity:
    match = re.match(r"(POWER\d+\+?|PPC970[A-Z]*)", first["cpu"])
    name = match[1] if match else first["cpu"].partition(",")[0]
    vectors: tuple[str, ...] = ("AltiVec",) if "altivec supported" in first["cpu"] else ()
    number = re.match(r"POWER(\d+)", name)
    if vectors and number and int(number[1]) >= 7:
        vectors += ("VSX",)  # Power ISA 2.06
    return Identity(Fact("IBM"), Fact(name), Fact(f"IBM {name}"), Fact(vectors))


def _loongarch(first: Block) -> Identity:
    name, features = first.get("model name", ""), set(first.get("features", "").split())
    core = next((core for pattern, core in _LOONGSON if re.search(pattern, name)), None)
    vectors = tuple(label for label, flag in (("LSX", "lsx"), ("LASX", "lasx")) if flag in features)
    return Identity(
        Fact("Loongson"),
        Fact(core) if core else Fact(reason="not known from its name"),
        Fact(name) if name else Fact(reason=NO_MODEL),
        Fact(vectors) if features else _NO_VECTORS,
    )


def _z(first: Block) -> Identity:
    line = first.get("processor 0", "")
    machine = re.search(r"machine = (\w+)", line)
    number = machine[1] if machine else first.get("machine", "")
    name = _Z_MACHINES.get(number)
    features = set(first.get("features", "").split())
    return Identity(
        Fact("IBM"),
        Fact(name) if name else Fact(reason=f"unknown machine type {number}".strip()),
        Fact(f"IBM {name} ({number})") if name else Fact(f"IBM Z {number}".strip()),
        Fact(("Vector facility",) if "vx" in features else ()) if features else _NO_VECTORS,
    )


def _named(first: Block) -> Identity:
    """Any other architecture: the name that the kernel gives, and nothing else."""
    name = first.get("model name") or first.get("cpu model") or first.get("cpu") or ""
    return Identity(
        Fact(reason="/proc/cpuinfo names no vendor"),
        Fact(reason="not known for this architecture"),
        Fact(name) if name else Fact(reason=NO_MODEL),
        _NO_VECTORS,
    )
