"""What a GPU is, by the driver and its product name. Each field can be unknown on its own. Never imports torch."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from epochtop.engine.hardware.facts import Fact, Gpu, GpuName, MigDevice
from epochtop.engine.hardware.gpu.bounds import plausible
from epochtop.engine.hardware.gpu.health import identity_problems
from epochtop.engine.hardware.gpu.names import read_name
from epochtop.engine.hardware.gpu.nvml import Driver, mapped

_ARCHITECTURES = {
    2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada Lovelace", 9: "Hopper",
    10: "Blackwell", 13: "Rubin",
}  # fmt: skip
"""NVML_DEVICE_ARCH_* of nvml.h."""
_UNKNOWN_ARCHITECTURE = 0xFFFFFFFF
"""NVML_DEVICE_ARCH_UNKNOWN: Tegra chips, and cards newer than the driver."""
_COMPUTE_MODES = {0: "default", 2: "prohibited", 3: "exclusive process"}

CORES_PER_MULTIPROCESSOR = {
    "3.0": 192, "3.5": 192, "3.7": 192, "5.0": 128, "5.2": 128, "5.3": 128, "6.0": 64, "6.1": 128, "6.2": 128,
    "7.0": 64, "7.2": 64, "7.5": 64, "8.0": 64, "8.6": 128, "8.7": 128, "8.9": 128, "9.0": 128, "10.0": 128,
    "10.3": 128, "11.0": 128, "12.0": 128, "12.1": 128,
}  # fmt: skip
"""float32 results per clock and multiprocessor: CUDA C++ Programming Guide, "Throughput of Native Arithmetic
Instructions". NVML reports only the number of cores."""


IDENTITY = ("handle", "nvmlDeviceGetName", "nvmlDeviceGetUUID", "memory", "nvmlDeviceGetCudaComputeCapability")
"""Queries without whose answers a GPU is identified again."""


def identify_gpus(driver: Driver) -> tuple[Gpu, ...]:
    """Every GPU that the driver lists, including those that do not answer."""
    return tuple(_identify(driver, index) for index in range(driver.count))


def _identify(driver: Driver, index: int) -> Gpu:
    nvml = driver.nvml
    name: Fact[str] = driver.call(index, "nvmlDeviceGetName")
    reading = read_name(name.value) if name.value is not None else GpuName()
    if reading.shares_memory:
        driver.sharing.add(index)
    capability: Fact[str] = mapped(
        driver.call(index, "nvmlDeviceGetCudaComputeCapability"), lambda pair: f"{pair[0]}.{pair[1]}"
    )
    cores: Fact[int] = driver.call(index, "nvmlDeviceGetNumGpuCores")
    bus: Fact[int] = driver.call(index, "nvmlDeviceGetMemoryBusWidth")
    memory_clock: Fact[int] = driver.call(index, "nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_MEM)
    slowdown = driver.call(index, "nvmlDeviceGetTemperatureThreshold", nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    gpu = Gpu(
        index=index,
        name=name,
        uuid=driver.call(index, "nvmlDeviceGetUUID"),
        reading=reading,
        architecture=_architecture(driver.call(index, "nvmlDeviceGetArchitecture")),
        compute_capability=capability,
        multiprocessors=_multiprocessors(cores, capability),
        cuda_cores=cores,
        memory_bytes=driver.memory(index)[2],
        memory_type=_memory_type(name),
        memory_bus_bits=bus,
        memory_bandwidth_gbs=_bandwidth(bus, memory_clock),
        pcie_generation_max=driver.call(index, "nvmlDeviceGetMaxPcieLinkGeneration"),
        pcie_width_max=driver.call(index, "nvmlDeviceGetMaxPcieLinkWidth"),
        power_limit_default_w=_watts(driver.call(index, "nvmlDeviceGetPowerManagementDefaultLimit")),
        power_limit_max_w=mapped(
            driver.call(index, "nvmlDeviceGetPowerManagementLimitConstraints"), lambda limits: limits[1] / 1000
        ),
        temperature_limit_c=mapped(slowdown, float),
        sm_clock_max_mhz=driver.call(index, "nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
        memory_clock_max_mhz=memory_clock,
        ecc=mapped(driver.call(index, "nvmlDeviceGetEccMode"), lambda modes: bool(modes[0])),
        persistence=mapped(driver.call(index, "nvmlDeviceGetPersistenceMode"), bool),
        compute_mode=mapped(
            driver.call(index, "nvmlDeviceGetComputeMode"), lambda mode: _COMPUTE_MODES.get(mode, f"mode {mode}")
        ),
        mig=bool(driver.mig(index).value),
        mig_devices=_mig_devices(driver, index),
    )
    errors = driver.errors(index)
    is_complete = not any(query in errors for query in IDENTITY)
    return msgspec.structs.replace(plausible(gpu), problems=identity_problems(index, errors), is_complete=is_complete)


def _watts(milliwatts: Fact[int]) -> Fact[float]:
    return mapped(milliwatts, lambda number: number / 1000)


def _architecture(number: Fact[int]) -> Fact[str]:
    if number.value is None:
        return Fact(reason=number.reason)
    if number.value == _UNKNOWN_ARCHITECTURE:
        return Fact(reason="the driver does not know it")
    name = _ARCHITECTURES.get(number.value)
    return Fact(name) if name else Fact(reason=f"newer than this table (NVML number {number.value})")


def _multiprocessors(cores: Fact[int], capability: Fact[str]) -> Fact[int]:
    if cores.value is None or capability.value is None:
        return Fact(reason=cores.reason or capability.reason)
    cores_per_sm = CORES_PER_MULTIPROCESSOR.get(capability.value)
    if cores_per_sm is None:
        return Fact(reason=f"cores per multiprocessor of compute capability {capability.value} are not in the table")
    return Fact(cores.value // cores_per_sm)


def _memory_type(name: Fact[str]) -> Fact[str]:
    """Memory type by the product name; NVML has no query for it."""
    match = re.search(r"\bHBM\w+|\bGDDR\w+", name.value or "")
    return Fact(match[0]) if match else Fact(reason="not reported by NVML")


def _bandwidth(bus_bits: Fact[int], clock_mhz: Fact[int]) -> Fact[float]:
    """Bandwidth in 10⁹ bytes per second; each line of the bus makes two transfers per cycle of NVML's memory clock."""
    if bus_bits.value is None or clock_mhz.value is None:
        return Fact(reason=bus_bits.reason or clock_mhz.reason)
    return Fact(bus_bits.value / 8 * clock_mhz.value * 2 / 1000)


# --- MIG --------------------------------------------------------------------------------------------------


def _mig_devices(driver: Driver, index: int) -> Fact[tuple[MigDevice, ...]]:
    if not driver.mig(index).value:
        return Fact(reason=driver.why_no_use(index) or "MIG is off or not supported")
    handles = driver.ask_gpu(index, "mig devices", lambda gpu: _mig_handles(driver, gpu))
    return mapped(handles, lambda instances: tuple(_mig_device(driver, handle) for handle in instances))


def _mig_handles(driver: Driver, gpu: Any) -> list[Any]:
    nvml, handles = driver.nvml, []
    for slot in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            handles.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, slot))
        except nvml.NVMLError_NotFound:  # an empty slot
            continue
    return handles


def _mig_device(driver: Driver, handle: Any) -> MigDevice:
    nvml = driver.nvml
    attributes = driver.ask(lambda: nvml.nvmlDeviceGetAttributes_v2(handle))
    return MigDevice(
        name=driver.ask(lambda: nvml.nvmlDeviceGetName(handle)),
        uuid=driver.ask(lambda: nvml.nvmlDeviceGetUUID(handle)),
        memory_bytes=mapped(attributes, lambda values: values.memorySizeMB << 20),
        multiprocessors=mapped(attributes, lambda values: values.multiprocessorCount),
    )
