"""The machine panel as rows of characters: what it shows at which size, without jumps or cut numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.hardware import Cpu, Fact, GpuSample
from epochtop.tui.cells.gauges import Histories, graph, tall_graph
from epochtop.tui.cells.rows import cut
from epochtop.tui.machine.rows import blocks, fit, panel_rows
from tests.support.fakes.machines import GIB, a_gpu, a_load, a_machine, a_sample, rows


def test_the_panel_of_a_machine_without_gpu() -> None:
    assert rows(a_machine(), a_sample(), 37) == [
        "AMD EPYC 9634 · Zen 4",
        "2 of 168 threads usable (cgroup)",
        "CPU                 █  97 %  2 CPUs",
        "Mem                 ▁  1.2 / 24.0 GiB",
        "GPU  — no NVIDIA driver found",
        "cpu-box-3 · Linux 6.8.0",
    ]


def test_the_panel_of_a_machine_with_a_gpu() -> None:
    assert rows(a_machine(1), a_sample(1), 37, 7) == [
        "AMD EPYC 9634 · Zen 4",
        "2 of 168 threads usable (cgroup)",
        "CPU             █  97 %  2 CPUs",
        "Mem             ▁  1.2 / 24.0 GiB",
        "GPU0 NVIDIA H200",
        "GPU0            █  97 %  61 °C  412 W",
        "                ▁  12 / 140 GiB",
    ]


def test_a_wide_and_tall_panel_shows_cores_limits_and_versions() -> None:
    text = rows(a_machine(1), a_sample(1), 76, 30)
    assert "84 cores · 2 of 168 threads usable (cgroup)" in text
    assert "driver 550.54.14 · up to CUDA 12.4" in text
    assert any(row.endswith("412/700 W") for row in text)
    assert "".join(row[5:] for row in text[3:6]) == "▅" * 168
    assert text[3].startswith("Core ")


def test_the_least_important_rows_go_first() -> None:
    assert [row[:4] for row in rows(a_machine(1), a_sample(1), 37, 3)] == ["CPU ", "Mem ", "GPU0"]
    assert [row[:3] for row in rows(a_machine(), a_sample(), 37, 2)] == ["CPU", "Mem"]


def test_gpus_that_do_not_fit_are_counted() -> None:
    text = rows(a_machine(8), a_sample(8), 37, 6)
    assert [row[:4] for row in text[:-1]] == ["CPU ", "Mem ", "GPU0", "GPU1", "GPU2"]
    assert text[-1] == "… 5 more GPUs"


def test_a_hybrid_processor_shows_both_kinds() -> None:
    cpu = Cpu(
        model=Fact("Intel Core i7-12800HX"),
        vendor=Fact("Intel"),
        microarchitecture=Fact("Alder Lake"),
        cores=Fact(16),
        threads=24,
        performance_cores=8,
        efficiency_cores=8,
    )
    machine = a_machine(cpu=cpu, runnable_cpus=24, usable_cpus=24, usable_cpus_reason="")
    assert "8 P + 8 E cores · 24 threads" in rows(machine, a_sample(), 37)


@pytest.mark.parametrize("width", [37, 60, 76])
def test_unknown_figures_are_dashes_of_the_same_width(width: int) -> None:
    known = rows(a_machine(1), a_sample(1), width, 7)
    blank = a_load(0, temperature_c=Fact(reason="no permission"), power_w=Fact(reason="no permission"))
    unknown = rows(a_machine(1), a_sample((blank,), cpu_percent=Fact(reason="first")), width, 7)
    assert [len(row) for row in unknown] == [len(row) for row in known]
    assert "—" in unknown[2]
    assert unknown[5].count("—") == 2


def test_a_gpu_without_utilization_shows_the_reason_in_its_row() -> None:
    text = rows(a_machine(1), a_sample((a_load(0, utilization_percent=Fact(reason="MIG is on")),)), 37, 7)
    assert text[5] == "GPU0 — MIG is on    —    61 °C  412 W"


def test_the_row_of_a_lost_gpu_shows_the_reason() -> None:
    lost = Fact[Any](reason="GPU is lost: it needs a reset or a reboot")
    load = GpuSample(
        index=0,
        utilization_percent=lost,
        memory_used_bytes=lost,
        memory_total_bytes=lost,
        temperature_c=lost,
        power_w=lost,
        power_limit_w=lost,
    )
    text = rows(a_machine((a_gpu(0, name=lost, memory_bytes=lost),)), a_sample((load,)), 37, 7)
    assert text[5] == "GPU0 — GPU is lost: it needs a reset…"
    assert all(len(row) <= 37 for row in text)


def test_a_gpu_with_shared_memory_shows_the_reason() -> None:
    shared = Fact[int](reason="shares the system's memory")
    load = a_load(0, memory_used_bytes=shared, memory_total_bytes=shared)
    text = rows(a_machine((a_gpu(0, memory_bytes=shared),)), a_sample((load,)), 60, 7)
    assert text[6].strip() == "— shares the system's memory"


def test_graphs_have_eight_levels_and_blanks() -> None:
    assert graph([0, 12.4, 12.5, 50, 99, 100, None]) == "▁▁▂▅██ "


def test_a_cut_is_marked() -> None:
    assert cut("NVIDIA GeForce RTX 4070", 10) == "NVIDIA Ge…"
    assert cut("NVIDIA", 0) == ""


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 40),
    gpus=st.integers(0, 9),
    percent=st.floats(0, 100),
    used=st.integers(0, 24 * GIB),
)
def test_rows_fit_and_never_cut_numbers(width: int, height: int, gpus: int, percent: float, used: int) -> None:
    sample = a_sample(gpus, cpu_percent=Fact(percent), memory_used_bytes=used)
    text = rows(a_machine(gpus), sample, width, height)
    assert len(text) <= height
    assert all(len(row) <= width for row in text)
    numbers = f"{used / GIB:.1f} / 24.0 GiB"
    for row in text:
        if row.startswith("Mem"):
            assert numbers in row or "GiB" not in row


@given(samples=st.lists(st.tuples(st.floats(0, 100), st.integers(0, 24 * GIB)), min_size=2, max_size=5))
def test_numbers_keep_their_columns(samples: list[tuple[float, int]]) -> None:
    histories, ends = Histories(), set()
    for percent, used in samples:
        sample = a_sample(1, cpu_percent=Fact(percent), memory_used_bytes=used)
        histories.add(sample)
        text = [row.text for row in fit(blocks(a_machine(1), sample, histories, 37), 37, 7)]
        ends.add((text[2].index("%"), text[3].index("GiB"), text[3].index("/"), *(len(row) for row in text)))
    assert len(ends) == 1


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_high_panel_is_filled_by_its_graphs(gpus: int) -> None:
    histories, machine, height = Histories(), a_machine(gpus), 27
    for _ in range(240):
        histories.add(a_sample(gpus, cpu_percent=Fact(50.0)))
    texts = [row.text for row in panel_rows(machine, a_sample(gpus), histories, 60, height, 0, False)]
    assert height - 2 - 2 * gpus - 1 < len(texts) <= height
    cpu, cores = (next(place for place, row in enumerate(texts) if row.startswith(name)) for name in ("CPU", "Core"))
    assert texts[cpu].split() == ["CPU", "97", "%", "2", "CPUs"]
    graph = [row[5:] for row in texts[cpu + 1 : cores]]
    assert len(graph) >= 2
    assert graph[-1] == "█" * 55
    assert graph[0].strip() == ""
    assert len(panel_rows(machine, a_sample(gpus), histories, 60, 10, 0, False)) <= 10


def test_a_graph_of_several_rows_has_eight_levels_per_row() -> None:
    assert tall_graph([0.0, 25.0, 50.0, 75.0, 100.0, None], 7, 2) == ["    ▄█ ", " ▁▄███ "]
