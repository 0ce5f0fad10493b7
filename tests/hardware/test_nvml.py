"""What is shown of a driver's answers: the real pynvml with a fake library, and `epochtop hardware`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from epochtop.engine.hardware.gpu.nvml import Driver
from tests.support.fakes import fake_nvml
from tests.support.fakes.fake_nvml import DRIVER_NOT_LOADED, LOST, NO_PERMISSION, NOT_SUPPORTED, RM_MISMATCH, UNKNOWN

GIB = 1 << 30


def test_two_plain_cards(library: Path) -> None:
    machine, sample = fake_nvml.ask(library)
    assert (machine["driver_version"]["value"], machine["cuda_version"]["value"]) == ("550.54.14", "12.4")
    assert machine["no_gpu_reason"] == ""
    first, second = machine["gpus"]
    assert (first["name"]["value"], first["uuid"]["value"], second["index"]) == ("NVIDIA Fake 0", "GPU-00000000", 1)
    assert first["memory_bytes"]["value"] == 80 * GIB
    gpu = sample["gpus"][1]
    assert gpu["utilization_percent"]["value"] == 97
    assert gpu["memory_used_bytes"]["value"] == 12 * GIB  # 13 with what the driver keeps
    assert (gpu["temperature_c"]["value"], gpu["power_w"]["value"], gpu["power_limit_w"]["value"]) == (61, 412.3, 700)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (DRIVER_NOT_LOADED, "NVIDIA driver is not loaded"),
        (RM_MISMATCH, "driver and library differ in version: reboot or reload the driver"),
        (NO_PERMISSION, "no permission"),
        (UNKNOWN, "NVML: Unknown Error"),
        (77, "NVML: an error of the fake"),
    ],
)
def test_a_driver_that_does_not_start_is_a_reason(library: Path, code: int, reason: str) -> None:
    machine, sample = fake_nvml.ask(library, FAKE_NVML_FAIL=f"nvmlInitWithFlags:*:{code}")
    assert machine["gpus"] == []
    assert machine["no_gpu_reason"].startswith(reason)
    assert machine["driver_version"] == {"value": None, "reason": reason}
    assert sample["gpus"] == []


def test_no_library_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / fake_nvml.LIBRARY).write_text("")  # hides a real one, too
    machine, sample = fake_nvml.ask(tmp_path)
    assert (machine["gpus"], machine["no_gpu_reason"]) == ([], "no NVIDIA driver found")
    assert sample["gpus"] == []


def test_a_driver_without_cards_is_a_reason(library: Path) -> None:
    machine, _ = fake_nvml.ask(library, FAKE_NVML_COUNT="0")
    assert (machine["gpus"], machine["no_gpu_reason"]) == ([], "driver found, but no NVIDIA GPU")
    assert machine["driver_version"]["value"] == "550.54.14"


def test_a_library_mismatch_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def mismatched() -> None:
        raise pynvml.NVMLLibraryMismatchError("Unversioned function called")

    monkeypatch.setattr(pynvml, "nvmlInit", mismatched)
    assert "differ in version" in Driver().reason


def test_a_lost_card_leaves_the_others_alone(library: Path) -> None:
    machine, sample = fake_nvml.ask(library, FAKE_NVML_FAIL=f"nvmlDeviceGetHandleByIndex_v2:0:{LOST}")
    assert [gpu["name"]["value"] for gpu in machine["gpus"]] == [None, "NVIDIA Fake 1"]
    lost, well = sample["gpus"]
    assert lost["utilization_percent"] == {"value": None, "reason": "GPU is lost: it needs a reset or a reboot"}
    assert well["utilization_percent"]["value"] == 97


def test_a_card_lost_later_loses_only_its_own_values(library: Path) -> None:
    failing = " ".join(f"nvmlDeviceGet{what}:0:{LOST}" for what in ("UtilizationRates", "PowerUsage", "Temperature"))
    machine, sample = fake_nvml.ask(library, FAKE_NVML_FAIL=failing)
    assert machine["gpus"][0]["name"]["value"] == "NVIDIA Fake 0"
    assert sample["gpus"][0]["power_w"]["value"] is None
    assert sample["gpus"][0]["memory_used_bytes"]["value"] == 12 * GIB


def test_each_field_can_be_missing_alone(library: Path) -> None:
    machine, sample = fake_nvml.ask(library, FAKE_NVML_FAIL=f"nvmlDeviceGetPowerUsage:*:{NOT_SUPPORTED}")
    gpu = sample["gpus"][0]
    assert gpu["power_w"] == {"value": None, "reason": "not supported by this card"}
    assert gpu["utilization_percent"]["value"] == 97
    _, sample = fake_nvml.ask(library, FAKE_NVML_FAIL=f"nvmlDeviceGetMemoryInfo_v2:0:{NO_PERMISSION}")
    assert sample["gpus"][0]["memory_used_bytes"] == {"value": None, "reason": "no permission"}
    machine, _ = fake_nvml.ask(library, FAKE_NVML_FAIL=f"nvmlSystemGetDriverVersion:*:{UNKNOWN}")
    assert machine["driver_version"]["reason"]
    assert machine["cuda_version"]["value"] == "12.4"


def test_an_unsupported_query_is_not_repeated_on_that_card(library: Path, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    fail = f"nvmlDeviceGetPowerUsage:0:{NOT_SUPPORTED} nvmlDeviceGetTemperature:0:{UNKNOWN}"
    fake_nvml.ask(library, FAKE_NVML_FAIL=fail, FAKE_NVML_LOG=str(log))
    calls = log.read_text().splitlines()
    assert calls.count("nvmlDeviceGetPowerUsage 0") == 1
    assert calls.count("nvmlDeviceGetPowerUsage 1") == 2
    assert calls.count("nvmlDeviceGetTemperature 0") == 2  # this may get better


def test_utilization_of_a_mig_card_is_unknown_and_not_zero(library: Path) -> None:
    machine, sample = fake_nvml.ask(library, FAKE_NVML_MIG="0")
    assert [gpu["mig"] for gpu in machine["gpus"]] == [True, False]
    assert sample["gpus"][0]["utilization_percent"] == {"value": None, "reason": "MIG is on"}
    assert sample["gpus"][1]["utilization_percent"]["value"] == 97


WITHOUT_SIZE = (
    {"FAKE_NVML_UNIFIED": "0"},
    {"FAKE_NVML_FAIL": f"nvmlDeviceGetMemoryInfo_v2:0:{NOT_SUPPORTED}"},
)


@pytest.mark.parametrize("environment", WITHOUT_SIZE)
def test_a_chip_that_is_known_to_share_the_systems_memory(library: Path, environment: dict[str, str]) -> None:
    machine, sample = fake_nvml.ask(library, FAKE_NVML_NAME="NVIDIA GB10", **environment)
    shared = {"value": None, "reason": "shares the system's memory"}
    assert machine["gpus"][0]["memory_bytes"] == shared
    assert sample["gpus"][0]["memory_total_bytes"] == shared


@pytest.mark.parametrize("environment", WITHOUT_SIZE)
@pytest.mark.parametrize("name", ["NVIDIA GH200 480GB", "NVIDIA H100 80GB HBM3", "NVIDIA Fake"])
def test_any_other_card_without_a_size_of_memory_is_not_reported_as_sharing(
    library: Path, environment: dict[str, str], name: str
) -> None:
    machine, _ = fake_nvml.ask(library, FAKE_NVML_NAME=name, **environment)
    memory = machine["gpus"][0]["memory_bytes"]
    assert memory["value"] is None
    assert "shares" not in memory["reason"]


def test_a_name_that_is_not_text_is_unknown(library: Path) -> None:
    machine, _ = fake_nvml.ask(library, FAKE_NVML_GARBAGE="1")
    assert machine["gpus"][0]["name"] == {"value": None, "reason": "the driver's answer could not be read"}


def test_an_old_driver_answers_in_the_old_way(tmp_path: Path) -> None:
    _, sample = fake_nvml.ask(fake_nvml.build(tmp_path, "-DOLD"))
    assert sample["gpus"][0]["memory_used_bytes"]["value"] == 13 * GIB


def test_a_newer_driver_answers_in_the_new_way(tmp_path: Path) -> None:
    _, sample = fake_nvml.ask(fake_nvml.build(tmp_path, "-DNEWER"))
    assert sample["gpus"][0]["temperature_c"]["value"] == 61


# --- epochtop hardware ------------------------------------------------------------------------------------


def figures(value: object, path: str = "") -> Iterator[tuple[str, dict[str, object]]]:
    """Every `{"value": …}` of a JSON answer with its path."""
    if isinstance(value, dict) and "value" in value:
        yield path, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from figures(item, f"{path}.{key}")


def test_json_gives_every_unknown_a_reason_and_every_figure_a_unit(library: Path) -> None:
    fail = f"nvmlDeviceGetPowerUsage:0:{NOT_SUPPORTED}"
    text = fake_nvml.print_hardware(library, True, FAKE_NVML_FAIL=fail)
    answer = json.loads(text)
    assert answer["schema"] == 1
    assert answer["gpus"][0]["power"] == {"value": None, "unit": "W", "reason": "not supported by this card"}
    assert answer["gpus"][1]["power"] == {"value": 412.3, "unit": "W"}
    assert answer["gpus"][0]["memory"] == {"value": 80.0, "unit": "GiB"}
    for path, figure in figures(answer):
        assert ("reason" in figure) == (figure["value"] is None), path
        assert "unit" in figure or figure["value"] is None or isinstance(figure["value"], str | bool | list), path


def test_text_gives_the_reason_for_an_unknown_value(library: Path) -> None:
    text = fake_nvml.print_hardware(library, False, FAKE_NVML_MIG="0")
    assert "NVIDIA Fake MIG 3g.40gb, 40.0 GiB, 60 multiprocessors, MIG-00000016" in text
    assert "Unknown       utilization, sm, tensor, dram: MIG is on" in text
    assert "power 412.3 W · power limit 700 W" in text


def test_text_without_a_gpu(library: Path) -> None:
    text = fake_nvml.print_hardware(library, False, FAKE_NVML_FAIL=f"nvmlInitWithFlags:*:{DRIVER_NOT_LOADED}")
    assert "— NVIDIA driver is not loaded" in text
