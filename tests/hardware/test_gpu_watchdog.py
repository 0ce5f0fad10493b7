"""A driver that never returns: its values grow old, everything else works, and the process can exit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.fakes import fake_nvml

_HANG_LATER = """
import json, os, time
from epochtop.engine.hardware import Sampler, identify
sampler = Sampler()
machine = identify(watch=sampler.gpus, patience_s=60)
first = sampler.sample(patience_s=60)
os.environ["FAKE_NVML_HANG"] = "{function}"
old = sampler.sample(patience_s=0.05)
time.sleep(0.05)
older = sampler.sample(patience_s=0.05)
del os.environ["FAKE_NVML_HANG"]
well = sampler.sample(patience_s=60)
print(json.dumps({{
    "gpus": [len(machine.gpus), len(old.gpus), old.gpus == first.gpus],
    "ages": [first.gpu_age_s, old.gpu_age_s, older.gpu_age_s, well.gpu_age_s],
    "memory": [old.memory_usable_bytes, older.cpu_percent.value is not None or older.cpu_percent.reason != ""],
}}))
"""


@pytest.mark.parametrize("function", ["nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPcieThroughput"])
def test_values_of_a_driver_that_hangs_stay_and_have_an_age(library: Path, function: str) -> None:
    answer = json.loads(fake_nvml.run(library, _HANG_LATER.format(function=function)))
    assert answer["gpus"] == [2, 2, True]
    first, old, older, well = answer["ages"]
    assert first == 0
    assert 0 < old < older
    assert well == 0  # it lives again
    assert answer["memory"][0] > 0
    assert answer["memory"][1]


_HANG_AT_ONCE = """
import json, os
from epochtop.engine.hardware import Sampler, identify
os.environ["FAKE_NVML_HANG"] = "nvmlInitWithFlags"
sampler = Sampler()
machine = identify(watch=sampler.gpus, patience_s=0.1)
sample = sampler.sample(patience_s=0.1)
silent = [machine.no_gpu_reason, machine.cpu.threads > 0, len(sample.gpus), sample.gpu_count]
del os.environ["FAKE_NVML_HANG"]
found = identify(watch=sampler.gpus, patience_s=60)
print(json.dumps([silent, len(found.gpus), sampler.sample(patience_s=60).gpu_count]))
"""


def test_a_driver_that_does_not_answer_gives_a_reason_and_is_used_once_it_answers(library: Path) -> None:
    silent, found, count = json.loads(fake_nvml.run(library, _HANG_AT_ONCE))
    assert silent == ["the NVIDIA driver does not answer", True, 0, 0]
    assert (found, count) == (2, 2)


def test_the_command_answers_while_the_driver_hangs(library: Path) -> None:
    """And the process ends, though a thread of it never will."""
    code = "from epochtop.tui.cli import hardware as t; t.PATIENCE_S = 0.2; raise SystemExit(t.print_hardware(True))"
    text = fake_nvml.run(library, code, FAKE_NVML_HANG="nvmlDeviceGetName")
    answer = json.loads(text)
    assert answer["no_gpu"] == "the NVIDIA driver does not answer"
    assert answer["memory"]["total"]["value"] > 0


def test_a_card_that_hangs_later_is_unknown_in_the_command(library: Path) -> None:
    code = "from epochtop.tui.cli import hardware as t; t.PATIENCE_S = 0.3; raise SystemExit(t.print_hardware(True))"
    answer = json.loads(fake_nvml.run(library, code, FAKE_NVML_HANG="nvmlDeviceGetPowerUsage"))
    assert answer["gpus"][0]["name"]["value"] == "NVIDIA Fake 0"
    assert answer["gpus"][0]["power"]["reason"] == "the driver did not answer in time"
