"""What speaks against a job on this machine before it starts: for the Run panel and for commands. Never imports a widget."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from epochtop.engine.hardware import Machine, Sample, Sampler, identify, job_findings, speed_class
from epochtop.engine.protocol.requests import Plan, Ready
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.measured_speed import measured_gflops

PATIENCE_S = 2.0
"""Longest wait for the NVIDIA driver; figures that it has not reported by then are unknown."""


def read_machine(interval_s: float = 0.0) -> tuple[Machine, Sample]:
    """What the machine is and its load now. A load of the CPU needs an interval between two readings."""
    with contextlib.closing(Sampler()) as sampler:
        started_s = time.monotonic()
        if interval_s:
            sampler.sample(0)
        machine = identify(watch=sampler.gpus, patience_s=PATIENCE_S)
        sampler.gpus.sample(PATIENCE_S)
        time.sleep(max(0.0, started_s + interval_s - time.monotonic()))
        return machine, sampler.sample(PATIENCE_S)


def job_advice(
    home: Path, spec: RunSpec, plan: Plan, machine: Machine, sample: Sample | None, ready: Ready | None
) -> list[str]:
    """Warnings about this job on this machine, and how long it takes at the speed that the lab measured."""
    advice = job_findings(plan, machine, sample, ready)
    gflops = measured_gflops(home, plan.device, spec.precision)
    if gflops is not None:
        duration = speed_class(plan, gflops)
        advice.append(f"its matrix products take {duration} at the {gflops:,.0f} GFLOP/s that the lab measured here")
    return advice
