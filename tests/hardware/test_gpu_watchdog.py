"""A driver that never returns or crashes: its values grow old, everything else works, and the process can exit."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support.engines import HANGING_S
from tests.support.fakes import fake_nvml

_HANG_LATER = """
import json, os, pathlib, time
from epochtop.engine.hardware import Sampler, identify
sampler = Sampler()
machine = identify(watch=sampler.gpus, patience_s=240)
first = sampler.sample(patience_s=240)
control = pathlib.Path(os.environ["FAKE_NVML_CONTROL"])
control.write_text("{function}")
old = sampler.sample(patience_s=0.05)
time.sleep(0.05)
older = sampler.sample(patience_s=0.05)
control.write_text("")
well = sampler.sample(patience_s=240)
print(json.dumps({{
    "gpus": [len(machine.gpus), len(old.gpus), old.gpus == first.gpus],
    "ages": [first.gpu_age_s, old.gpu_age_s, older.gpu_age_s, well.gpu_age_s],
    "memory": [old.memory_usable_bytes, older.cpu_percent.value is not None or older.cpu_percent.reason != ""],
}}))
"""


@pytest.mark.parametrize("function", ["nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPcieThroughput"])
def test_values_of_a_driver_that_hangs_stay_and_have_an_age(library: Path, tmp_path: Path, function: str) -> None:
    code = _HANG_LATER.format(function=function)
    answer = json.loads(fake_nvml.run(library, code, FAKE_NVML_CONTROL=str(tmp_path / "control")))
    assert answer["gpus"] == [2, 2, True]
    first, old, older, well = answer["ages"]
    assert first == 0
    assert 0 < old < older
    assert well == 0  # it lives again
    assert answer["memory"][0] > 0
    assert answer["memory"][1]


_HANG_AT_ONCE = """
import json, os, pathlib
from epochtop.engine.hardware import Sampler, identify
control = pathlib.Path(os.environ["FAKE_NVML_CONTROL"])
control.write_text("nvmlInitWithFlags")
sampler = Sampler()
machine = identify(watch=sampler.gpus, patience_s=0.1)
sample = sampler.sample(patience_s=0.1)
silent = [machine.no_gpu_reason, machine.cpu.threads > 0, len(sample.gpus), sample.gpu_count]
control.write_text("")
answered = identify(watch=sampler.gpus, patience_s=240)
print(json.dumps([silent, len(answered.gpus), sampler.sample(patience_s=240).gpu_count]))
"""


def test_a_driver_that_does_not_answer_gives_a_reason_and_is_used_once_it_answers(
    library: Path, tmp_path: Path
) -> None:
    text = fake_nvml.run(library, _HANG_AT_ONCE, FAKE_NVML_CONTROL=str(tmp_path / "control"))
    silent, gpu_count, count = json.loads(text)
    assert silent == ["the NVIDIA driver does not answer", True, 0, 0]
    assert (gpu_count, count) == (2, 2)


def test_the_command_answers_while_the_driver_hangs(library: Path) -> None:
    """And the process ends, though a thread of it never will."""
    code = (
        "from epochtop.tui.cli import hardware; from epochtop.tui.client import job_advice; job_advice.PATIENCE_S = 0.2; "
        "raise SystemExit(hardware.print_hardware(True))"
    )
    text = fake_nvml.run(library, code, FAKE_NVML_HANG="nvmlDeviceGetName")
    answer = json.loads(text)
    assert answer["no_gpu"] == "the NVIDIA driver does not answer"
    assert answer["memory"]["total"]["value"] > 0


def test_a_card_that_hangs_later_is_unknown_in_the_command(library: Path) -> None:
    code = (
        "from epochtop.tui.cli import hardware; from epochtop.tui.client import job_advice as t; "
        "identify, t.PATIENCE_S = t.identify, 0.3; "
        "t.identify = lambda watch, patience_s: identify(watch=watch, patience_s=240); "
        "raise SystemExit(hardware.print_hardware(True))"
    )
    answer = json.loads(fake_nvml.run(library, code, FAKE_NVML_HANG="nvmlDeviceGetPowerUsage"))
    assert answer["gpus"][0]["name"]["value"] == "NVIDIA Fake 0"
    assert answer["gpus"][0]["power"]["reason"] == "the driver did not answer in time"


_CRASH = """
import json, os, pathlib, time
from epochtop.engine.hardware import Sampler, identify
from epochtop.engine.hardware.gpu import watchdog
watchdog.PAUSES_S = (0.01,)
control = pathlib.Path(os.environ["FAKE_NVML_CONTROL"])
control.write_text("crash:{at_start}")
sampler = Sampler()
machine = identify(watch=sampler.gpus, patience_s=240)
control.write_text("")
deadline = time.monotonic() + 240
while sampler.sample(patience_s=0.2).gpu_count < 2 and time.monotonic() < deadline:
    pass
well = sampler.sample(patience_s=240)
control.write_text("crash:nvmlDeviceGetPowerUsage")
crashed = sampler.sample(patience_s=0.2)
control.write_text("")
while sampler.sample(patience_s=0.2).gpu_age_s > 0 and time.monotonic() < deadline:
    pass
again = sampler.sample(patience_s=240)
sampler.close()
print(json.dumps([machine.no_gpu_reason, len(well.gpus), len(crashed.gpus), crashed.gpu_age_s > 0, again.gpus[1].power_w.value]))
"""


def test_a_crash_inside_the_driver_takes_only_its_own_process(library: Path, tmp_path: Path) -> None:
    code = _CRASH.format(at_start="nvmlInitWithFlags")
    text = fake_nvml.run(library, code, FAKE_NVML_CONTROL=str(tmp_path / "control"))
    reason, well, crashed, is_old, power = json.loads(text)
    assert reason == "NVIDIA's library crashed (SIGABRT); it is tried again"
    assert (well, crashed, is_old, power) == (2, 2, True, 412.3)


_NO_CHILD_LEFT = """
import os, pathlib, sys, time
from epochtop.engine.hardware import Sampler, identify
sampler = Sampler()
identify(watch=sampler.gpus, patience_s=240)
names = [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline")]
children = [p.parent.name for p in names if b"gpu.child" in p.read_bytes() and f"PPid:\\t{os.getpid()}\\n" in (p.parent / "status").read_text()]
print(*children)
"""


def test_the_child_process_ends_with_its_parent(library: Path) -> None:
    (child,) = fake_nvml.run(library, _NO_CHILD_LEFT).split()
    deadline = time.monotonic() + HANGING_S
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
