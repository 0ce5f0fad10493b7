"""The machine panel of another machine: the facts that its own panel would show, and whose they are."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from epochtop.engine.hardware import UnreadableMachineError, identify
from epochtop.engine.hardware.remote.machine import check_identity, machine_from, sample_from
from epochtop.engine.runs.remote.host import Host
from epochtop.engine.runs.remote.mirror import Mirror
from epochtop.remote import gpus
from epochtop.remote.gpus import GpuLines
from epochtop.remote.machine import MachineWatch
from epochtop.tui.machine.source import OtherMachine
from tests.remote.machines import StandIn
from tests.support.engines import wait_until
from tests.support.fakes.recorded import unpack

GPU_LINE = "2, {index}, NVIDIA H200, GPU-{index}, 570.1, 143771, 1024, {load}, 41, 512.3, 700.00, 1755, 1980, 3201, 3201, [N/A], 5, 16"
LINES = [GPU_LINE.format(index=0, load=97), GPU_LINE.format(index=1, load="[Unknown Error]")]
SMI = "#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in LINES) + "exec sleep 1000\n"
FACTS = (
    "os", "cpu", "runnable_cpus", "usable_cpus", "usable_cpus_reason", "memory_bytes", "usable_memory_bytes",
    "usable_memory_reason", "other_gpus",
)  # fmt: skip
LOAD: dict[str, Any] = {
    "cpu_percent": 12.5, "cores": [[0, 25.0], [3, 0.0]], "memory_bytes": [1 << 30, 4 << 30], "swap_bytes": [0, 0],
    "gpus": {"lines": LINES, "age_s": 0.5, "problem": ""}, "engine": {"pid": 7, "percent": 101.0, "memory_bytes": 1024},
}  # fmt: skip


def program(folder: Path, text: str = SMI) -> None:
    """An nvidia-smi in a folder of programs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nvidia-smi").write_text(text)
    (folder / "nvidia-smi").chmod(0o755)


@pytest.mark.parametrize("name", ["alder-lake-hybrid", "epyc-masked-cgroup-v2", "xeon-docker-cgroup-v1", "wsl-ryzen"])
def test_a_machine_is_identified_like_this_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    roots = unpack(name, tmp_path)
    (roots.proc / "stat").touch()
    _, identity = MachineWatch(str(tmp_path)).identity()
    here = identify(roots, environment={})
    there = machine_from(identity, json.dumps(LOAD | {"gpus": {}}).encode())
    assert {fact: getattr(there, fact) for fact in FACTS} == {fact: getattr(here, fact) for fact in FACTS}
    assert there.gpus == ()


def test_a_sample_has_the_figures_that_were_sent() -> None:
    sample = sample_from(json.dumps(LOAD).encode())
    assert sample.cpu_percent.value == 12.5
    assert [(core.cpu, core.percent) for core in sample.core_percents] == [(0, 25.0), (3, 0.0)]
    assert (sample.memory_used_bytes, sample.memory_usable_bytes) == (1 << 30, 4 << 30)
    assert sample.swap_total_bytes.reason == "no swap on this machine"
    assert sample.engine is not None
    assert sample.engine.cpu_percent.value == 101.0
    first, second = sample.gpus
    assert (first.utilization_percent.value, first.temperature_c.value, first.power_w.value) == (97.0, 41.0, 512.3)
    assert first.memory_used_bytes.value == 1 << 30
    assert first.fan_percent.reason == "not reported"
    assert second.utilization_percent.reason == "unknown error"


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"host": "mac", "problem": "Darwin has no /proc\x1b[2J"}, r"Darwin has no /proc\\x1b\[2J"),
        ({"host": "box", "files": {"proc/../../x": ""}}, "invalid file name"),
        ({"host": "box", "files": {"etc/passwd": ""}}, "invalid file name"),
        ({"host": 7}, "cannot be understood"),
    ],
)
def test_a_message_that_cannot_be_used_is_refused(identity: dict[str, Any], message: str) -> None:
    def use() -> None:
        text = json.dumps(identity).encode()
        check_identity(text)
        machine_from(text, json.dumps(LOAD).encode())

    with pytest.raises(UnreadableMachineError, match=message):
        use()


def test_nvidia_smi_is_read_until_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "ELSEWHERE", ())
    monkeypatch.setattr(gpus, "AGAIN_S", 1e6)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    error = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    program(tmp_path, SMI.replace("exec sleep 1000", f'echo "{error}"'))
    lines = GpuLines()
    wait_until(lambda: lines.newest()["problem"] == error)
    assert lines.newest()["lines"] == LINES
    assert lines.is_known
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert GpuLines().newest()["problem"] == "no nvidia-smi there"


def test_figures_of_another_machine_come_again_after_a_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = StandIn(tmp_path / "box")
    program(tmp_path / "box" / "bin")
    box.use(monkeypatch)
    with closing(Mirror(Host("box", str(tmp_path)))) as mirror:
        source = OtherMachine(mirror.machine_feed, mirror.name, lambda: mirror.problem)
        source.watch_engine(os.getpid())
        wait_until(lambda: [gpu.name.value for gpu in source.identify().gpus] == ["NVIDIA H200", "NVIDIA H200"])
        sample = source.sample()
        assert sample.engine is not None
        assert sample.engine.memory_bytes.value
        assert source.silence == "no figures from box"
        box.unplug()
        wait_until(lambda: "connection to box lost" in source.silence)
        before, _ = mirror.machine_feed.load_after(0)
        box.plug()
        assert mirror.machine_feed.load_after(before)[0] > before
    with pytest.raises(ConnectionError, match="the connection was closed"):
        source.identify()
