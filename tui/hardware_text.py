"""`epochtop hardware`: the machine as text or JSON, without a screen.

Schema of `--json`, version 1. A *figure* is `{"value": 8.0, "unit": "GiB"}`, a *word* is `{"value": "Zen 4"}`;
what is unknown has the value null and a `reason`: `{"value": null, "unit": "W", "reason": "no permission"}`.

    schema              1
    host, os            words
    cpu                 model, vendor, microarchitecture: words
                        cores, performance_cores, efficiency_cores: figures in cores (the last two only on hybrids)
                        threads, runnable (affinity), usable (affinity and quota): figures in threads
                        limit: why fewer than all threads are usable, "" when all are
                        load: figure in %, over the usable CPUs; each: loads in % by CPU number
    memory              total, usable, used: figures in GiB (used is of the usable); limit: as for the CPU
    driver, cuda        words: NVIDIA driver, newest CUDA it supports
    gpus                list of: index, mig (true or false); name, uuid: words; memory, memory_used in GiB,
                        utilization in %, temperature in °C, power and power_limit in W
    no_gpu              why `gpus` is empty, "" when it is not
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

from engine.hardware import Fact, Gpu, GpuSample, Machine, Sample, Sampler, identify
from tui.machine_rows import GIB, UNKNOWN, cores_and_threads, gib, processor

SCHEMA = 1
INTERVAL_S = 0.1
"""Between the two readings that a load needs."""


def print_hardware(as_json: bool) -> int:
    """Write what this machine is and how busy it is to stdout; the exit code."""
    machine = identify()
    with contextlib.closing(Sampler()) as sampler:
        sampler.sample()
        time.sleep(INTERVAL_S)
        sample = sampler.sample()
    text = json.dumps(to_json(machine, sample), indent=2, ensure_ascii=False) if as_json else to_text(machine, sample)
    sys.stdout.write(text + "\n")
    return 0


# --- JSON -------------------------------------------------------------------------------------------------


def to_json(machine: Machine, sample: Sample) -> dict[str, Any]:
    """The schema in the module's docstring."""
    loads = {gpu.index: gpu for gpu in sample.gpus}
    return {
        "schema": SCHEMA,
        "host": {"value": machine.host},
        "os": {"value": machine.os},
        "cpu": _cpu_json(machine, sample),
        "memory": {
            "total": _size(Fact(machine.memory_bytes)),
            "usable": _size(Fact(machine.usable_memory_bytes)),
            "used": _size(Fact(sample.memory_used_bytes)),
            "limit": machine.usable_memory_reason,
        },
        "driver": _word(machine.driver_version),
        "cuda": _word(machine.cuda_version),
        "gpus": [_gpu_json(gpu, loads.get(gpu.index)) for gpu in machine.gpus],
        "no_gpu": machine.no_gpu_reason,
    }


def _cpu_json(machine: Machine, sample: Sample) -> dict[str, Any]:
    cpu = machine.cpu
    kinds = {"performance_cores": cpu.performance_cores, "efficiency_cores": cpu.efficiency_cores}
    return {
        "model": _word(cpu.model),
        "vendor": _word(cpu.vendor),
        "microarchitecture": _word(cpu.microarchitecture),
        "cores": _figure(cpu.cores, "cores"),
        **{name: _figure(Fact(count), "cores") for name, count in kinds.items() if count is not None},
        "threads": _figure(Fact(cpu.threads), "threads"),
        "runnable": _figure(Fact(machine.runnable_cpus), "threads"),
        "usable": _figure(Fact(machine.usable_cpus), "threads"),
        "limit": machine.usable_cpus_reason,
        "load": _figure(sample.cpu_percent, "%"),
        "each": {str(core.cpu): _figure(Fact(core.percent), "%") for core in sample.core_percents},
    }


def _gpu_json(gpu: Gpu, load: GpuSample | None) -> dict[str, Any]:
    nothing = Fact[float](reason="not sampled")
    return {
        "index": gpu.index,
        "mig": gpu.mig,
        "name": _word(gpu.name),
        "uuid": _word(gpu.uuid),
        "memory": _size(gpu.memory_bytes),
        "memory_used": _size(load.memory_used_bytes if load else Fact(reason=nothing.reason)),
        "utilization": _figure(load.utilization_percent if load else nothing, "%"),
        "temperature": _figure(load.temperature_c if load else nothing, "°C"),
        "power": _figure(load.power_w if load else nothing, "W"),
        "power_limit": _figure(load.power_limit_w if load else nothing, "W"),
    }


def _word(fact: Fact[str]) -> dict[str, Any]:
    return {"value": fact.value} if fact.value is not None else {"value": None, "reason": fact.reason}


def _figure(fact: Fact[float] | Fact[int], unit: str) -> dict[str, Any]:
    if fact.value is None:
        return {"value": None, "unit": unit, "reason": fact.reason}
    return {"value": round(fact.value, 3), "unit": unit}


def _size(fact: Fact[int]) -> dict[str, Any]:
    return _figure(Fact(fact.value / GIB) if fact.value is not None else Fact[float](reason=fact.reason), "GiB")


# --- text -------------------------------------------------------------------------------------------------


def to_text(machine: Machine, sample: Sample) -> str:
    """Lines for people; an unknown figure is "—" with its reason."""
    loads = {gpu.index: gpu for gpu in sample.gpus}
    lines = [
        ("Host", f"{machine.host} · {machine.os}"),
        ("CPU", processor(machine)),
        ("", cores_and_threads(machine, 200)),
        ("", f"load {_said(sample.cpu_percent, '%')} of {machine.usable_cpus} usable"),
        ("Memory", _memory_text(machine, sample)),
    ]
    for gpu in machine.gpus:
        lines += _gpu_text(gpu, loads.get(gpu.index))
    if machine.gpus:
        driver, cuda = _said(machine.driver_version), _said(machine.cuda_version)
        lines.append(("Driver", f"{driver} · up to CUDA {cuda}"))
    else:
        lines.append(("GPU", f"{UNKNOWN} {machine.no_gpu_reason}"))
    return "\n".join(f"{label:<8}{text}" for label, text in lines)


def _memory_text(machine: Machine, sample: Sample) -> str:
    text = f"{gib(sample.memory_used_bytes)} of {gib(machine.usable_memory_bytes)} GiB used"
    why = machine.usable_memory_reason
    return f"{text} ({why}; the host has {gib(machine.memory_bytes)} GiB)" if why else text


def _gpu_text(gpu: Gpu, load: GpuSample | None) -> list[tuple[str, str]]:
    size = f"{gib(gpu.memory_bytes.value)} GiB" if gpu.memory_bytes.value is not None else _said(gpu.memory_bytes)
    lines = [(f"GPU {gpu.index}", f"{_said(gpu.name)}{' · MIG' * gpu.mig}"), ("", f"memory {size}")]
    if load is not None:
        used = load.memory_used_bytes
        if used.value is not None:
            lines[-1] = ("", f"memory {gib(used.value)} of {size} used")
        lines.append(("", f"utilization {_said(load.utilization_percent, '%')}"))
        lines.append(("", f"temperature {_said(load.temperature_c, '°C')}"))
        lines.append(("", f"power {_said(load.power_w, 'W')}, limit {_said(load.power_limit_w, 'W')}"))
    return [*lines, ("", _said(gpu.uuid))]


def _said(fact: Fact[str] | Fact[float] | Fact[int], unit: str = "") -> str:
    if fact.value is None:
        return f"{UNKNOWN} ({fact.reason})"
    return fact.value if isinstance(fact.value, str) else f"{fact.value:.0f} {unit}"
