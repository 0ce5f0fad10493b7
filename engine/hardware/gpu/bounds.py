"""Physical bounds of readings. A faulty card or driver reports all ones and the like. Never imports torch."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from epochtop.engine.hardware.facts import Fact

S = TypeVar("S", bound=msgspec.Struct)

PERCENT, MEGAHERTZ, WATTS, BYTES = (0, 100), (0, 20_000), (0, 10_000), (0, 1 << 46)
BOUNDS: dict[str, tuple[float, float]] = {
    "utilization_percent": PERCENT,
    "sm_percent": PERCENT,
    "tensor_percent": PERCENT,
    "dram_percent": PERCENT,
    "fan_percent": (0, 200),  # NVML: "may exceed 100 % in certain cases"
    "memory_bytes": BYTES,
    "memory_used_bytes": BYTES,
    "memory_reserved_bytes": BYTES,
    "memory_total_bytes": BYTES,
    "memory_bus_bits": (1, 65_536),
    "memory_bandwidth_gbs": (0, 100_000),
    "temperature_c": (-50, 150),
    "temperature_limit_c": (0, 150),
    "power_w": WATTS,
    "power_limit_w": WATTS,
    "power_limit_default_w": WATTS,
    "power_limit_max_w": WATTS,
    "sm_clock_mhz": MEGAHERTZ,
    "memory_clock_mhz": MEGAHERTZ,
    "sm_clock_max_mhz": MEGAHERTZ,
    "memory_clock_max_mhz": MEGAHERTZ,
    "cuda_cores": (1, 1_000_000),
    "multiprocessors": (1, 10_000),
    "pcie_generation": (0, 8),
    "pcie_generation_max": (0, 8),
    "pcie_width": (0, 32),
    "pcie_width_max": (0, 32),
    "pcie_sent_kbs": (0, 1e9),
    "pcie_received_kbs": (0, 1e9),
    "nvlink_sent_kbs": (0, 1e11),
    "nvlink_received_kbs": (0, 1e11),
    "ecc_corrected": (0, 1 << 48),
    "ecc_uncorrected": (0, 1 << 48),
    "remapped_rows": (0, 1 << 20),
}
"""Lowest and highest value by field: no product so far comes near these."""


def plausible(facts: S) -> S:
    """`facts` without impossible values; the reason shows the value."""
    changes: dict[str, Fact[float]] = {}
    for name, (low, high) in BOUNDS.items():
        fact = getattr(facts, name, None)
        if isinstance(fact, Fact) and fact.value is not None and not low <= fact.value <= high:
            changes[name] = Fact(reason=f"the driver reports an impossible value ({fact.value:,.0f})")
    return msgspec.structs.replace(facts, **changes) if changes else facts
