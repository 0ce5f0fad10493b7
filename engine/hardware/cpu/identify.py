"""Identifies the processor from the kernel's files.

Virtual machines mask names ("AMD EPYC") and Arm reports two numbers, so the numbers decide. Never uses py-cpuinfo, whose
call takes a second. Never imports torch or Textual.
"""

from __future__ import annotations

import re

from epochtop.engine.hardware.cgroups import Roots
from epochtop.engine.hardware.cpu import arm, x86
from epochtop.engine.hardware.cpu.cpuinfo import Block, CpuInfo, read_cpuinfo
from epochtop.engine.hardware.cpu.generations import generation
from epochtop.engine.hardware.cpu.names import ROSETTA, clean_name, vector_instructions
from epochtop.engine.hardware.cpu.other import NO_MODEL, Identity, identify_other
from epochtop.engine.hardware.cpu.topology import (
    caches,
    clocks,
    core_sets,
    cores_by_cpuinfo,
    hybrid_cores,
    kinds_by_name,
    sockets,
)
from epochtop.engine.hardware.facts import NOT_ASKED, CoreKind, Cpu, Fact


def identify_cpu(roots: Roots = Roots()) -> Cpu:  # noqa: B008 - frozen
    """The processor, by /proc/cpuinfo and /sys (under `roots`), or by sysctl if there is no /proc."""
    info = read_cpuinfo(roots)
    if info is None:
        from epochtop.engine.hardware.cpu.macos import identify_by_sysctl

        return identify_by_sysctl()
    first = info.first
    identity = _identity(info, first)
    cores = core_sets(roots)
    kinds = _kinds(roots, info) or hybrid_cores(roots, cores)
    by_kind = {kind.name: kind.count for kind in kinds}
    line = generation(identity.model.value or "", identity.vendor.value, identity.microarchitecture.value)
    base, highest = clocks(roots, first)
    return Cpu(
        model=identity.model,
        vendor=identity.vendor,
        microarchitecture=identity.microarchitecture,
        generation=Fact(line) if line else Fact(reason="not known from its name or design"),
        board=_board(roots, info),
        sockets=sockets(roots, info, arm.is_arm(first)),
        cores=Fact(len(cores)) if cores else cores_by_cpuinfo(info.blocks),
        threads=info.threads,
        core_kinds=kinds,
        performance_cores=by_kind.get("performance"),
        efficiency_cores=by_kind.get("efficiency"),
        base_clock_mhz=base,
        max_clock_mhz=highest,
        vector_instructions=identity.vectors,
        caches=caches(roots),
        advice=ROSETTA if first.get("vendor_id") == "VirtualApple" else "",
    )


def _identity(info: CpuInfo, first: Block) -> Identity:
    if arm.is_arm(first):
        return _arm(info, first)
    if x86.is_x86(first):
        design, vendor = x86.microarchitecture(first), x86.vendor(first)
        return Identity(vendor, design, _model(first, vendor, design), _vectors(first))
    return identify_other(first)


def _arm(info: CpuInfo, first: Block) -> Identity:
    """Vendor and designs of Arm cores: every design of a processor that has several."""
    vendor, names = arm.vendor(first), dict.fromkeys(arm.part_name(block).value or "" for block in _arm_blocks(info))
    design = arm.part_name(first)
    if len(names) > 1 and all(names):
        design = Fact(" + ".join(names))
    return Identity(vendor, design, _model(first, vendor, design), _vectors(first))


def _arm_blocks(info: CpuInfo) -> list[Block]:
    """The blocks that report a part; old kernels report it once for all CPUs."""
    return [block for block in info.blocks if arm.is_arm(block)] or [info.first]


def _kinds(roots: Roots, info: CpuInfo) -> tuple[CoreKind, ...]:
    """The designs of Arm's and RISC-V's cores, and how many there are of each."""
    names = [arm.part_name(block).value or block.get("cpu part", "") for block in _arm_blocks(info)]
    if not arm.is_arm(info.first):
        names = [block.get("uarch", "").partition(",")[2].upper() for block in info.blocks]
    return kinds_by_name(roots, names) if all(names) else ()


def _model(block: Block, vendor: Fact[str], design: Fact[str]) -> Fact[str]:
    name = block.get("model name", "")
    if name.strip("- ").lower() not in ("", "unknown") and not re.match(r"(ARMv\d|AArch64)\b.*[Pp]rocessor", name):
        return Fact(clean_name(name))
    if vendor.value and design.value:
        return Fact(f"{vendor.value} {design.value}")
    if vendor.value == "Apple":
        return Fact("Apple silicon")
    if part := block.get("cpu part"):
        return Fact(f"{vendor.value or 'implementer ' + block.get('cpu implementer', '?')} part {part}")
    return Fact(reason=NO_MODEL)


def _board(roots: Roots, info: CpuInfo) -> Fact[str]:
    """The board or server that the firmware names; asked on Arm only, where the processor rarely has a name."""
    if not arm.is_arm(info.first):
        return NOT_ASKED
    name = arm.board(roots, info)
    return Fact(name) if name else Fact(reason="not reported by the firmware")


def _vectors(block: Block) -> Fact[tuple[str, ...]]:
    text = block.get("flags") or block.get("features")
    return Fact(vector_instructions(set(text.split()))) if text else Fact(reason="/proc/cpuinfo lists no features")
