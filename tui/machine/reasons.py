"""Why what is unknown of a machine is unknown: one line a figure, for a tooltip and for the full page."""

from __future__ import annotations

import msgspec

from epochtop.engine.hardware import NOT_ASKED, Fact, Machine, Sample


def reasons(machine: Machine | None, sample: Sample | None) -> list[str]:
    """One line for every unknown figure; figures with one reason share a line."""
    if machine is None:
        return []
    lines = _lines("CPU", machine.cpu)
    for gpu in machine.gpus:
        lines += _lines(f"GPU {gpu.index}", gpu)
    for load in sample.gpus if sample else ():
        lines += _lines(f"GPU {load.index}", load)
    if not machine.gpus and machine.no_gpu_reason:
        lines.append(f"GPU: {machine.no_gpu_reason}")
    return list(dict.fromkeys(lines))


def _lines(label: str, facts: msgspec.Struct) -> list[str]:
    found: dict[str, list[str]] = {}
    for name in facts.__struct_fields__:
        fact = getattr(facts, name)
        if isinstance(fact, Fact) and fact.value is None and fact != NOT_ASKED and fact.reason:
            found.setdefault(fact.reason, []).append(spoken(name))
    return [f"{label} {', '.join(names)}: {reason}" for reason, names in found.items()]


_UNITS = ("_percent", "_bytes", "_c", "_w", "_mhz", "_kbs", "_gbs", "_bits")


def spoken(field: str) -> str:
    """A field's name as people say it: `power limit` for `power_limit_w`."""
    for unit in _UNITS:
        field = field.removesuffix(unit)
    return field.replace("_", " ")
