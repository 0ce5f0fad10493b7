"""The machine panel as a widget: it paints changed cells, marks stale figures, and never waits for a sensor."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from epochtop.engine.hardware import Fact, Machine, Sample
from epochtop.tui.cells.gauges import HISTORY_LENGTH
from epochtop.tui.machine.panel import MachinePanel
from tests.support.engines import HANGING_S
from tests.support.fakes.machines import a_load, a_machine, a_sample, rows
from tests.support.ui.screens import until


class Stage(App[None]):
    """An app with just a panel, with a border."""

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


@pytest.mark.parametrize("width", [37, 60, 76])
async def test_the_widget_shows_the_rows_padded_to_its_width(width: int) -> None:
    panel = MachinePanel(live=False)
    async with Stage(panel).run_test(size=(width + 2, 24)) as pilot:
        await pilot.pause()
        assert shown(panel)[0].rstrip() == "reading the machine …"
        panel.show_machine(a_machine(1))
        panel.show_sample(a_sample(1))
        await pilot.pause()
        assert panel.size.width == width
        assert shown(panel) == [row.ljust(width) for row in rows(a_machine(1), a_sample(1), width, 8)]
        assert panel.border_title == "Machine"
        assert panel.can_focus


async def test_a_new_size_is_a_new_layout() -> None:
    panel = MachinePanel(live=False)
    async with Stage(panel).run_test(size=(39, 24)) as pilot:
        panel.show_machine(a_machine(1))
        panel.show_sample(a_sample(1))
        await pilot.resize_terminal(78, 24)
        wide = [row.ljust(76) for row in rows(a_machine(1), a_sample(1), 76, 8)]
        await until(pilot, lambda: shown(panel) == wide)


async def test_only_changed_cells_are_repainted(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = MachinePanel(live=False)
    async with Stage(panel).run_test(size=(39, 24)) as pilot:
        panel.show_machine(a_machine())
        for _ in range(2 * HISTORY_LENGTH):  # until the graphs are full of the same
            panel.show_sample(a_sample())
        await pilot.pause()
        painted: list[Region] = []
        monkeypatch.setattr(panel, "refresh", lambda *regions, **_: painted.extend(regions))
        panel.show_sample(a_sample())
        assert painted == []
        panel.show_sample(a_sample(cpu_percent=Fact(96.0)))
        assert painted == [Region(24, 2, 1, 1)]  # the 7 of 97 %


async def test_a_partial_repaint_reaches_the_screen() -> None:
    panel = MachinePanel(live=False)
    app = Stage(panel)
    async with app.run_test(size=(39, 24)) as pilot:
        panel.show_machine(a_machine())
        panel.show_sample(a_sample())
        await pilot.pause()
        panel.show_sample(a_sample(cpu_percent=Fact(5.0)))
        await pilot.pause()
        strips = app.screen._compositor.render_strips()
        assert "▅   5 %  2 CPUs" in strips[3].text


async def test_the_tooltip_gives_every_reason() -> None:
    panel = MachinePanel(live=False)
    async with Stage(panel).run_test(size=(39, 24)):
        panel.show_machine(a_machine(1))
        panel.show_sample(a_sample((a_load(0, power_w=Fact(reason="not supported by this card")),)))
        assert str(panel.tooltip) == "GPU 0 power: not supported by this card"
        panel.show_sample(a_sample(1))
        assert panel.tooltip is None


async def test_a_panel_that_is_not_live_never_becomes_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = MachinePanel(live=False)
    async with Stage(panel).run_test(size=(39, 24)):
        panel.show_sample(a_sample())
        now = time.monotonic()
        monkeypatch.setattr("epochtop.tui.machine.panel.time.monotonic", lambda: now + 60)
        panel.check_age()
        assert not panel.has_class("-stale")


async def test_figures_become_stale_after_three_seconds_and_fresh_with_a_sample() -> None:
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
        assert "no response from the sensors" in str(panel.tooltip)
        assert panel.render_line(2).text == fresh.text
        assert panel.render_line(2) != fresh
        panel.show_sample(a_sample())
        assert not panel.has_class("-stale")
        assert not panel.border_subtitle


class Script:
    """A source that returns its samples in turn; it raises an exception and waits for an event."""

    silence = "no response from the sensors"

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
                event.wait(HANGING_S)
                raise OSError("too late")
            case Exception() as error:
                raise error
            case sample:
                return sample


async def test_a_live_panel_reads_its_source_in_a_thread() -> None:
    source = Script(a_machine(), a_sample())
    panel = MachinePanel(source)
    async with Stage(panel).run_test(size=(39, 24)) as pilot:
        await until(pilot, lambda: any("97 %" in row for row in shown(panel)))
        assert shown(panel)[0].startswith("AMD EPYC 9634")
    assert source.threads == {"sensors"}


async def test_a_failing_source_shows_its_error_and_the_app_survives() -> None:
    panel = MachinePanel(Script(OSError("no /proc here")))
    async with Stage(panel).run_test(size=(39, 24)) as pilot:
        await until(pilot, lambda: "no /proc here" in shown(panel)[0])


async def test_a_hanging_sensor_leaves_the_last_figures_marked_as_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sick = Clock(), threading.Event()
    monkeypatch.setattr("epochtop.tui.machine.panel.INTERVAL_S", 0.01)
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
from tests.tui.machine.test_panel import MachinePanel, Stage

class Sick:
    silence = ""

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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGING_S)
    assert done.stdout == "out\n", done.stderr


def test_no_color_paints_every_segment_with_a_style() -> None:
    code = """
import asyncio, os
os.environ["NO_COLOR"] = "1"
from tests.support.engines import HANGING_S
from tests.support.fakes.machines import a_machine, a_sample
from tests.tui.machine.test_panel import MachinePanel, Stage

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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGING_S)
    assert done.stdout == "True True\n", done.stderr


def test_the_panel_imports_no_sensors() -> None:
    code = "import sys, epochtop.tui.machine.panel; print([m for m in ('psutil','pynvml','torch','numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
