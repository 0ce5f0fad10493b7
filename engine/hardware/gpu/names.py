"""Reads what a GPU's product name says, by the table in gpus.toml. A name that is not there is said to be not there."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from epochtop.engine.hardware.facts import GpuName

TABLE = Path(__file__).with_name("gpus.toml")
NOT_IN_TABLE = "not in the table"


def read_name(name: str) -> GpuName:
    """What `name`, as the driver gives it, says; all None and no suffix for a name that is not in the table."""
    table = _table()
    short = name.strip().removeprefix("NVIDIA ")
    for family in table["family"]:
        found = re.match(rf"(?:{family['pattern']})(?=Ti\b|\W|$)", short)
        if found is None:
            continue
        tier = family.get("tier") or table["tiers"][family["tiers"]].get(found["tier"])
        if tier is not None:
            suffix = tuple(said for said, pattern in table["suffixes"].items() if re.search(pattern, short))
            return GpuName(family["generation"], family["architecture"], tier, suffix, family["market"])
    return GpuName()


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text())
