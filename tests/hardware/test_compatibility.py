"""Whether torch, CUDA, cuDNN and the driver fit each other, in words, with the command that mends it."""

from __future__ import annotations

from typing import Any

import pytest

from epochtop.engine.hardware import Fact, OtherGpu, software_fit
from epochtop.engine.hardware.compatibility import has_kernels
from epochtop.engine.protocol.requests import DeviceFact, Ready
from tests.support.fakes.machines import a_gpu, a_machine

CPU = DeviceFact(device="cpu", name="AMD EPYC")
ON_GPU = (CPU, DeviceFact(device="cuda:0", name="NVIDIA H200", uuid="GPU-0"))


def engine_report(**changes: Any) -> Ready:
    facts: dict[str, Any] = {
        "torch_version": "2.13.0", "cuda_version": "12.8", "cudnn_version": 91002, "devices": ON_GPU, "pid": 1,
        "python": "/env/bin/python", "python_version": "3.12.1", "architectures": ("sm_80", "sm_90", "compute_90"),
    }  # fmt: skip
    return Ready(**(facts | changes))


def with_driver(cuda: str, driver: str = "550.54.14", **gpu: Any) -> Any:
    card = a_gpu(0, **({"compute_capability": Fact("9.0")} | gpu))
    return a_machine((card,), driver_version=Fact(driver), cuda_version=Fact(cuda))


def test_matching_software_has_no_findings() -> None:
    assert software_fit(engine_report(), with_driver("12.4")) == []  # a 12.8 runs on any driver for CUDA 12
    assert software_fit(engine_report(), with_driver("13.0")) == []
    assert software_fit(engine_report(cuda_version=None, devices=(CPU,)), a_machine()) == []


def test_a_cpu_torch_on_a_machine_with_a_gpu() -> None:
    (finding,) = software_fit(
        engine_report(torch_version="2.13.0+cpu", cuda_version=None, devices=(CPU,)), with_driver("13.0")
    )
    assert finding.text == "torch 2.13.0+cpu is built without CUDA and cannot use the GPU"
    assert finding.command == "/env/bin/python -m pip install --force-reinstall torch"


def test_a_cpu_torch_with_a_driver_for_cuda_12_needs_a_torch_for_cuda_12() -> None:
    (finding,) = software_fit(engine_report(cuda_version=None, devices=(CPU,)), with_driver("12.4"))
    assert finding.command == "/env/bin/python -m pip install --force-reinstall 'torch==2.9.*'"


def test_a_driver_too_old_for_this_torch() -> None:
    (finding,) = software_fit(engine_report(cuda_version="13.0", devices=(CPU,)), with_driver("12.4"))
    assert "driver 550.54.14 supports CUDA up to 12.4, but torch 2.13.0 is built for CUDA 13.0" in finding.text
    assert "update the driver to 580 or newer" in finding.text  # NVIDIA: CUDA 13 needs 580 or newer
    assert finding.command.endswith("'torch==2.9.*'")
    (finding,) = software_fit(engine_report(devices=(CPU,)), with_driver("11.4", "470.57"))
    assert "update the driver to 525 or newer" in finding.text
    assert finding.command == ""


def test_a_driver_that_was_updated_under_a_running_one() -> None:
    (finding,) = software_fit(engine_report(devices=(CPU,)), a_machine(no_gpu_error="LibRmVersionMismatch"))
    assert finding.command == "sudo reboot"


def test_gpus_that_the_environment_hides() -> None:
    hidden = with_driver("12.8", cuda_index=Fact(reason="hidden by CUDA_VISIBLE_DEVICES"))
    machine = type(hidden)(
        **{name: getattr(hidden, name) for name in hidden.__struct_fields__} | {"visible_devices": ""}
    )
    (finding,) = software_fit(engine_report(devices=(CPU,)), machine)
    assert "hides every GPU" in finding.text
    assert finding.command == "unset CUDA_VISIBLE_DEVICES"


def test_a_gpu_that_torch_does_not_find_is_explained_with_torchs_message() -> None:
    (finding,) = software_fit(engine_report(devices=(CPU,), cuda_reason="CUDA unknown error"), with_driver("12.8"))
    assert finding.text == "the driver finds a GPU, but torch does not: CUDA unknown error"


def test_a_torch_without_cudnn() -> None:
    (finding,) = software_fit(engine_report(cudnn_version=None), with_driver("12.8"))
    assert "no cuDNN" in finding.text
    assert finding.command.endswith("--force-reinstall torch")


def test_a_card_that_torch_has_no_kernels_for() -> None:
    old = with_driver("12.8", name=Fact("Tesla P100"), compute_capability=Fact("6.0"))
    (finding,) = software_fit(engine_report(), old)
    assert "no kernels for Tesla P100 (compute capability 6.0)" in finding.text
    assert finding.command.endswith("'torch==2.7.*'")
    new = with_driver("12.8", compute_capability=Fact("12.0"))
    (finding,) = software_fit(engine_report(architectures=("sm_80", "sm_90")), new)
    assert finding.command == "/env/bin/python -m pip install --upgrade torch"


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ("8.6", ("sm_80",), True),  # binaries run on later minors of their major version
        ("8.0", ("sm_86",), False),
        ("9.0", ("sm_80", "sm_86"), False),
        ("9.0", ("sm_80", "compute_80"), True),  # PTX is compiled for later cards
        ("9.0", ("sm_90a",), True),
        ("12.0", ("sm_120",), True),
        ("7.5", ("compute_80",), False),
    ],
)
def test_kernels(capability: str, built_for: tuple[str, ...], runs: bool) -> None:
    assert has_kernels(capability, built_for) is runs


def test_an_amd_gpu_without_rocm() -> None:
    machine = a_machine(other_gpus=(OtherGpu("AMD", "0000:03:00.0"),))
    (finding,) = software_fit(engine_report(cuda_version=None, devices=(CPU,)), machine)
    assert "ROCm" in finding.text
    assert software_fit(engine_report(cuda_version=None, hip_version="6.4", devices=ON_GPU), machine) == []
