"""The full page about the machine: every fact or its reason, and the keys that open it, switch GPUs and close it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.hardware import EngineLoad, Fact, GpuName, GpuProcess, MigDevice, OtherGpu
from epochtop.engine.protocol.events import Telemetry
from epochtop.engine.protocol.requests import DeviceFact, Ready
from epochtop.tui.cells.gauges import GRAPH
from epochtop.tui.cells.rows import FAINT
from epochtop.tui.machine.facts import cudnn
from epochtop.tui.machine.page import MachineSheet
from epochtop.tui.machine.page_rows import sheet
from epochtop.tui.machine.reasons import reasons
from epochtop.tui.machine.view import MachineView
from epochtop.tui.state.telemetry import RunTelemetry
from tests.support.fakes.machines import GIB, a_gpu, a_load, a_machine, a_sample
from tests.support.ui.screens import furnished, still_app


def ready(**changes: Any) -> Ready:
    facts: dict[str, Any] = {
        "torch_version": "2.13.0", "cuda_version": "12.8", "cudnn_version": 90100, "pid": 1, "python_version": "3.12.1",
        "python": "/env/bin/python", "devices": (DeviceFact(device="cpu", name="AMD EPYC"),),
    }  # fmt: skip
    return Ready(**(facts | changes))


def a_view(gpus: Any = 0, loads: Any = None, samples: int = 1, **machine: Any) -> MachineView:
    view = MachineView(machine=a_machine(gpus, **machine))
    for _ in range(samples):
        view.add(a_sample(loads if loads is not None else gpus if isinstance(gpus, int) else len(gpus)))
    return view


def text(view: MachineView, width: int = 78) -> list[str]:
    return [row.text for row in sheet(view, width)]


def after(rows: list[str], label: str) -> str:
    """The text next to a label, with its continuation rows."""
    place = next(number for number, row in enumerate(rows) if row.startswith(label))
    lines = [rows[place][13:]]
    for row in rows[place + 1 :]:
        if not row.startswith(" " * 13) or not row.strip():
            break
        lines.append(row[13:])
    return " ".join(lines)


FULL: dict[str, Any] = {
    "reading": GpuName("Hopper", "Hopper", "flagship", (), "data center"), "architecture": Fact("Hopper"),
    "compute_capability": Fact("9.0"), "multiprocessors": Fact(132), "cuda_cores": Fact(16896),
    "memory_bus_bits": Fact(6144), "memory_bandwidth_gbs": Fact(4916.7), "memory_type": Fact(reason="NVML does not tell"),
    "pcie_generation_max": Fact(5), "pcie_width_max": Fact(16), "power_limit_default_w": Fact(700.0),
    "power_limit_max_w": Fact(700.0), "temperature_limit_c": Fact(87.0), "sm_clock_max_mhz": Fact(1980), "ecc": Fact(True),
    "persistence": Fact(False), "compute_mode": Fact("default"), "cuda_index": Fact(1),
    "mig_devices": Fact(reason="MIG is off, or this card has none"),
}  # fmt: skip


def test_a_machine_without_gpu_says_why_and_what_its_processor_is_good_for() -> None:
    rows = text(a_view(no_gpu_reason="no NVIDIA driver found"))
    assert after(rows, "NVIDIA") == "— no NVIDIA driver found"
    assert "good for tables and small networks" in after(rows, "Good for")
    assert "2 of 168 threads (cgroup) and 24.0 of 188 GiB memory (cgroup)" in after(rows, "Limits")
    assert after(rows, "torch") == "— not reported by the engine yet"


def test_everything_about_a_gpu_is_there() -> None:
    card = a_gpu(0, **FULL)
    rows = text(a_view((card,), visible_devices="1,0"))
    assert "H200: Hopper generation, flagship, data center, 140 GiB" in " ".join(" ".join(rows).split())
    assert after(rows, "Kind") == "data center · flagship"
    assert after(rows, "Architecture") == "Hopper · compute capability 9.0"
    assert after(rows, "Chip") == "132 multiprocessors · 16,896 cores"
    assert any("140 GiB (type not reported by NVML) · bus 6,144 bit · 4,917 GB/s" in row for row in rows)
    assert after(rows, "PCIe      ") == "up to generation 5, 16 lanes"
    assert after(rows, "Power limit") == "700 W default, 700 W max"
    assert after(rows, "Modes") == "ECC on · persistence off · compute mode default"
    assert after(rows, "Numbers") == "NVML 0 · torch cuda:1 · CUDA_VISIBLE_DEVICES='1,0'"
    assert after(rows, "UUID") == "GPU-0"
    assert "slows at 87" in after(rows, "Temperature")
    assert "550.54.14 · supports CUDA up to 12.4" in after(rows, "Driver")


def test_a_load_without_busy_multiprocessors_is_explained() -> None:
    blank = a_load(0, sm_percent=Fact(reason="needs a Hopper or later GPU"))
    rows = text(a_view(1, (blank,)))
    assert "with a kernel running" in " ".join(rows)
    assert "— needs a Hopper or later GPU" in after(rows, "SM busy")
    real = a_load(0, sm_percent=Fact(41.5), tensor_percent=Fact(12.0), dram_percent=Fact(30.0))
    rows = text(a_view(1, (real,)))
    assert "with a kernel running" not in " ".join(rows)
    assert " 42 %" in after(rows, "SM busy")


def test_the_causes_of_lowered_clocks_are_listed() -> None:
    rows = text(a_view(1, (a_load(0, slowed_by=Fact(("power limit", "temperature"))),)))
    assert after(rows, "Slowed by") == "power limit, temperature"
    assert after(text(a_view(1, (a_load(0, slowed_by=Fact(())),))), "Slowed by") == "nothing"
    assert (
        after(text(a_view(1, (a_load(0, slowed_by=Fact(reason="no permission")),))), "Slowed by") == "— no permission"
    )


def test_processes_have_columns_and_reasons() -> None:
    visible = GpuProcess(pid=4711, user=Fact("ada"), memory_bytes=Fact(5 * GIB), command=Fact("python train.py"))
    other = Fact[str](reason="not visible from here")
    hidden = GpuProcess(pid=12, user=other, memory_bytes=Fact(reason="not told"), command=other)
    rows = text(a_view(1, (a_load(0, processes=Fact((visible, hidden))),)), 100)
    start = next(number for number, row in enumerate(rows) if row.startswith("Processes"))
    assert rows[start + 1].split() == ["4711", "ada", "5.0", "GiB", "python", "train.py"]
    assert rows[start + 2].split()[:3] == ["12", "—", "—"]
    assert "not visible from here" in rows[start + 2]
    unknown = a_load(0, processes=Fact(reason="the driver names no processes inside a container"))
    assert "inside a container" in after(text(a_view(1, (unknown,))), "Processes")
    assert after(text(a_view(1, (a_load(0, processes=Fact(())),))), "Processes") == "none"


def test_mig_devices_are_listed() -> None:
    one = MigDevice(name=Fact("MIG 3g.40gb"), uuid=Fact("MIG-1"), memory_bytes=Fact(40 * GIB), multiprocessors=Fact(60))
    rows = text(a_view((a_gpu(0, mig=True, mig_devices=Fact((one,))),)))
    assert after(rows, "MIG") == "MIG 3g.40gb, 40.0 GiB, 60 multiprocessors, MIG-1"


def test_figures_are_marked_if_the_driver_does_not_respond() -> None:
    view = a_view(1)
    view.add(a_sample(1, gpu_age_s=12.0))
    rows = sheet(view, 78)
    roles = {role for row in rows for role in row.roles if row.text.startswith(("Load", "Power  "))}
    assert FAINT in roles
    assert GRAPH not in roles
    assert "no response from the driver for 12 s" in after(text(view), "Stale")
    cpu = next(row for row in rows if row.text.startswith("CPU"))
    assert FAINT not in cpu.roles


def test_gpus_of_other_vendors_are_not_read() -> None:
    rocm = ready(cuda_version=None, hip_version="6.4", devices=(
        DeviceFact(device="cpu", name="x"),
        DeviceFact(device="cuda:0", name="AMD Instinct MI300X", memory_bytes=192 * GIB),
    ))  # fmt: skip
    view = a_view(other_gpus=(OtherGpu("AMD", "0000:03:00.0"),))
    assert "not read for this vendor" in after(text(view), "AMD")
    view.ready = rocm
    assert after(text(view), "cuda:0") == (
        "AMD Instinct MI300X · 192 GiB · load, temperature, power: not read for this vendor"
    )
    view.ready = ready(devices=(DeviceFact(device="mps", name="Apple GPU", memory_bytes=12 * GIB),))
    assert "Apple GPU · 12.0 GiB" in after(text(view), "mps")


def test_software_and_how_to_fix_it() -> None:
    view = a_view(1)
    view.ready = ready(torch_version="2.13.0+cpu", cuda_version=None, cudnn_version=None)
    rows = text(view, 100)
    assert after(rows, "torch") == "2.13.0+cpu, built for CPU only"
    assert "built without CUDA" in after(rows, "Mismatch")
    assert after(rows, "Fix it with") == "/env/bin/python -m pip install --force-reinstall 'torch==2.9.*'"
    view = a_view()
    view.ready = ready()
    assert after(text(view), "Versions") == "all compatible with each other"
    assert after(text(view), "cuDNN") == "9.1.0"


@pytest.mark.parametrize(("number", "text"), [(8005, "8.0.5"), (90100, "9.1.0"), (91002, "9.10.2")])
def test_cudnn_versions(number: int, text: str) -> None:
    assert cudnn(number) == text


def test_the_run_on_the_screen_shows_how_busy_its_device_was() -> None:
    view = a_view()
    view.run = RunTelemetry()
    assert not any("Displayed run" in row for row in text(view))
    for load in (0.0, 100.0):
        view.run.add(Telemetry(time=1.0, gpu_percent=load, engine_cpu_percent=100.0, power_w=300.0))
    view.run_memory = "26 KiB planned, 9.0 MiB peak"
    rows = text(view)
    assert after(rows, "GPU load").strip() == "▁█"
    assert "GPU busy 50 % of the time · 300 W · engine used 1.0 CPUs" in after(rows, "Summary")
    assert any("26 KiB planned, 9.0 MiB peak" in row for row in rows)


def test_the_engine_has_a_gauge() -> None:
    view = a_view()
    view.add(a_sample(engine=EngineLoad(pid=7, cpu_percent=Fact(101.0), memory_bytes=Fact(320 << 20))))
    assert "101 %" in after(text(view), "Engine")
    assert "320 MiB" in after(text(view), "Engine")


@given(width=st.integers(40, 200), gpus=st.integers(0, 8), selected=st.integers(0, 9))
def test_no_row_is_wider_than_the_page(width: int, gpus: int, selected: int) -> None:
    view = a_view(gpus, samples=2)
    view.select(selected)
    view.ready = ready()
    assert all(len(row) <= width for row in text(view, width))


def test_every_unknown_figure_has_its_reason_in_the_tooltip() -> None:
    load = a_load(0, power_w=Fact(reason="no permission"), fan_percent=Fact(reason="not supported by this card"))
    load = a_load(0, power_w=load.power_w, fan_percent=load.fan_percent, temperature_c=Fact(reason="no permission"))
    assert reasons(a_machine(1), a_sample((load,))) == [
        "GPU 0 temperature, power: no permission",
        "GPU 0 fan: not supported by this card",
    ]


# --- as a widget ------------------------------------------------------------------------------------------


def shown(app: Any) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_keys_open_and_close_the_page(home: Path, size: tuple[int, int]) -> None:
    app = still_app(home)
    async with app.run_test(size=size) as pilot:
        await furnished(pilot)
        await pilot.press("3")
        assert app.focused is app.main.machine
        assert "Processor" not in shown(app)
        await pilot.press("3")
        await pilot.pause()
        assert isinstance(app.focused, MachineSheet)
        assert "── Processor" in shown(app)
        assert "Loss" not in shown(app)
        await pilot.press("escape")
        await pilot.pause()
        assert app.focused is app.main.machine
        assert "── Processor" not in shown(app)
        await pilot.press("enter")
        await pilot.pause()
        assert "── Processor" in shown(app)
        await pilot.press("0")
        await pilot.pause()
        assert "Loss" in shown(app)


async def test_arrows_switch_gpus(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        panel = app.main.machine
        panel.show_machine(a_machine(3))
        panel.show_sample(a_sample(3))
        await pilot.press("3", "right")
        await pilot.pause()
        assert panel.view.selected == 1
        assert "GPU1 ▸ NVIDIA H200" in shown(app)
        await pilot.press("3", "right")
        await pilot.pause()
        assert "GPU 2 · 3 of 3" in shown(app)
        await pilot.press("right")
        await pilot.pause()
        assert "GPU 0 · 1 of 3" in shown(app)
        await pilot.press("left")
        await pilot.pause()
        assert "GPU 2 · 3 of 3" in shown(app)


async def test_only_a_visible_page_is_drawn(home: Path) -> None:
    app = still_app(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        page = app.main.query_one(MachineSheet)
        assert page.rows == []
        await pilot.press("3", "3")
        await pilot.pause()
        app.main.machine.show_sample(a_sample(cpu_percent=Fact(7.0)))
        await pilot.pause()
        assert "  7 %" in shown(app)
        assert page.render_line(0).text.startswith("── Processor")


@pytest.mark.parametrize("gpus", [0, 1])
def test_free_rows_go_to_the_graphs(gpus: int) -> None:
    view = a_view(gpus, samples=30)
    flat = [row.text for row in sheet(view, 198)]
    high = [row.text for row in sheet(view, 198, 55)]
    assert len(flat) < 40 < len(high) <= 55
    assert sum("█" in line for line in high) > sum("█" in line for line in flat) + 8
    numbers = [line for line in flat if "GiB" in line or "%" in line]
    assert all(any(word in line for line in high) for text in numbers for word in text.split() if word[0].isdigit())
    assert len(sheet(view, 198, len(flat))) == len(flat)
