"""Machines with odd GPUs: the standby survives them, and `auto` takes only a GPU that this torch has kernels for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from epochtop.engine.device.inventory import torch_inventory
from epochtop.engine.device.select import choose_device, why_not_cuda
from epochtop.engine.job.job import _device_notes
from epochtop.engine.protocol.spec import Invalid, RunSpec

GPU = torch.device("cuda", 0)


def machine(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0), architectures: str = "sm_90"
) -> None:
    """One GPU with this compute capability, and a torch with kernels for these architectures."""
    properties = SimpleNamespace(
        name="Tesla V100", major=capability[0], minor=capability[1], total_memory=2**34, multi_processor_count=80
    )
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "get_arch_list", architectures.split)


def broken(message: str) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(message)

    return fail


def test_a_cudnn_that_refuses_the_gpu_does_not_end_the_standby(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN 9.11 and later on a GPU before Turing: torch raises where its version is asked for."""
    machine(monkeypatch)
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", broken("cuDNN version 91100 needs\n compute capability 7.5"))
    ready = torch_inventory()
    assert ready.cudnn_version is None
    assert ready.cuda_reason == "cuDNN version 91100 needs compute capability 7.5"
    assert [device.device for device in ready.devices] == ["cpu", "cuda:0"]


@pytest.mark.parametrize("function", ["get_device_properties", "device_count", "get_arch_list"])
def test_a_driver_that_fails_leaves_the_cpu(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    monkeypatch.setattr(torch.cuda, function, broken("CUDA unknown error"))
    ready = torch_inventory()
    assert ready.devices[0].device == "cpu"
    assert "CUDA unknown error" in ready.cuda_reason


def test_auto_takes_a_gpu_with_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, (9, 0), "sm_80 sm_90 compute_90")
    assert choose_device("auto") == GPU
    assert _device_notes(RunSpec(), GPU) == []


@pytest.mark.parametrize(
    ("capability", "architectures"),
    [((7, 0), "sm_75 sm_80 sm_90"), ((6, 1), "sm_75 sm_86"), ((12, 0), "sm_80 sm_90"), ((5, 2), "sm_70 compute_90")],
)
def test_auto_leaves_a_gpu_without_kernels_and_says_why(
    capability: tuple[int, int], architectures: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, capability, architectures)
    assert choose_device("auto") == torch.device("cpu")
    (note,) = _device_notes(RunSpec(), torch.device("cpu"))
    assert f"compute capability {capability[0]}.{capability[1]}" in note
    with pytest.raises(Invalid, match="has no kernels for Tesla V100"):
        choose_device("cuda:0")


def test_a_gpu_that_fails_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_properties", broken("CUDA error: device is lost"))
    assert choose_device("auto") == torch.device("cpu")
    assert "device is lost" in why_not_cuda()


def test_rocm_names_architectures_after_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, (9, 4), "gfx942")
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert choose_device("auto") == GPU


def test_auto_says_that_another_accelerator_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    assert choose_device("auto") == torch.device("cpu")
    assert _device_notes(RunSpec(), torch.device("cpu")) == ["device auto is cpu: epochtop does not train on xpu"]
    assert _device_notes(RunSpec(device="cpu"), torch.device("cpu")) == []


def test_a_rocm_build_without_a_gpu_is_not_called_a_build_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "hip", "6.3")
    with pytest.raises(Invalid, match="finds no AMD GPU"):
        choose_device("cuda")
