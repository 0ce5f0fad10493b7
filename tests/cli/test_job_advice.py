"""`epochtop train` says once, on standard error, what speaks against the job on this machine."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import torch

from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.requests import Accepted, Plan
from epochtop.engine.runs.paths import RECORD
from epochtop.engine.runs.writer import encode
from epochtop.tui.cli import train
from epochtop.tui.cli.main import run
from tests.hardware.test_job_fit import a_product
from tests.support.engines import Engine
from tests.support.lab_runs import write_experiment

JOB = ("train", "--device", "cpu", "--threads", "1", "--epochs", "2")


def measured(home: Path) -> None:
    """A result of the lab on this host: 120 GFLOP/s."""
    folder = write_experiment(home, "matmul-20261129-100000-aaaa", [a_product("cpu", "fp32", 120.0)])
    record = msgspec.json.decode((folder / RECORD).read_bytes(), type=RunRecord)
    (folder / RECORD).write_bytes(encode(msgspec.structs.replace(record, host=platform.node())))


@pytest.mark.skipif(torch.version.cuda is not None, reason="needs a torch without CUDA")
def test_advice_before_a_job_is_on_standard_error(
    home: Path, library: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    standby = SimpleNamespace(describe=engine.describe, begin=engine.begin, ready=lambda: engine.ready)

    def ask(request: Callable[[object], Plan]) -> Plan:
        return request(standby)

    def start(request: Callable[[object], Accepted]) -> tuple[Path, object]:
        return Path(request(standby).run), standby

    monkeypatch.setattr(train, "ask", ask)
    monkeypatch.setattr(train, "start", start)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))  # for the child process that asks the driver
    measured(home)
    for option in ("--summary", "--detach"):
        assert run([*JOB, option]) == 0
        output, errors = capsys.readouterr()
        assert errors.splitlines() == [
            f"epochtop: the job runs on the CPU: torch {torch.__version__} is built without CUDA and cannot use the GPUs",
            "epochtop: its matrix products take seconds at the 120 GFLOP/s that the lab measured here",
        ]
        assert "GFLOP" not in output
