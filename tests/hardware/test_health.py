"""Sick and unusual machines through the fake NVML: what the panel, the command and the JSON say about them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import msgspec
import pytest

from epochtop.engine.hardware import Fact, GpuSample, Machine, Sample
from epochtop.engine.hardware.gpu.bounds import plausible
from epochtop.engine.hardware.gpu.health import VITAL, Health, identity_problems, problems
from tests.support.fakes import fake_nvml
from tests.support.fakes.fake_nvml import LOST, NOT_SUPPORTED, UNKNOWN
from tests.support.fakes.machines import a_full_load, rows

WELL = Health(Fact("ready"), Fact("none"), Fact(0), Fact(False), Fact(False), Fact(()))
RESET_REQUIRED = 16


def shown(library: Path, **environment: str) -> str:
    """The panel's rows for a machine with one GPU."""
    answers = fake_nvml.ask(library, **({"FAKE_NVML_COUNT": "1"} | environment))
    machine, sample = msgspec.convert(answers[0], Machine), msgspec.convert(answers[1], Sample)
    return "\n".join(rows(machine, sample, 100, 30))


# --- whole machines ---------------------------------------------------------------------------------------

EVERY = [
    f"nvmlDeviceGet{name}"
    for name in ("Name", "UUID", "MemoryInfo_v2", "Temperature", "PowerUsage", "UtilizationRates")
]


@pytest.mark.parametrize("code", [LOST, RESET_REQUIRED, UNKNOWN])
def test_a_dead_gpu_is_not_praised(library: Path, code: int) -> None:
    text = shown(library, FAKE_NVML_FAIL=" ".join(f"{function}:0:{code}" for function in EVERY))
    assert "train" not in text
    assert "shared with the system" not in text
    assert {LOST: "fell off the bus", RESET_REQUIRED: "needs a reset", UNKNOWN: "ERR! in nvidia-smi"}[code] in text
    assert "reboot" in text


def test_a_gpu_without_a_handle_is_dead_too(library: Path) -> None:
    text = shown(library, FAKE_NVML_FAIL=f"nvmlDeviceGetHandleByIndex_v2:0:{LOST}")
    assert "fell off the bus" in text
    assert "train" not in text


def test_a_throttled_gpu_names_every_cause(library: Path) -> None:
    text = shown(library, FAKE_NVML_BOARD="1")
    assert "slowed by power limit, temperature, board power limit" in text
    assert "it can run a 7 B model" in text


def test_a_mig_gpu(library: Path) -> None:
    text = shown(library, FAKE_NVML_MIG="0")
    assert "MIG is on" in text
    assert "  0 %" not in text.split("GPU0")[-1]


def test_a_vgpu(library: Path) -> None:
    assert "trains" in shown(library, FAKE_NVML_NAME="NVIDIA H100XM-80C")
    assert "no job runs on it" in shown(library, FAKE_NVML_NAME="NVIDIA A40-8B")


def test_a_gpu_on_the_systems_memory(library: Path) -> None:
    text = shown(library, FAKE_NVML_NAME="NVIDIA GB10", FAKE_NVML_UNIFIED="0")
    assert "shares the system's memory" in text
    assert "its memory size is unknown" not in text


def test_a_gpu_whose_fabric_is_not_ready(library: Path) -> None:
    for state in (1, 2):
        text = shown(library, FAKE_NVML_FABRIC=f"0:{state}")
        assert "CUDA fails with error 802" in text
        assert "nvidia-fabricmanager" in text
        assert "train" not in text
    assert "802" not in shown(library, FAKE_NVML_FABRIC="0:0")  # a card without NVLink


def test_an_xid_error_is_named(library: Path) -> None:
    text = shown(library, FAKE_NVML_XID="0:79")
    assert "Xid 79: it fell off the bus" in text
    text = shown(library, FAKE_NVML_XID="0:31")
    assert "Xid 31: a program accessed invalid memory" in text
    assert "7 B model" in text  # the GPU works


def test_the_command_and_its_json_say_the_same(library: Path) -> None:
    sick = {"FAKE_NVML_RECOVERY": "0:2", "FAKE_NVML_PENDING": "1:1"}
    text = fake_nvml.print_hardware(library, False, **sick)
    assert "Problem       the driver asks to reboot the machine" in text
    assert "rows are remapped at the next reset" in text
    assert "Health        fabric ready · recovery action: reboot the machine · 3 rows remapped · no Xid errors" in text
    first, second = json.loads(fake_nvml.print_hardware(library, True, **sick))["gpus"]
    assert [problem["kind"] for problem in first["problems"]] == ["Recovery"]
    assert first["problems"][0]["stops_jobs"]
    assert first["meaning"].endswith("no job runs on it: the driver asks to reboot the machine")
    assert second["remapping_pending"] == {"value": True}
    assert second["remapped_rows"] == {"value": 3, "unit": ""}
    assert not second["problems"][0]["stops_jobs"]


_AGAIN = """
import json, os, pathlib, time
from epochtop.engine.hardware import Sampler, identify
control = pathlib.Path(os.environ["FAKE_NVML_CONTROL"])
control.write_text("fail:nvmlDeviceGetName fail:nvmlDeviceGetMemoryInfo_v2")
sampler = Sampler()
machine = identify(watch=sampler.gpus, patience_s=240)
before = sampler.sample(patience_s=240)
control.write_text("")
deadline = time.monotonic() + 240
while sampler.sample(patience_s=240).gpus_identified == before.gpus_identified and time.monotonic() < deadline:
    time.sleep(0.1)
gpus = identify(watch=sampler.gpus, patience_s=240).gpus
print(json.dumps([machine.gpus[0].name.value, machine.gpus[0].memory_bytes.value, gpus[0].name.value, gpus[0].memory_bytes.value]))
"""


def test_identity_is_asked_again_until_it_is_known(library: Path, tmp_path: Path) -> None:
    text = fake_nvml.run(library, _AGAIN, FAKE_NVML_CONTROL=str(tmp_path / "control"))
    assert json.loads(text) == [None, None, "NVIDIA Fake 0", 80 << 30]


# --- bounds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "field", "value"),
    [
        ("nvmlDeviceGetPowerUsage", "power_w", 4_294_967_295),
        ("nvmlDeviceGetTemperature", "temperature_c", 510),
        ("nvmlDeviceGetFanSpeed", "fan_percent", 16_777_215),
        ("nvmlDeviceGetCurrPcieLinkWidth", "pcie_width", 4_294_967_295),
        ("nvmlDeviceGetCurrPcieLinkGeneration", "pcie_generation", 255),
    ],
)
def test_an_impossible_reading_is_unknown(library: Path, function: str, field: str, value: int) -> None:
    _, sample = fake_nvml.ask(library, FAKE_NVML_VALUE=f"{function}:{value}")
    reading = sample["gpus"][0][field]
    assert reading["value"] is None
    assert reading["reason"].startswith("the driver reports an impossible value (")


@pytest.mark.parametrize(
    ("field", "possible", "impossible"),
    [
        ("utilization_percent", 100.0, 101.0), ("fan_percent", 113.0, 65_535.0), ("temperature_c", 118.0, 255.0),
        ("temperature_c", -20.0, -273.0), ("power_w", 1400.0, 4_294_967.0), ("sm_clock_mhz", 3090, 4_294_967_295),
        ("memory_used_bytes", 288 << 30, 1 << 63), ("pcie_sent_kbs", 6e7, 4.29e9), ("ecc_corrected", 10**9, (1 << 64) - 1),
        ("dram_percent", 0.0, -1.0), ("power_limit_w", 600.0, 65_535.0), ("remapped_rows", 512, 4_294_967_295),
    ],
)  # fmt: skip
def test_the_bounds(field: str, possible: float, impossible: float) -> None:
    load = a_full_load(0)
    kept = plausible(msgspec.structs.replace(load, **{field: Fact(possible)}))
    assert getattr(kept, field).value == possible
    dropped: GpuSample = plausible(msgspec.structs.replace(load, **{field: Fact(impossible)}))
    assert getattr(dropped, field).value is None


def test_an_architecture_that_the_driver_does_not_know_is_not_called_new(library: Path) -> None:
    machine, _ = fake_nvml.ask(library, FAKE_NVML_VALUE="nvmlDeviceGetArchitecture:4294967295")
    assert machine["gpus"][0]["architecture"] == {"value": None, "reason": "the driver does not know it"}


# --- what errors and states mean --------------------------------------------------------------------------

change = partial(WELL._replace)


@pytest.mark.parametrize(
    ("errors", "health", "kinds", "is_fatal"),
    [
        ({}, WELL, [], False),
        ({"nvmlDeviceGetFanSpeed": "Unknown"}, WELL, [], False),
        ({"temperature": "Unknown"}, WELL, [], False),  # one transient failure is not an ERR!
        ({"temperature": "Unknown", "memory": "Unknown"}, WELL, ["Error"], True),
        ({"handle": "Timeout"}, WELL, ["Error"], True),
        ({"handle": "InsufficientPower"}, WELL, ["InsufficientPower"], True),
        ({"clocks": "GpuIsLost"}, WELL, ["GpuIsLost"], True),
        ({"memory": "ResetRequired"}, WELL, ["ResetRequired"], True),
        ({"handle": "IrqIssue"}, WELL, ["IrqIssue"], True),
        ({"handle": "NoPermission"}, WELL, [], False),
        ({}, change(fabric=Fact("failed (status 999)")), ["Fabric"], True),
        ({}, change(recovery_action=Fact("reset the GPU")), ["Recovery"], True),
        ({}, change(recovery_action=Fact("drain and reset")), ["Recovery"], False),
        ({}, change(remapping_failed=Fact(True)), ["RemappingFailed"], False),
        ({}, change(xid_errors=Fact((13, 79))), ["Xid 79", "Xid 13"], True),
        ({}, change(xid_errors=Fact((999,))), ["Xid 999"], False),
        ({}, change(xid_errors=Fact((95,))), ["Xid 95"], True),
    ],
)
def test_problems(errors: dict[str, str], health: Health, kinds: list[str], is_fatal: bool) -> None:
    listed = problems(3, errors, health)
    assert [problem.kind for problem in listed] == kinds
    assert any(problem.is_fatal for problem in listed) == is_fatal
    assert all(problem.text and problem.advice for problem in listed)


XIDS = """13 RESTART_APP|31 RESTART_APP|43 IGNORE|46 RESET_GPU|54 CHECK_MECHANICALS|62 RESET_GPU|63 IGNORE|64 RESET_GPU
79 RESTART_BM|92 IGNORE|94 RESTART_APP|95 RESET_GPU|109 RESET_GPU|110 RESET_GPU|119 RESET_GPU|120 RESET_GPU|121 IGNORE
136 RESET_GPU|137 IGNORE|140 RESET_GPU|143 RESET_GPU|155 RESET_GPU|156 RESET_GPU|157 IGNORE|158 RESET_GPU|162 IGNORE"""
"""Xid numbers and their immediate actions: NVIDIA, XID Errors, "Xid Catalog" (2025-10)."""
WORDS = {
    "RESTART_APP": "the program failed, not the GPU",
    "IGNORE": "dmesg|nvlink",
    "RESET_GPU": "--gpu-reset -i 3",
    "RESTART_BM": "reboot the machine",
    "CHECK_MECHANICALS": "attach the power cables",
}


def test_the_advice_about_xid_errors_is_nvidias() -> None:
    for row in XIDS.replace("\n", "|").split("|"):
        number, action = row.split()
        (problem,) = problems(3, {}, change(xid_errors=Fact((int(number),))))
        assert any(word in problem.advice for word in WORDS[action].split("|")), row
        assert problem.is_fatal == (action in ("RESET_GPU", "RESTART_BM", "CHECK_MECHANICALS")), row
        assert "gpu-reset" not in problem.advice or action == "RESET_GPU", row


def test_unsupported_queries_are_not_problems(library: Path) -> None:
    fail = " ".join(
        f"{function}:0:{NOT_SUPPORTED}" for function in ("nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage")
    )
    _, sample = fake_nvml.ask(library, FAKE_NVML_FAIL=fail)
    assert sample["gpus"][0]["problems"] == []
    assert set(VITAL) >= {"temperature", "nvmlDeviceGetPowerUsage"}
    assert identity_problems(0, {}) == ()
