"""What is said about a planned job and the machine before it starts."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import msgspec
import pytest

from epochtop.engine.hardware import Fact, GpuProblem, Machine, job_findings, speed_class
from epochtop.engine.protocol.events import AnyEvent, Measured
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.requests import Plan
from epochtop.engine.runs.measured_speed import measured_gflops
from epochtop.engine.runs.paths import RECORD
from epochtop.engine.runs.writer import encode
from tests.support.fakes.machines import GIB, a_full_gpu, a_load, a_machine, a_ready, a_sample
from tests.support.lab_runs import write_experiment

LOST = GpuProblem("GpuIsLost", "lost: it fell off the bus", "reboot the machine", True)


def a_plan(**changes: Any) -> Plan:
    facts: dict[str, Any] = {
        "device": "cuda:0", "rows": 1000, "test_rows": 10, "features": 4, "outputs": 3, "parameters": 10**6,
        "steps": 100, "steps_per_epoch": 10, "memory_bytes": GIB, "available_bytes": 8 * GIB,
    }  # fmt: skip
    return Plan(**(facts | changes))


def machine(**changes: Any) -> Machine:
    return a_machine((a_full_gpu(0, **changes),))


def test_a_job_that_fits_needs_no_advice() -> None:
    ready = a_ready("12.4", architectures=("sm_80", "sm_90"))
    assert job_findings(a_plan(), machine(), a_sample((a_load(0),)), ready) == []
    assert job_findings(a_plan(device="cpu"), a_machine(), None, a_ready()) == []


def test_a_device_that_this_torch_has_no_kernels_for() -> None:
    ready = a_ready("12.4", architectures=("sm_80", "sm_90"))
    (finding,) = job_findings(a_plan(), machine(compute_capability=Fact("6.1")), None, ready)
    assert finding == "torch 2.13.0 has no kernels for NVIDIA H200 (compute capability 6.1)"


def test_a_job_on_the_cpu_of_a_machine_with_a_gpu() -> None:
    (finding,) = job_findings(a_plan(device="cpu"), machine(), None, a_ready())
    assert finding.startswith("the job runs on the CPU: torch 2.13.0 is built without CUDA")


def test_a_gpu_with_a_problem_is_named_with_what_to_do() -> None:
    expected = ["NVIDIA H200: lost: it fell off the bus. reboot the machine"]
    assert job_findings(a_plan(), machine(problems=(LOST,))) == expected
    sick = a_sample((a_load(0, problems=(LOST,)),))
    assert job_findings(a_plan(), machine(), sick) == expected
    assert job_findings(a_plan(), machine(problems=(LOST,)), a_sample((a_load(0),))) == []  # it is well now
    assert job_findings(a_plan(device="cuda:1"), machine(problems=(LOST,))) == []  # another GPU


def test_a_job_that_needs_nearly_all_memory() -> None:
    (finding,) = job_findings(a_plan(memory_bytes=int(7.5 * GIB)), machine())
    assert finding == "the job needs 7.5 GiB of 8.0 GiB free memory: take a smaller batch if it runs out"


@pytest.mark.parametrize(
    ("parameters", "gflops", "expected"),
    [
        (10**6, 1000.0, "seconds"),  # 6 x 10^6 parameters x 10,000 rows = 6 x 10^10 operations
        (10**9, 1000.0, "minutes"),  # 60 s
        (10**11, 1000.0, "hours"),  # 6,000 s
        (10**11, 10.0, "days"),
    ],
)
def test_the_class_of_speed(parameters: int, gflops: float, expected: str) -> None:
    assert speed_class(a_plan(parameters=parameters), gflops) == expected


def a_product(device: str, dtype: str, gflops: float) -> AnyEvent:
    return Measured(
        values={"kind": "product", "device": device, "dtype": dtype, "size": 1024, "round": 0, "gflops": gflops}
    )


def a_result(home: Path, name: str, host: str, events: list[AnyEvent]) -> None:
    run = write_experiment(home, name, events)
    record = msgspec.json.decode((run / RECORD).read_bytes(), type=RunRecord)
    (run / RECORD).write_bytes(encode(msgspec.structs.replace(record, host=host)))


def test_the_measured_speed_is_of_this_host_device_and_precision(tmp_path: Path) -> None:
    assert measured_gflops(tmp_path, "cpu", "fp32") is None
    ours = [a_product("cpu", "fp32", 90.0), a_product("cpu", "fp32", 120.0), a_product("cpu", "bf16", 300.0)]
    a_result(tmp_path, "matmul-20261129-100000-aaaa", platform.node(), ours)
    a_result(tmp_path, "matmul-20261129-110000-bbbb", "elsewhere", [a_product("cpu", "fp32", 999.0)])
    assert measured_gflops(tmp_path, "cpu", "fp32") == 120
    assert measured_gflops(tmp_path, "cpu", "bf16") == 300
    assert measured_gflops(tmp_path, "cuda:0", "fp32") is None
