"""Compares a planned job with the machine before it starts: device, health, memory and speed. Never imports torch."""

from __future__ import annotations

from epochtop.engine.hardware.compatibility import has_kernels, software_fit
from epochtop.engine.hardware.facts import Gpu, GpuProblem, Machine, Sample
from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.requests import Plan, Ready

TIGHT = 0.9
"""Fraction of the free memory from which a job may run out of it."""
FLOP_PER_PARAMETER = 6
"""Operations per parameter and row: two in the forward pass, four in the backward pass, in a network of dense layers."""
_CLASSES = ((60, "seconds"), (3600, "minutes"), (86_400, "hours"))


def job_findings(plan: Plan, machine: Machine, sample: Sample | None = None, ready: Ready | None = None) -> list[str]:
    """What to know before this job starts here, one sentence each; empty if nothing speaks against it."""
    gpu = _gpu(plan, machine)
    findings = (
        [f"{gpu_name(gpu)}: {problem.text}. {problem.advice}" for problem in _problems(gpu, sample)] if gpu else []
    )
    if ready is not None:
        findings += _by_torch(plan, machine, gpu, ready)
    if plan.available_bytes is not None and plan.memory_bytes > TIGHT * plan.available_bytes:
        free = f"{format_bytes(plan.memory_bytes)} of {format_bytes(plan.available_bytes)} free memory"
        findings.append(f"the job needs {free}: take a smaller batch if it runs out")
    return findings


def gpu_name(gpu: Gpu) -> str:
    """The GPU's name, or its number."""
    return gpu.name.value or f"GPU {gpu.index}"


def speed_class(plan: Plan, gflops: float) -> str:
    """`minutes`: how long the job's matrix products take at a measured speed. Convolutions and attention take longer."""
    rows = plan.rows * plan.steps / max(1, plan.steps_per_epoch)
    seconds = FLOP_PER_PARAMETER * plan.parameters * rows / (gflops * 1e9)
    return next((name for limit, name in _CLASSES if seconds < limit), "days")


def _gpu(plan: Plan, machine: Machine) -> Gpu | None:
    """The GPU that torch calls by the plan's device, such as `cuda:0`."""
    kind, _, number = plan.device.partition(":")
    if kind != "cuda":
        return None
    return next((gpu for gpu in machine.gpus if gpu.cuda_index.value == int(number or 0)), None)


def _problems(gpu: Gpu, sample: Sample | None) -> tuple[GpuProblem, ...]:
    loads = [load for load in sample.gpus if load.index == gpu.index] if sample else []
    return loads[0].problems if loads else gpu.problems


def _by_torch(plan: Plan, machine: Machine, gpu: Gpu | None, ready: Ready) -> list[str]:
    """Why torch cannot use the planned GPU, or uses the CPU of a machine with a GPU."""
    if plan.device == "cpu" and machine.gpus:
        return [f"the job runs on the CPU: {finding.text}" for finding in software_fit(ready, machine)[:1]]
    capability = gpu.compute_capability.value if gpu else None
    if gpu and capability and ready.architectures and not has_kernels(capability, ready.architectures):
        return [f"torch {ready.torch_version} has no kernels for {gpu_name(gpu)} (compute capability {capability})"]
    return []
