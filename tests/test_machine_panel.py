"""The machine panel as rows of characters: what is shown at which size, and that nothing jumps, jams or hangs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.geometry import Region

from engine.facts import CoreLoad, Cpu, Fact, Gpu, GpuSample, Machine, Sample
from tui.machine import MachinePanel
from tui.machine_rows import Histories, blocks, cut, fit, graph

GIB = 1 << 30
WIDTHS = (37, 60, 76)


def a_machine(gpus: int | tuple[Gpu, ...] = 0, **changes: Any) -> Machine:
    cards = tuple(a_gpu(index) for index in range(gpus)) if isinstance(gpus, int) else gpus
    facts: dict[str, Any] = {
        "host": "cpu-box-3",
        "os": "Linux 6.8.0",
        "cpu": Cpu(
            model=Fact("AMD EPYC 9634"),
            vendor=Fact("AMD"),
            microarchitecture=Fact("Zen 4"),
            cores=Fact(84),
            threads=168,
        ),
        "runnable_cpus": 168,
        "usable_cpus": 2,
        "usable_cpus_reason": "cgroup",
        "memory_bytes": 188 * GIB,
        "usable_memory_bytes": 24 * GIB,
        "usable_memory_reason": "cgroup",
        "gpus": cards,
        "no_gpu_reason": "" if cards else "no NVIDIA driver found",
    }
    if cards:
        facts |= {"driver_version": Fact("550.54.14"), "cuda_version": Fact("12.4")}
    return Machine(**(facts | changes))


def a_gpu(index: int, **changes: Any) -> Gpu:
    facts: dict[str, Any] = {"name": Fact("NVIDIA H200"), "uuid": Fact(f"GPU-{index}"), "memory_bytes": Fact(140 * GIB)}
    return Gpu(index=index, **(facts | changes))


def a_load(index: int, **changes: Any) -> GpuSample:
    facts: dict[str, Any] = {
        "utilization_percent": Fact(97.0),
        "memory_used_bytes": Fact(12 * GIB),
        "memory_total_bytes": Fact(140 * GIB),
        "temperature_c": Fact(61.0),
        "power_w": Fact(412.3),
        "power_limit_w": Fact(700.0),
    }
    return GpuSample(index=index, **(facts | changes))


def a_sample(gpus: int | tuple[GpuSample, ...] = 0, **changes: Any) -> Sample:
    loads = tuple(a_load(index) for index in range(gpus)) if isinstance(gpus, int) else gpus
    facts: dict[str, Any] = {
        "cpu_percent": Fact(97.0),
        "core_percents": tuple(CoreLoad(cpu, 50.0) for cpu in range(168)),
        "memory_used_bytes": int(1.2 * GIB),
        "memory_usable_bytes": 24 * GIB,
        "gpus": loads,
    }
    return Sample(**(facts | changes))


def rows(machine: Machine, sample: Sample | None, width: int, height: int = 6) -> list[str]:
    """The rows after one sample, as text."""
    histories = Histories()
    if sample:
        histories.add(sample)
    return ["".join(span.text for span in row) for row in fit(blocks(machine, sample, histories, width), width, height)]


class Stage(App[None]):
    """An app of one panel with a border."""

    CSS = "MachinePanel { border: round $primary; }"

    def __init__(self, panel: MachinePanel) -> None:
        super().__init__()
        self.panel = panel

    def compose(self) -> ComposeResult:
        yield self.panel


def shown(panel: MachinePanel) -> list[str]:
    return [panel.render_line(y).text for y in range(panel.size.height)]


class Clock:
    """A clock that stands still until it is set."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


# --- rows -------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("width", WIDTHS)
def test_unknown_figures_are_dashes_of_the_same_width(width: int) -> None:
    known = rows(a_machine(1), a_sample(1), width, 7)
    blank = a_load(0, temperature_c=Fact(reason="no permission"), power_w=Fact(reason="no permission"))
    unknown = rows(a_machine(1), a_sample((blank,), cpu_percent=Fact(reason="first")), width, 7)
    assert [len(row) for row in unknown] == [len(row) for row in known]
    assert "—" in unknown[2]
    assert unknown[5].count("—") == 2


def test_a_gpu_without_utilization_says_why_in_its_row() -> None:
    text = rows(a_machine(1), a_sample((a_load(0, utilization_percent=Fact(reason="MIG is on")),)), 37, 7)
    assert text[5] == "GPU0 — MIG is on    —    61 °C  412 W"


def test_a_lost_gpu_has_its_row_for_the_reason() -> None:
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


def test_a_gpu_that_shares_memory_says_so() -> None:
    shared = Fact[int](reason="shares the system's memory")
    load = a_load(0, memory_used_bytes=shared, memory_total_bytes=shared)
    text = rows(a_machine((a_gpu(0, memory_bytes=shared),)), a_sample((load,)), 60, 7)
    assert text[6].strip() == "— shares the system's memory"


def test_graphs_have_eight_levels_and_blanks() -> None:
    assert graph([0, 12.4, 12.5, 50, 99, 100, None]) == "▁▁▂▅██ "


def test_words_are_cut_with_a_mark() -> None:
    assert cut("NVIDIA GeForce RTX 4070", 10) == "NVIDIA Ge…"
    assert cut("NVIDIA", 0) == ""


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 40),
    gpus=st.integers(0, 9),
    percent=st.floats(0, 100),
    used=st.integers(0, 24 * GIB),
)
def test_rows_fit_and_keep_their_numbers_whole(width: int, height: int, gpus: int, percent: float, used: int) -> None:
    sample = a_sample(gpus, cpu_percent=Fact(percent), memory_used_bytes=used)
    text = rows(a_machine(gpus), sample, width, height)
    assert len(text) <= height
    assert all(len(row) <= width for row in text)
    numbers = f"{used / GIB:.1f} / 24.0 GiB"
    for row in text:
        if row.startswith("Mem"):
            assert numbers in row or "GiB" not in row


@given(samples=st.lists(st.tuples(st.floats(0, 100), st.integers(0, 24 * GIB)), min_size=2, max_size=5))
def test_numbers_stay_where_they_are(samples: list[tuple[float, int]]) -> None:
    histories, ends = Histories(), set()
    for percent, used in samples:
        sample = a_sample(1, cpu_percent=Fact(percent), memory_used_bytes=used)
        histories.add(sample)
        found = fit(blocks(a_machine(1), sample, histories, 37), 37, 7)
        text = ["".join(span.text for span in row) for row in found]
        ends.add((text[2].index("%"), text[3].index("GiB"), text[3].index("/"), *(len(row) for row in text)))
    assert len(ends) == 1


# --- the widget -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
async def test_the_widget_shows_the_rows_padded_to_its_width(width: int) -> None:
    panel = MachinePanel(live=False)
    async with Stage(panel).run_test(size=(width + 2, 24)) as pilot:
        await pilot.pause()
        assert shown(panel)[0].rstrip() == "reading the machine …"
        panel.show_machine(a_machine(1))
        panel.show_sample(a_sample(1))
        await pilot.pause()
        assert panel.size.width == width
        assert shown(panel) == [row.ljust(width) for row in rows(a_machine(1), a_sample(1), width, 7)]
        assert panel.border_title == "Machine"
        assert panel.can_focus


async def test_a_new_size_is_a_new_layout() -> None:
    panel = MachinePanel(live=False)
    async with Stage(panel).run_test(size=(39, 24)) as pilot:
        panel.show_machine(a_machine(1))
        panel.show_sample(a_sample(1))
        await pilot.resize_terminal(78, 24)
        await pilot.pause()
        assert shown(panel) == [row.ljust(76) for row in rows(a_machine(1), a_sample(1), 76, 7)]


async def test_only_rows_that_changed_are_painted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = MachinePanel(live=False)
    async with Stage(panel).run_test(size=(39, 24)) as pilot:
        panel.show_machine(a_machine())
        for _ in range(40):  # until the graphs are full of the same
            panel.show_sample(a_sample())
        await pilot.pause()
        painted: list[Region] = []
        monkeypatch.setattr(panel, "refresh", lambda *regions, **_: painted.extend(regions))
        panel.show_sample(a_sample())
        assert painted == []
        panel.show_sample(a_sample(cpu_percent=Fact(96.0)))
        assert painted == [Region(0, 2, 37, 1)]


async def test_the_screen_has_what_the_rows_say_after_a_partial_paint() -> None:
    panel = MachinePanel(live=False)
    app = Stage(panel)
    async with app.run_test(size=(39, 24)) as pilot:
        panel.show_machine(a_machine())
        panel.show_sample(a_sample())
        await pilot.pause()
        panel.show_sample(a_sample(cpu_percent=Fact(5.0)))
        await pilot.pause()
        strips = app.screen._compositor.render_strips()
        assert "▁   5 %  2 CPUs" in strips[3].text


async def test_the_tooltip_gives_every_reason() -> None:
    panel = MachinePanel(live=False)
    async with Stage(panel).run_test(size=(39, 24)):
        panel.show_machine(a_machine(1))
        panel.show_sample(a_sample((a_load(0, power_w=Fact(reason="not supported by this card")),)))
        assert panel.tooltip == "GPU 0 power: not supported by this card"
        panel.show_sample(a_sample(1))
        assert panel.tooltip is None


async def test_values_go_stale_after_three_seconds_and_fresh_again() -> None:
    clock = Clock()
    panel = MachinePanel(live=False, clock=clock)
    async with Stage(panel).run_test(size=(39, 24)):
        panel.show_machine(a_machine())
        panel.show_sample(a_sample())
        clock.seconds += 3
        panel.check_age()
        assert not panel.has_class("-stale")
        fresh = panel.render_line(2)
        clock.seconds += 0.1
        panel.check_age()
        assert panel.has_class("-stale")
        assert panel.border_subtitle == "stale"
        assert "no answer from the sensors" in str(panel.tooltip)
        assert panel.render_line(2).text == fresh.text
        assert panel.render_line(2) != fresh
        panel.show_sample(a_sample())
        assert not panel.has_class("-stale")
        assert not panel.border_subtitle


class Script:
    """A source that gives what it is told to; an exception is raised, an event is waited for."""

    def __init__(self, machine: Machine | Exception, *samples: Sample | Exception | threading.Event) -> None:
        self.machine = machine
        self.samples: Iterator[Sample | Exception | threading.Event] = iter(samples)
        self.threads: set[str] = set()

    def identify(self) -> Machine:
        self.threads.add(threading.current_thread().name)
        if isinstance(self.machine, Exception):
            raise self.machine
        return self.machine

    def sample(self) -> Sample:
        self.threads.add(threading.current_thread().name)
        match next(self.samples):
            case threading.Event() as event:
                event.wait(60)
                raise OSError("too late")
            case Exception() as error:
                raise error
            case sample:
                return sample


async def until(pilot: Any, condition: Any) -> None:
    while not condition():  # the time limit of the test is the limit
        await pilot.pause(0.01)


async def test_a_live_panel_reads_its_source_in_a_thread() -> None:
    source = Script(a_machine(), a_sample())
    panel = MachinePanel(source)
    async with Stage(panel).run_test(size=(39, 24)) as pilot:
        await until(pilot, lambda: any("97 %" in row for row in shown(panel)))
        assert shown(panel)[0].startswith("AMD EPYC 9634")
    assert source.threads == {"sensors"}


async def test_a_source_that_fails_says_so_and_the_app_lives() -> None:
    panel = MachinePanel(Script(OSError("no /proc here")))
    async with Stage(panel).run_test(size=(39, 24)) as pilot:
        await until(pilot, lambda: "no /proc here" in shown(panel)[0])


async def test_a_hanging_sensor_keeps_the_last_values_and_marks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sick = Clock(), threading.Event()
    monkeypatch.setattr("tui.machine.INTERVAL_S", 0.01)
    panel = MachinePanel(Script(a_machine(), a_sample(), sick), clock=clock)
    async with Stage(panel).run_test(size=(39, 24)) as pilot:
        await until(pilot, lambda: any("97 %" in row for row in shown(panel)))
        clock.seconds += 60
        await until(pilot, lambda: panel.has_class("-stale"))
        assert any("97 %" in row for row in shown(panel))
    sick.set()


def test_a_hanging_sensor_does_not_keep_the_app_from_exiting() -> None:
    code = """
import asyncio, threading
from tests.test_machine_panel import MachinePanel, Stage

class Sick:
    def identify(self):
        hanging.set()
        threading.Event().wait()

async def main():
    async with Stage(MachinePanel(Sick())).run_test() as pilot:
        while not hanging.is_set():
            await pilot.pause(0.01)

hanging = threading.Event()
asyncio.run(main())
print("out")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "out\n", done.stderr


def test_no_color_paints_every_segment_with_a_style() -> None:
    code = """
import asyncio, os
os.environ["NO_COLOR"] = "1"
from tests.test_machine_panel import MachinePanel, Stage, a_machine, a_sample

async def main():
    panel = MachinePanel(live=False)
    app = Stage(panel)
    async with app.run_test() as pilot:
        panel.show_machine(a_machine(1))
        panel.show_sample(a_sample(1))
        await pilot.pause()
        assert all(segment.style is not None for y in range(9) for segment in panel.render_line(y))
        print(app.no_color, "97 %" in app.export_screenshot().replace("&#160;", " "))

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "True True\n", done.stderr


def test_the_panel_imports_no_sensors() -> None:
    code = "import sys, tui.machine; print([m for m in ('psutil','pynvml','archspec','torch','numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
