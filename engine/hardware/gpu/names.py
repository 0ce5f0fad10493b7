"""Reads a GPU's product name by the table in gpus.toml; a name that is not in it stays unknown. Never imports torch."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from epochtop.engine.hardware.facts import GpuName

TABLE = Path(__file__).with_name("gpus.toml")


def read_name(name: str) -> GpuName:
    """The parts of a product name as the driver reports it; all None for a name that is not in the table."""
    table = _table()
    short = name.strip().removeprefix("NVIDIA ")
    for family in table["family"]:
        match = re.match(rf"(?:{family['pattern']})(?=Ti\b|\W|$)", short)
        if match is None:
            continue
        tier = family.get("tier") or table["tiers"][family["tiers"]].get(match["tier"])
        if tier is not None:
            suffix = tuple(variant for variant, pattern in table["suffixes"].items() if re.search(pattern, short))
            return GpuName(family["generation"], family["architecture"], tier, suffix, family["market"])
    return GpuName()


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text())
