"""Reads /proc/cpuinfo, whose layout differs by architecture. Knows no product. Never imports torch."""

from __future__ import annotations

import os
from typing import NamedTuple

from epochtop.engine.hardware.cgroups import Roots

Block = dict[str, str]
"""Fields of one CPU by name; names are in lower case, because LoongArch and Arm capitalize some."""


class CpuInfo(NamedTuple):
    """The contents of /proc/cpuinfo."""

    blocks: list[Block]
    """One block per CPU that the file lists, at least one."""
    common: Block
    """Fields outside of these blocks: the board on Arm and POWER, everything on s390x and SPARC."""
    threads: int
    """Number of CPUs, also of those that have no block of their own."""

    @property
    def first(self) -> Block:
        """The first CPU's fields, and the common ones that it lacks."""
        return {**self.common, **self.blocks[0]}


def read_cpuinfo(roots: Roots) -> CpuInfo | None:
    """The contents of /proc/cpuinfo; None if there is no such file or it is empty."""
    try:
        text = (roots.proc / "cpuinfo").read_text(errors="replace")
    except OSError:
        return None
    blocks: list[Block] = []
    common: Block = {}
    for paragraph in text.split("\n\n"):
        fields = common  # a paragraph without a CPU's number describes the machine
        for line in paragraph.splitlines():
            name, colon, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            if name == "processor" and value.isdigit():
                blocks.append(fields := {})
            elif colon:
                fields.setdefault(name, value)
    if not blocks and not common:
        return None
    return CpuInfo(blocks or [{}], common, len(blocks) or _counted(common))


def _counted(common: Block) -> int:
    """CPUs of an architecture whose file gives a number instead of blocks: s390x, SPARC."""
    for name in ("# processors", "ncpus active", "ncpus probed"):
        if common.get(name, "").isdigit():
            return int(common[name])
    return 1 if "cpu implementer" in common else os.cpu_count() or 1


def number_of(text: str) -> int:
    """The number in a field, decimal or with 0x; -1 if it has none."""
    try:
        return int(text, 0)
    except ValueError:
        return -1
