"""Swap and the engine's process in a sample, and what a sample costs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from epochtop.engine.hardware import Roots, Sampler
from epochtop.engine.hardware.cpu.load import process_use
from tests.support.fakes.recorded import unpack

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def stat(pid: int, user_s: float, system_s: float, pages: int) -> str:
    """/proc/<pid>/stat, with a name that has spaces and brackets in it."""
    fields = ["0"] * 52
    fields[13], fields[14], fields[23] = (str(int(value)) for value in (user_s * TICKS, system_s * TICKS, pages))
    return " ".join([str(pid), "(a) b (c)", "R", *fields[3:]])


def process(roots: Roots, pid: int, *figures: float) -> None:
    folder = roots.proc / str(pid)
    folder.mkdir(exist_ok=True)
    (folder / "stat").write_text(stat(pid, figures[0], figures[1], int(figures[2])))


def test_the_engines_share_is_of_the_time_between_samples(tmp_path: Path) -> None:
    roots = unpack("wsl-ryzen", tmp_path)
    seconds = iter((10.0, 12.0, 14.0))
    sampler = Sampler(roots, clock=lambda: next(seconds))
    assert sampler.sample().engine is None
    sampler.engine_pid = 77
    process(roots, 77, 100, 5, 2048)
    first = sampler.sample().engine
    assert first is not None
    assert first.cpu_percent.value is None
    assert first.memory_bytes.value == 2048 * PAGE
    process(roots, 77, 102, 6, 1024)
    second = sampler.sample().engine
    assert second is not None
    assert second.cpu_percent.value == 150  # 3 CPU seconds in 2
    assert second.memory_bytes.value == 1024 * PAGE


def test_another_engine_starts_from_zero_and_a_missing_one_has_a_reason(tmp_path: Path) -> None:
    roots = unpack("wsl-ryzen", tmp_path)
    sampler = Sampler(roots)
    for pid in (77, 78):
        process(roots, pid, 100 * pid, 5, 2048)
        sampler.engine_pid = pid
        load = sampler.sample().engine
        assert load is not None
        assert load.cpu_percent.reason == "a load needs two readings"
    sampler.engine_pid = 79
    load = sampler.sample().engine
    assert load is not None
    assert load.memory_bytes.reason == "its process is not visible from here"


def test_a_process_of_this_machine() -> None:
    before, memory = process_use(os.getpid())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert process_use(os.getpid())[0] - before == pytest.approx(0.1, abs=0.05)
    assert 1 << 20 < memory < 1 << 40


def test_swap_is_used_or_there_is_none(tmp_path: Path) -> None:
    roots = unpack("wsl-ryzen", tmp_path)
    sample = Sampler(roots).sample()
    assert sample.swap_total_bytes.reason == "no swap on this machine"
    text = (roots.proc / "meminfo").read_text()
    (roots.proc / "meminfo").write_text(f"{text}SwapTotal:       4194304 kB\nSwapFree:        3145728 kB\n")
    sample = Sampler(roots).sample()
    assert (sample.swap_used_bytes.value, sample.swap_total_bytes.value) == (1 << 30, 4 << 30)
