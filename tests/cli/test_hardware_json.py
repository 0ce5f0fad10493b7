"""`epochtop hardware --json` is what docs/hardware.md says, key by key, and so is the command around it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import HANGING_S
from tests.support.fakes import fake_nvml

DOCS = (Path(__file__).parents[2] / "docs" / "hardware.md").read_text()


def documented(part: str) -> set[str]:
    """The keys in the first column of a table."""
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`([\w.]+)`", row)}


@pytest.fixture(scope="module")
def answer(library: Path) -> dict[str, Any]:
    machine: dict[str, Any] = json.loads(
        fake_nvml.print_hardware(library, True, FAKE_NVML_NAME="NVIDIA H100 80GB HBM3", FAKE_NVML_PID="1")
    )
    return machine


def test_every_key_is_documented_and_every_documented_key_is_there(answer: dict[str, Any]) -> None:
    host, gpu = DOCS.split("Each of `gpus`:")
    named = documented(host)
    top = {key for key in named if "." not in key and key in answer}
    nested = {"cpu": set(answer["cpu"]), "memory": set(answer["memory"])}
    groups = {prefix: {key.removeprefix(f"{prefix}.") for key in named} for prefix in nested}
    assert set(answer) - set(nested) == top
    for prefix, keys in nested.items():
        assert keys <= groups[prefix], prefix
    known = {*answer, *nested["cpu"], *nested["memory"], "performance_cores", "efficiency_cores"}
    assert {key.rpartition(".")[2] for key in named} <= known
    assert documented(gpu) == set(answer["gpus"][0])


def test_figures_have_the_documented_units(answer: dict[str, Any]) -> None:
    gpu = answer["gpus"][0]
    assert gpu["memory"] == {"value": 80.0, "unit": "GiB"}
    assert gpu["memory_bus"] == {"value": 5120, "unit": "bit"}
    assert gpu["memory_bandwidth"]["unit"] == "GB/s"
    assert gpu["pcie_sent"] == {"value": 1.024, "unit": "MB/s"}  # 1000 KiB a second
    assert gpu["temperature"] == {"value": 61.0, "unit": "°C"}
    assert gpu["power_limit"] == {"value": 700.0, "unit": "W"}
    assert gpu["sm_clock"] == {"value": 1755, "unit": "MHz"}
    assert gpu["ecc"] == {"value": True}
    assert gpu["slowed_by"] == {"value": ["power limit", "temperature"]}
    assert gpu["tier"] == {"value": "flagship"}
    assert gpu["memory_type"] == {"value": "HBM3"}
    assert gpu["cuda_index"] == {"value": 0, "unit": ""}
    assert gpu["processes"]["value"][0]["pid"] == 1
    assert answer["software"] is None


def test_a_name_that_is_not_in_the_table(library: Path) -> None:
    answer = json.loads(fake_nvml.print_hardware(library, True, FAKE_NVML_NAME="NVIDIA H300"))
    gpu = answer["gpus"][0]
    assert gpu["tier"] == {"value": None, "reason": "not in the table"}
    assert gpu["architecture"] == {"value": "Hopper"}  # as the driver says
    assert "name not in the table" in gpu["meaning"]


def test_visible_devices_are_respected_and_shown(library: Path) -> None:
    answer = json.loads(fake_nvml.print_hardware(library, True, CUDA_VISIBLE_DEVICES="GPU-00000001"))
    assert answer["cuda_visible_devices"] == "GPU-00000001"
    first, second = answer["gpus"]
    assert first["cuda_index"]["reason"] == "hidden by CUDA_VISIBLE_DEVICES"
    assert second["cuda_index"]["value"] == 0


def command(*words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-P", "-m", "epochtop", "hardware", *words]
    return subprocess.run(program, capture_output=True, text=True, timeout=HANGING_S, check=False)


def test_the_command_asks_an_engine_for_torch() -> None:
    from importlib.metadata import version

    done = command("--json", "--torch")
    assert done.returncode == 0, done.stderr
    software = json.loads(done.stdout)["software"]
    assert software["torch"]["value"].partition("+")[0] == version("torch").partition("+")[0]
    assert software["python"]["value"] == sys.version.split()[0]
    assert software["devices"][0]["device"] == "cpu"
    for name in ("cuda", "rocm", "cudnn"):
        assert (software[name]["value"] is None) == ("reason" in software[name])


def test_the_command_never_loads_torch_or_textual() -> None:
    code = (
        "import sys; from epochtop.tui.cli.hardware import print_hardware; print_hardware(False); "
        "print([name for name in ('torch', 'numpy', 'textual', 'tyro') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGING_S, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_option_is_refused() -> None:
    assert command("--yaml").returncode == 2


def test_text_names_everything_a_new_user_asks(library: Path) -> None:
    done = command()
    assert done.returncode == 0
    for label in (
        "Host",
        "CPU",
        "Generation",
        "Cores",
        "Clock",
        "Instructions",
        "Caches",
        "Load",
        "Memory",
        "Good for",
        "GPU",
    ):
        assert re.search(rf"^{label} ", done.stdout, re.MULTILINE), label
