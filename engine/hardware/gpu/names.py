"""Reads a GPU's product name by the table in gpus.toml; a name that is not in it stays unknown. Never imports torch.

Names of vGPUs follow a rule: board, memory and series. The rule applies to the boards in the table only, so a card with
a number after a hyphen (`P106-100`) is none.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from epochtop.engine.hardware.facts import GpuName

TABLE = Path(__file__).with_name("gpus.toml")

_VENDOR = re.compile(r"^(?:NVIDIA |GRID |GeForce (?=RTX T10))+")
_VGPU = re.compile(r"(?P<board>.+?)(?:-[1-7])?-(?P<gib>0|[1-9]\d{0,2})(?:(?P<series>[ABCQ])(?:\d|ME)?)?")
"""Board, MIG slices, GiB (0 is half a GiB), series with the number of displays or `ME` (all media engines)."""
WITHOUT_CUDA = ("A", "B")
"""Series of vGPUs for applications and PCs: NVIDIA, Virtual GPU Software User Guide, "CUDA and OpenCL support"."""
_MIG = re.compile(r" MIG \d.*$")


def read_name(name: str) -> GpuName:
    """The parts of a product name as the driver reports it; all None for a name that is not in the table."""
    return _read_vgpu(name.strip()) or _read_card(name.strip().removeprefix("NVIDIA ")) or GpuName()


def _read_card(short: str) -> GpuName | None:
    table = _table()
    for family in table["family"]:
        match = re.match(rf"(?:{family['pattern']})(?=Ti\b|[^\w-]|-[A-Za-z]|$)", short)
        if match is None:
            continue
        tier = table["tiers"][family["tiers"]].get(match["tier"]) if "tiers" in family else family["tier"]
        if tier is None:
            continue
        suffix = tuple(variant for variant, pattern in table["suffixes"].items() if re.search(pattern, short))
        return GpuName(
            generation=family["generation"],
            architecture=family["architecture"],
            tier=tier or None,
            suffix=(*suffix, "vGPU") if family.get("vgpu") else suffix,
            market=family["market"],
            has_tensor_cores=family.get("tensor_cores"),
            shares_memory=family.get("memory") == "shared",
        )
    return None


def _read_vgpu(name: str) -> GpuName | None:
    match = _VGPU.fullmatch(_MIG.sub("", _VENDOR.sub("", name)))
    if match is None:
        return None
    gib = int(match["gib"])
    for board in _table()["board"]:
        card = re.fullmatch(board["pattern"], match["board"])
        if card and gib >= board.get("smallest_gib", 1):
            physical = _read_card(card.expand(board["card"]))
            suffix = ("vGPU", "MIG") if _MIG.search(name) else ("vGPU",)
            has_cuda = match["series"] not in WITHOUT_CUDA and gib >= board.get("cuda_from_gib", 0)
            return physical and msgspec.structs.replace(
                physical, suffix=suffix, vgpu_series=match["series"], has_cuda=has_cuda
            )
    return None


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text())
