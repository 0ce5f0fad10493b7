"""`Analyze`: the parts of a step and every line that reads a tensor, measured in a live script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epochtop.engine.protocol.commands import Analyze
from epochtop.engine.protocol.events import Analyzed, DeviceRead
from epochtop.engine.runs.reader import Follower
from epochtop.engine.runs.writer import send
from epochtop.hooks.analysis.operators import union_length
from epochtop.hooks.hooked import Hooks
from epochtop.supervisor.record import create_run
from epochtop.supervisor.supervise import hooked_environment
from epochtop.tui.cells.rows import uncolored
from epochtop.tui.screens.analysis import analysis_rows, gains
from tests.support.engines import HANGING_S, wait_until

PROGRAM = Path(__file__).parent / "programs" / "analyzed.py"


def test_a_live_script_is_measured_and_left_as_it_was(home: Path, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    run, lock = create_run(["analyzed"], "")
    environment = hooked_environment(run, False, {**os.environ, "OMP_NUM_THREADS": "1"})
    command = [sys.executable, PROGRAM, stop]
    with (
        lock,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as script,
    ):
        wait_until(lambda: (run / "events.jsonl").stat().st_size > 0)
        send(run, Analyze(steps=20))
        wait_until(lambda: b'"Analyzed"' in (run / "events.jsonl").read_bytes())
        stop.touch()
        printed, _ = script.communicate(timeout=HANGING_S)
    follower = Follower(run)
    (result,) = [event for event in follower.read_all() if isinstance(event, Analyzed)]
    follower.close()
    assert printed.startswith("left behind: [] _wrapped_call_impl")
    check(result)


def check(result: Analyzed) -> None:
    """What the program does is what was found."""
    lines = PROGRAM.read_text(encoding="utf-8").splitlines()
    expected = {(n, match[1]) for n, line in enumerate(lines, 1) if (match := re.search(r"# read: (\S+)$", line))}
    reads = {(read.line, read.call): read.count for read in result.reads if read.file == str(PROGRAM)}
    by_torch = {n for n, line in enumerate(lines, 1) if "DataLoader(" in line or "optimizer.step()" in line}
    assert {place for place in reads if place[0] not in by_torch} == expected
    assert all(abs(reads[place] - result.steps) <= 1 for place in expected)
    assert {read.device for read in result.reads} == {"cpu"}
    assert set(result.parts_ms) == {"data_wait", "forward", "backward", "optimizer", "rest"}
    assert all(part > 0 for part in result.parts_ms.values())
    assert sum(result.parts_ms.values()) == pytest.approx(result.step_ms)
    assert (result.steps, result.profiled_steps) == (15, 5)
    names = {operator.name for operator in result.operators}
    assert names & {"aten::addmm", "aten::linear", "aten::mm"}
    assert result.device_idle_percent is None


READ = DeviceRead(
    file="/home/me/train.py", line=40, function="train", call="item()", device="cuda:0", count=15, blocked_ms=60.0
)
PARTS = {"data_wait": 2.0, "forward": 1.0, "backward": 1.0, "optimizer": 1.0, "rest": 5.0}


def analyzed(idle_percent: float | None = None) -> Analyzed:
    return Analyzed(
        time=0.0,
        first_step=100,
        steps=15,
        step_ms=10.0,
        parts_ms=PARTS,
        reads=(READ,),
        device_idle_percent=idle_percent,
    )


def test_what_removing_a_wait_gains_at_most_is_computed_from_the_step() -> None:
    """The read blocks 60 ms / 15 steps = 4 ms of 10 ms, data 2 ms: 10 / 6 and 10 / 8."""
    assert gains(analyzed()) == [
        "at most 1.67 × faster without item() in train.py:40",
        "at most 1.25 × faster if data were always ready",
    ]


def test_a_step_is_never_shorter_than_the_time_that_the_device_needs() -> None:
    """The device is busy for 7 of 10 ms."""
    assert gains(analyzed(idle_percent=30.0))[0] == "at most 1.43 × faster without item() in train.py:40"
    assert gains(analyzed(idle_percent=2.0)) == ["The device limits the step: it is busy almost all the time."]


@pytest.mark.parametrize("width", [78, 118])
def test_the_screen_fits_its_width(width: int) -> None:
    rows = [uncolored(row) for row in analysis_rows(analyzed(idle_percent=30.0), width)]
    assert max(map(len, rows)) <= width
    assert "A step takes 10 ms, mean of 15 steps" in rows[0]
    assert any("/home/me/train.py:40" in row and "4.000" in row for row in rows)


def test_overlapping_kernels_count_once() -> None:
    assert union_length([(0, 4), (2, 6), (8, 9), (8.5, 8.6)]) == 7


def test_steps_after_the_last_one_are_not_measured() -> None:
    """While a thread described the result of a busy machine, as many steps again made a second one."""
    hooks: Any = Hooks.__new__(Hooks)
    ended: list[int] = []
    hooks._meter = SimpleNamespace(on_boundary=hooks._continue_analysis)
    hooks._analysis = SimpleNamespace(end_step=lambda: ended.append(1), is_over=True)
    for step in range(30):
        if hooks._meter.on_boundary is not None:
            hooks._meter.on_boundary(step)
    assert len(ended) == 1
    assert hooks._analysis is not None  # until its result is there
