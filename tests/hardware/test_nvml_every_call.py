"""Every call to the driver with every way it can fail: the figure that hangs on it is unknown, all others are as before.

The real pynvml asks the fake library. All of it runs in one process of its own, which makes the fake fail by its environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import fake_nvml

ERRORS = {
    3: "not supported by this card",
    4: "no permission",
    13: "this driver is too old to report it",
    15: "GPU is lost: it needs a reset or a reboot",
    999: "NVML: Unknown Error",
}
"""Codes of nvml.h: NotSupported, NoPermission, FunctionNotFound, GpuIsLost, Unknown."""

MEMORY = ("memory_bytes", "memory_used_bytes", "memory_total_bytes", "memory_reserved_bytes")
REAL_USE = ("sm_percent", "tensor_percent", "dram_percent")
CALLS: dict[str, tuple[str, ...]] = {
    "nvmlDeviceGetName": ("name",),
    "nvmlDeviceGetUUID": ("uuid",),
    "nvmlDeviceGetCudaComputeCapability": ("compute_capability", "multiprocessors"),
    "nvmlDeviceGetNumGpuCores": ("cuda_cores", "multiprocessors"),
    "nvmlDeviceGetMemoryBusWidth": ("memory_bus_bits", "memory_bandwidth_gbs"),
    "nvmlDeviceGetMaxClockInfo": ("sm_clock_max_mhz", "memory_clock_max_mhz", "memory_bandwidth_gbs"),
    "nvmlDeviceGetTemperatureThreshold": ("temperature_limit_c",),
    "nvmlDeviceGetArchitecture": ("architecture",),
    "nvmlDeviceGetMemoryInfo_v2": MEMORY,
    "nvmlDeviceGetMaxPcieLinkGeneration": ("pcie_generation_max",),
    "nvmlDeviceGetMaxPcieLinkWidth": ("pcie_width_max",),
    "nvmlDeviceGetPowerManagementDefaultLimit": ("power_limit_default_w",),
    "nvmlDeviceGetPowerManagementLimitConstraints": ("power_limit_max_w",),
    "nvmlDeviceGetEccMode": ("ecc",),
    "nvmlDeviceGetPersistenceMode": ("persistence",),
    "nvmlDeviceGetComputeMode": ("compute_mode",),
    "nvmlDeviceGetMigMode": ("utilization_percent", "mig_devices", *REAL_USE),
    "nvmlDeviceGetUtilizationRates": ("utilization_percent",),
    "nvmlDeviceGetTemperature": ("temperature_c",),
    "nvmlDeviceGetPowerUsage": ("power_w",),
    "nvmlDeviceGetEnforcedPowerLimit": ("power_limit_w",),
    "nvmlDeviceGetClockInfo": ("sm_clock_mhz", "memory_clock_mhz"),
    "nvmlDeviceGetCurrentClocksEventReasons": ("slowed_by",),
    "nvmlDeviceGetFanSpeed": ("fan_percent",),
    "nvmlDeviceGetCurrPcieLinkGeneration": ("pcie_generation",),
    "nvmlDeviceGetCurrPcieLinkWidth": ("pcie_width",),
    "nvmlDeviceGetPcieThroughput": ("pcie_sent_kbs", "pcie_received_kbs"),
    "nvmlDeviceGetFieldValues": ("nvlink_sent_kbs", "nvlink_received_kbs", "recovery_action"),
    "nvmlDeviceGetGpuFabricInfo": ("fabric",),
    "nvmlDeviceGetRemappedRows": ("remapped_rows", "remapping_pending", "remapping_failed"),
    "nvmlDeviceGetViolationStatus": (),
    "nvmlEventSetCreate": ("xid_errors",),
    "nvmlDeviceRegisterEvents": ("xid_errors",),
    "nvmlDeviceGetTotalEccErrors": ("ecc_corrected", "ecc_uncorrected"),
    "nvmlDeviceGetComputeRunningProcesses_v3": ("processes",),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": ("processes",),
    "nvmlGpmQueryDeviceSupport": REAL_USE,
    "nvmlGpmSampleAlloc": REAL_USE,
    "nvmlGpmSampleGet": REAL_USE,
    "nvmlGpmMetricsGet": REAL_USE,
    "nvmlGpmSampleFree": (),
    "nvmlShutdown": (),
}
"""Each function of the driver, and the facts that cannot be had without it."""

WITHOUT_CARD = {"nvmlEventSetCreate", "nvmlGpmSampleAlloc", "nvmlGpmMetricsGet", "nvmlGpmSampleFree", "nvmlShutdown"}
"""Functions without a card as an argument: their failure affects all cards."""

OWN_REASONS = {
    ("nvmlGpmQueryDeviceSupport", 3): "needs a Hopper or later GPU",
    ("nvmlGpmQueryDeviceSupport", 13): "needs a Hopper or later GPU",
    ("nvmlDeviceGetMigMode", 4): "whether MIG is on is unknown: no permission",
    ("nvmlDeviceGetMigMode", 999): "whether MIG is on is unknown: NVML: Unknown Error",
}
"""Reasons that explain more than the driver's answer."""

HARMLESS = {
    ("nvmlDeviceGetMigMode", 3),  # a card that cannot be split is not split
    ("nvmlDeviceGetMigMode", 13),
}

JUDGMENTS = {"problems", "is_complete"}
"""What is concluded from the errors; test_health.py has the tests."""

_ASK_ALL = """
import json, os, sys
import msgspec
from epochtop.engine.hardware import Roots
from epochtop.engine.hardware.gpu.identity import identify_gpus
from epochtop.engine.hardware.gpu.load import GpuLoads
from epochtop.engine.hardware.gpu.processes import Processes
from epochtop.engine.hardware.gpu.nvml import Driver

def ask(rule):
    os.environ["FAKE_NVML_FAIL"] = rule
    seconds = 0.0
    driver = Driver()
    gpus = identify_gpus(driver)
    loads = GpuLoads(driver, Processes(Roots(), ""), lambda: seconds)
    for seconds in (1.0, 2.0):
        samples = loads.sample(range(driver.count))
    driver.close()
    return [{**identity, **load} for identity, load in zip(*msgspec.to_builtins((gpus, samples)))]

print(json.dumps({rule: ask(rule) for rule in json.load(sys.stdin)}))
"""


pytestmark = pytest.mark.xdist_group("every call")  # the driver is asked about all failures once instead of per worker


def rule(function: str, code: int) -> str:
    return f"{function}:{'*' if function in WITHOUT_CARD else 1}:{code}"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The description of four cards of which the second one fails, by the rule of the failure."""
    library = fake_nvml.build(tmp_path_factory.mktemp("nvml"))
    rules = ["", *(rule(function, code) for function in CALLS for code in ERRORS)]
    text = fake_nvml.run(library, _ASK_ALL, stdin=json.dumps(rules), FAKE_NVML_COUNT="4", FAKE_NVML_PID="1")
    machines: dict[str, list[dict[str, Any]]] = json.loads(text)
    return machines


def test_without_a_failure_every_value_is_known(answers: dict[str, list[dict[str, Any]]]) -> None:
    gpu = answers[""][1]
    unknown = {name for name, fact in gpu.items() if isinstance(fact, dict) and "reason" in fact and fact["reason"]}
    assert unknown == {"memory_type", "mig_devices", "cuda_index"}  # NVML has no question; not split; the environment's
    values = {name: fact["value"] for name, fact in gpu.items() if isinstance(fact, dict) and "value" in fact}
    assert (values["compute_capability"], values["architecture"]) == ("9.0", "Hopper")
    assert (values["cuda_cores"], values["multiprocessors"]) == (16896, 132)  # an H100 SXM has 132 of 128 cores each
    assert values["memory_bandwidth_gbs"] == pytest.approx(3352.3, abs=0.1)  # its data sheet says 3.35 TB/s
    assert (values["pcie_generation"], values["pcie_generation_max"]) == (4, 5)
    assert (values["pcie_width"], values["pcie_width_max"]) == (8, 16)
    assert (values["power_limit_default_w"], values["power_limit_max_w"]) == (650, 720)
    assert (values["ecc"], values["persistence"], values["compute_mode"]) == (True, True, "exclusive process")
    assert (values["temperature_limit_c"], values["fan_percent"]) == (87, 33)
    assert (values["sm_clock_mhz"], values["sm_clock_max_mhz"]) == (1755, 1980)
    assert values["slowed_by"] == ["power limit", "temperature"]
    assert (values["pcie_sent_kbs"], values["pcie_received_kbs"]) == (1000, 2000)
    assert (values["nvlink_sent_kbs"], values["nvlink_received_kbs"]) == (1024, 2048)
    assert (values["ecc_corrected"], values["ecc_uncorrected"]) == (7, 0)
    assert (values["sm_percent"], values["tensor_percent"], values["dram_percent"]) == (41.5, 12.25, 30)
    assert values["memory_reserved_bytes"] == 1 << 30
    process = values["processes"][0]
    assert (process["pid"], process["memory_bytes"]["value"]) == (1, 5 << 30)
    assert process["user"]["value"]


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("function", CALLS)
def test_a_call_that_fails(answers: dict[str, list[dict[str, Any]]], function: str, code: int) -> None:
    before, after = answers[""], answers[rule(function, code)]
    hit = range(4) if function in WITHOUT_CARD else (1,)
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        lost = CALLS[function] if index in hit and (function, code) not in HARMLESS else ()
        if (function, code) == ("nvmlDeviceGetMemoryInfo_v2", 13) and lost:
            # An older driver tells less: what it keeps for itself counts as used.
            assert (now["memory_used_bytes"]["value"], now["memory_bytes"]["value"]) == (13 << 30, 80 << 30)
            assert now["memory_reserved_bytes"] == {"value": None, "reason": ERRORS[13]}
            continue
        reason = OWN_REASONS.get((function, code), ERRORS[code])
        for name in was.keys() - JUDGMENTS:
            if name in lost:
                assert now[name] == {"value": None, "reason": reason}, name
            else:
                assert now[name] == was[name], name


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2"])
def test_a_driver_that_cannot_be_asked_at_all(library: Path, function: str, code: int) -> None:
    machine, sample = fake_nvml.ask(library, FAKE_NVML_FAIL=f"{function}:*:{code}")
    assert (machine["gpus"], sample["gpus"]) == ([], [])
    assert machine["no_gpu_reason"].startswith(ERRORS[code])  # in a container, with advice


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlSystemGetDriverVersion", "driver_version"),
        ("nvmlSystemGetCudaDriverVersion", "cuda_version"),
    ],
)
def test_a_version_that_is_unknown(library: Path, function: str, field: str, code: int) -> None:
    machine, _ = fake_nvml.ask(library, FAKE_NVML_FAIL=f"{function}:*:{code}")
    assert machine[field] == {"value": None, "reason": ERRORS[code]}
    assert len(machine["gpus"]) == 2


@pytest.mark.parametrize("code", ERRORS)
def test_a_card_without_a_handle_is_unknown_and_other_cards_are_not(library: Path, code: int) -> None:
    machine, sample = fake_nvml.ask(
        library, FAKE_NVML_COUNT="4", FAKE_NVML_FAIL=f"nvmlDeviceGetHandleByIndex_v2:2:{code}"
    )
    assert [gpu["name"]["value"] for gpu in machine["gpus"]] == [
        "NVIDIA Fake 0",
        "NVIDIA Fake 1",
        None,
        "NVIDIA Fake 3",
    ]
    values = [
        name
        for name, fact in sample["gpus"][2].items()
        if name not in ("index", "problems") and fact["value"] is not None
    ]
    assert values == []
    assert sample["gpus"][2]["power_w"]["reason"] == ERRORS[code]
    assert sample["gpus"][3]["power_w"]["value"] == 412.3


# --- MIG --------------------------------------------------------------------------------------------------


def test_the_slices_of_a_split_card(library: Path) -> None:
    machine, sample = fake_nvml.ask(library, FAKE_NVML_MIG="1")
    slices = machine["gpus"][1]["mig_devices"]["value"]
    assert [one["uuid"]["value"] for one in slices] == ["MIG-00000016", "MIG-00000018"]  # the slot between is empty
    assert [one["memory_bytes"]["value"] for one in slices] == [40 << 30] * 2
    assert [one["multiprocessors"]["value"] for one in slices] == [60, 60]
    assert machine["gpus"][0]["mig_devices"]["value"] is None
    for name in ("utilization_percent", *REAL_USE):
        assert sample["gpus"][1][name] == {"value": None, "reason": "MIG is on"}


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("function", ["nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex"])
def test_slices_that_cannot_be_counted(library: Path, function: str, code: int) -> None:
    machine, _ = fake_nvml.ask(library, FAKE_NVML_MIG="0", FAKE_NVML_FAIL=f"{function}:*:{code}")
    assert machine["gpus"][0]["mig"] is True
    assert machine["gpus"][0]["mig_devices"] == {"value": None, "reason": ERRORS[code]}


@pytest.mark.parametrize("code", ERRORS)
def test_a_slice_without_attributes_keeps_its_name(library: Path, code: int) -> None:
    machine, _ = fake_nvml.ask(library, FAKE_NVML_MIG="0", FAKE_NVML_FAIL=f"nvmlDeviceGetAttributes_v2:*:{code}")
    first = machine["gpus"][0]["mig_devices"]["value"][0]
    assert first["name"]["value"] == "NVIDIA Fake MIG 3g.40gb"
    assert first["memory_bytes"] == {"value": None, "reason": ERRORS[code]}


# --- GPM --------------------------------------------------------------------------------------------------


def test_a_card_before_hopper_gives_a_reason_for_its_unknown_real_use(library: Path) -> None:
    _, sample = fake_nvml.ask(library, FAKE_NVML_NO_GPM="1")
    assert sample["gpus"][0]["sm_percent"] == {"value": None, "reason": "needs a Hopper or later GPU"}
    assert sample["gpus"][0]["utilization_percent"]["value"] == 97
