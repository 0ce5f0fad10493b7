"""Why figures of a machine are unknown: lines for the panel's tooltip, and names of figures for people."""

from __future__ import annotations

import msgspec

from epochtop.engine.hardware import NOT_ASKED, Fact, Machine, Sample


def reasons(machine: Machine | None, sample: Sample | None) -> list[str]:
    """One line per reason, with the unknown figures that share it."""
    if machine is None:
        return []
    lines = _lines("CPU", machine.cpu)
    for gpu in machine.gpus:
        lines += _lines(f"GPU {gpu.index}", gpu)
    for gpu_sample in sample.gpus if sample else ():
        lines += _lines(f"GPU {gpu_sample.index}", gpu_sample)
    if not machine.gpus and machine.no_gpu_reason:
        lines.append(f"GPU: {machine.no_gpu_reason}")
    return list(dict.fromkeys(lines))


def _lines(label: str, facts: msgspec.Struct) -> list[str]:
    names_by_reason: dict[str, list[str]] = {}
    for name in facts.__struct_fields__:
        fact = getattr(facts, name)
        if isinstance(fact, Fact) and fact.value is None and fact != NOT_ASKED and fact.reason:
            names_by_reason.setdefault(fact.reason, []).append(figure_name(name))
    return [f"{label} {', '.join(names)}: {reason}" for reason, names in names_by_reason.items()]


_UNITS = ("_percent", "_bytes", "_c", "_w", "_mhz", "_kbs", "_gbs", "_bits")


def figure_name(field: str) -> str:
    """A field's name without its unit: `power limit` for `power_limit_w`."""
    for unit in _UNITS:
        field = field.removesuffix(unit)
    return field.replace("_", " ")
