"""`epochtop hardware --json`: one object; docs/hardware.md documents its schema.

A figure is `{"value": 8.0, "unit": "GiB"}`, a word or a list `{"value": "Zen 4"}`. Unknown values are null and have a
reason. Keys are the fields of :mod:`epochtop.engine.hardware.facts` without their units.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from epochtop.engine.hardware import (
    NOT_ASKED,
    Cache,
    Fact,
    Gpu,
    GpuSample,
    Machine,
    MigDevice,
    Sample,
    cpu_meaning,
    gpu_meaning,
    software_fit,
)
from epochtop.engine.protocol.quantities import GIB
from epochtop.engine.protocol.requests import Ready

SCHEMA = 1

_UNITS: dict[str, tuple[str, float]] = {
    "_percent": ("%", 1),
    "_bytes": ("GiB", 1 / GIB),
    "_c": ("°C", 1),
    "_w": ("W", 1),
    "_mhz": ("MHz", 1),
    "_kbs": ("MB/s", 1024 / 1e6),
    "_gbs": ("GB/s", 1),
    "_bits": ("bit", 1),
}
"""By ending of a field: the unit in the output, and the factor."""
_COUNTS = {"cores": "cores", "cuda_cores": "cores", "pcie_width": "lanes", "pcie_width_max": "lanes"}


def to_json(machine: Machine, sample: Sample, ready: Ready | None = None) -> dict[str, Any]:
    """The complete output; `ready` is the report of an engine about torch, if there is one."""
    loads = {gpu.index: gpu for gpu in sample.gpus}
    return {
        "schema": SCHEMA,
        "host": {"value": machine.host},
        "os": {"value": machine.os},
        "container": machine.container,
        "cpu": _cpu(machine, sample),
        "memory": {
            "total": figure("memory_bytes", Fact(machine.memory_bytes)),
            "usable": figure("memory_bytes", Fact(machine.usable_memory_bytes)),
            "used": figure("memory_bytes", Fact(sample.memory_used_bytes)),
            "swap": figure("swap_bytes", sample.swap_total_bytes),
            "swap_used": figure("swap_bytes", sample.swap_used_bytes),
            "limit": machine.usable_memory_reason,
        },
        "driver": figure("driver", machine.driver_version),
        "cuda": figure("cuda", machine.cuda_version),
        "cuda_visible_devices": machine.visible_devices,
        "gpus": [_gpu(gpu, loads.get(gpu.index), machine) for gpu in machine.gpus],
        "no_gpu": machine.no_gpu_reason,
        "gpu_age": {"value": round(sample.gpu_age_s, 1), "unit": "s"},
        "other_gpus": [{"vendor": other.vendor, "address": other.address} for other in machine.other_gpus],
        "software": _software(ready, machine) if ready else None,
    }


def _cpu(machine: Machine, sample: Sample) -> dict[str, Any]:
    cpu = machine.cpu
    kinds = {"performance_cores": cpu.performance_cores, "efficiency_cores": cpu.efficiency_cores}
    return {
        **dict(_facts(cpu)),
        **{name: {"value": count, "unit": "cores"} for name, count in kinds.items() if count is not None},
        "core_kinds": [{"name": kind.name, "cores": kind.count} for kind in cpu.core_kinds],
        "advice": cpu.advice,
        "threads": {"value": cpu.threads, "unit": "threads"},
        "runnable": {"value": machine.runnable_cpus, "unit": "threads"},
        "usable": {"value": machine.usable_cpus, "unit": "threads"},
        "limit": machine.usable_cpus_reason,
        "load": figure("load_percent", sample.cpu_percent),
        "each": {str(core.cpu): {"value": round(core.percent, 3), "unit": "%"} for core in sample.core_percents},
        "meaning": cpu_meaning(machine),
    }


def _gpu(gpu: Gpu, load: GpuSample | None, machine: Machine) -> dict[str, Any]:
    reading, problems = gpu.reading, load.problems if load else gpu.problems
    unknown = {"value": None, "reason": "not in the table"}
    named = {name: getattr(reading, name) for name in ("generation", "tier", "market")}
    return {
        "index": gpu.index,
        "mig": gpu.mig,
        **dict(_facts(gpu)),
        **{name: {"value": word} if word else unknown for name, word in named.items()},
        "suffix": {"value": list(reading.suffix)} if reading.is_known else unknown,
        "architecture_by_name": {"value": reading.architecture} if reading.is_known else unknown,
        "meaning": gpu_meaning(gpu, machine.usable_memory_bytes, problems),
        "problems": [
            {"kind": each.kind, "text": each.text, "advice": each.advice, "stops_jobs": each.is_fatal}
            for each in problems
        ],
        "vgpu": "vGPU" in reading.suffix,
        **dict(_facts(load or _unsampled(gpu.index), leave_out=("memory_total_bytes",))),
    }


def _unsampled(index: int) -> GpuSample:
    nothing: Fact[Any] = Fact(reason="the driver did not answer in time")
    facts: dict[str, Any] = {name: nothing for name in GpuSample.__struct_fields__ if name not in ("index", "problems")}
    return GpuSample(index=index, **facts)


def _software(ready: Ready, machine: Machine) -> dict[str, Any]:
    none = "this build of torch has none"
    return {
        "python": {"value": ready.python_version},
        "torch": {"value": ready.torch_version},
        "cuda": figure("cuda", Fact(ready.cuda_version, none if ready.cuda_version is None else "")),
        "rocm": figure("rocm", Fact(ready.hip_version, none if ready.hip_version is None else "")),
        "cudnn": figure("cudnn", Fact(ready.cudnn_version, none if ready.cudnn_version is None else "")),
        "devices": [
            {"device": fact.device, "name": fact.name, "uuid": fact.uuid, "memory": _size(fact.memory_bytes)}
            for fact in ready.devices
        ],
        "findings": [{"text": finding.text, "command": finding.command} for finding in software_fit(ready, machine)],
    }


def _size(size_bytes: int | None) -> dict[str, Any]:
    return figure("memory_bytes", Fact(size_bytes, "torch does not report it" if size_bytes is None else ""))


# --- facts ------------------------------------------------------------------------------------------------


def _facts(facts: msgspec.Struct, leave_out: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in facts.__struct_fields__:
        fact = getattr(facts, name)
        if isinstance(fact, Fact) and name not in leave_out:
            yield plain(name), figure(name, fact)


def plain(field: str) -> str:
    """A field's name without its unit."""
    ending = _ending(field)
    return field.removesuffix(ending) if ending else field


def _ending(field: str) -> str:
    return next((ending for ending in _UNITS if field.endswith(ending)), "")


def figure(field: str, fact: Fact[Any]) -> dict[str, Any]:
    """The answer's form of a fact; the unit comes from the field's name."""
    ending = _ending(field)
    unit, factor = _UNITS[ending] if ending else (_COUNTS.get(field), 1.0)
    united = {"unit": unit} if unit is not None else {}
    if fact.value is None:
        return {"value": None, **united, "reason": fact.reason or NOT_ASKED.reason}
    if isinstance(fact.value, bool | str):
        return {"value": fact.value}
    if isinstance(fact.value, tuple):
        return {"value": [_item(item) for item in fact.value]}
    number = fact.value * factor
    return {
        "value": int(number) if factor == 1 and isinstance(fact.value, int) else round(number, 3),
        "unit": unit or "",
    }


def _item(item: Any) -> Any:
    if isinstance(item, Cache):
        size = {"value": item.size_bytes / 1024, "unit": "KiB"}
        return {"level": item.level, "kind": item.kind, "size": size, "count": item.count}
    if isinstance(item, msgspec.Struct):
        plain_values = {} if isinstance(item, MigDevice) else {"pid": getattr(item, "pid", None)}
        return {**plain_values, **dict(_facts(item))}
    return item
