"""`epochtop hardware`: the machine as text or JSON, without a screen. Imports neither Textual nor torch."""

from __future__ import annotations

import json
from typing import Any

from epochtop.engine.hardware import (
    Fact,
    GpuSample,
    Machine,
    Sample,
    cpu_meaning,
    gpu_meaning,
)
from epochtop.engine.protocol.quantities import UNKNOWN, format_bytes, format_gib
from epochtop.engine.protocol.requests import Ready
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.terminal.output import write, write_json
from epochtop.tui.cli.hardware_json import figure, to_json
from epochtop.tui.client.job_advice import read_machine
from epochtop.tui.machine.facts import (
    KERNEL_NOTE,
    NOT_READ,
    caches,
    clocks,
    compatibility,
    cores_and_threads,
    driver_text,
    fact_text,
    health_text,
    host_text,
    identity_texts,
    limits_note,
    problem_texts,
    process_line,
    processor,
    software,
)
from epochtop.tui.machine.reasons import figure_name

INTERVAL_S = 0.1
"""Seconds between the two readings that a load needs; the machine is identified in between."""
_LABEL = 14
_APART = (
    *("index", "slowed_by", "processes", "memory_total_bytes", "problems"),
    *("fabric", "recovery_action", "remapped_rows", "remapping_pending", "remapping_failed", "xid_errors"),
)
"""Fields of a sample that are not listed as figures."""


def print_hardware(as_json: bool, with_torch: bool = False) -> int:
    """Write what this machine is and how busy it is to stdout; the exit code. Raises Invalid if no engine starts."""
    ready = _ask_engine() if with_torch else None
    machine, sample = read_machine(INTERVAL_S)
    if as_json:
        write_json(json.dumps(to_json(machine, sample, ready), indent=2, ensure_ascii=False))
    else:
        write(to_text(machine, sample, ready) + "\n")
    return 0


def run_hardware(as_json: bool, with_torch: bool) -> int:
    """:func:`print_hardware` as a command without the parser of :mod:`epochtop.tui.cli.main`. Returns its exit status."""
    from epochtop.tui.client.foreground import exit_status

    return exit_status(lambda: print_hardware(as_json, with_torch))


def _ask_engine() -> Ready:
    from epochtop.tui.client.foreground import ask
    from epochtop.tui.client.standby import EngineDied, Standby

    try:
        return ask(Standby.ready, on_progress=lambda _: None)
    except EngineDied as error:
        raise Invalid("", f"torch could not be loaded: {error}") from None


# --- text -------------------------------------------------------------------------------------------------


def to_text(machine: Machine, sample: Sample, ready: Ready | None = None) -> str:
    """Lines for people; an unknown figure is "—" with its reason."""
    lines = [("Host", host_text(machine)), *_host(machine, sample)]
    for gpu in machine.gpus:
        load = next((load for load in sample.gpus if load.index == gpu.index), None)
        problems = load.problems if load else gpu.problems
        lines += [("", ""), (f"GPU {gpu.index}", gpu_meaning(gpu, machine.usable_memory_bytes, problems))]
        lines += [*problem_texts(problems), *identity_texts(gpu, machine)]
        lines += _gpu_load(load) if load else [("Load", f"{UNKNOWN} the driver did not answer in time")]
    lines.append(("", ""))
    if not machine.gpus:
        lines.append(("GPU", f"{UNKNOWN} {machine.no_gpu_reason}"))
    lines += [("GPU", f"{other.vendor}, at {other.address}: {NOT_READ}") for other in machine.other_gpus]
    lines += _software(machine, ready)
    return "\n".join(f"{label:<{_LABEL}}{text}".rstrip() for label, text in lines)


def _host(machine: Machine, sample: Sample) -> list[tuple[str, str]]:
    cpu = machine.cpu
    vectors = ", ".join(cpu.vector_instructions.value or ()) or f"{UNKNOWN} {cpu.vector_instructions.reason}"
    limits = limits_note(machine)
    used = f"{format_gib(sample.memory_used_bytes)} of {format_gib(machine.usable_memory_bytes)} GiB used"
    swap = sample.swap_total_bytes
    return [
        ("CPU", processor(machine)),
        *([] if cpu.microarchitecture.value else [("Design", fact_text(cpu.microarchitecture))]),
        ("Generation", fact_text(cpu.generation)),
        *([("Advice", cpu.advice)] if cpu.advice else []),
        ("Cores", cores_and_threads(machine, 200)),
        *([("Limits", limits)] if limits else []),
        ("Clock", clocks(machine)),
        ("Instructions", vectors),
        ("Caches", caches(machine)),
        ("Load", f"{fact_text(sample.cpu_percent, '%')} of {machine.usable_cpus} usable"),
        ("Memory", used),
        (
            "Swap",
            f"{format_bytes(sample.swap_used_bytes.value)} of {format_bytes(swap.value)} used"
            if swap.value
            else fact_text(swap),
        ),
        ("Good for", cpu_meaning(machine)),
    ]


def _gpu_load(load: GpuSample) -> list[tuple[str, str]]:
    """The known figures of a GPU, five per line; then the unknown ones by reason."""
    named = {figure_name(name): (name, getattr(load, name)) for name in load.__struct_fields__ if name not in _APART}
    figures = [f"{label} {_number(name, fact)}" for label, (name, fact) in named.items() if fact.value is not None]
    lines = [("Now" * (not place), " · ".join(figures[place : place + 5])) for place in range(0, len(figures), 5)]
    if load.slowed_by.value is not None:
        lines.append(("Slowed by", ", ".join(load.slowed_by.value) or "nothing"))
    if load.sm_percent.value is None and load.utilization_percent.value is not None:
        lines.append(("", f"utilization {KERNEL_NOTE}"))
    unknown: dict[str, list[str]] = {}
    for label, fact in [*((label, fact) for label, (_, fact) in named.items()), ("slowdown causes", load.slowed_by)]:
        if fact.value is None:
            unknown.setdefault(fact.reason, []).append(label)
    lines.append(("Health", health_text(load)))
    lines += [("Unknown", f"{', '.join(names)}: {reason}") for reason, names in unknown.items()]
    return lines + _processes(load)


def _number(name: str, fact: Fact[Any]) -> str:
    value = figure(name, fact)
    return f"{value['value']:,g} {value['unit']}".rstrip()


def _processes(load: GpuSample) -> list[tuple[str, str]]:
    if not load.processes.value:
        return [("Processes", fact_text(Fact[str](reason=load.processes.reason)) if load.processes.reason else "none")]
    lines = [" ".join(process_line(process).split()) for process in load.processes.value]
    return [("Processes" * (not place), line) for place, line in enumerate(lines)]


def _software(machine: Machine, ready: Ready | None) -> list[tuple[str, str]]:
    driver = driver_text(machine)
    lines = [("Driver", driver)] if driver else []
    if ready is None:
        return [*lines, ("torch", "not loaded; use --torch (takes seconds)")]
    mismatches = [(label, text) for label, text, _ in compatibility(machine, ready)]
    return [*lines, *software(ready), *mismatches]
