"""The app in a pseudo-terminal: first frame, time from key to loss, bytes, memory, terminal sizes, long runs."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import psutil

from epochtop.engine.protocol.events import Logged, Losses, encode
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.series import TRAIN_LOSS, summary_of
from tests.bench.loop import ATTACHED_EPOCHS, SETTLE_S, with_the_app
from tests.bench.tables import Figure, show, spread
from tests.support.engines import finished as finished_run
from tests.support.runs import events_of, finished, started, write_run
from tests.support.ui.screens import furnished, show_run, still_app
from tests.support.ui.terminals import CTRL_Q, CTRL_S, Terminal

COMMAND = (sys.executable, "-P", "-m", "epochtop")
STARTS = 7
LENGTHS = {100_000: "≤ 0.8", 10_000_000: "≤ 1.5"}
"""Steps of a finished run, and the target in seconds for attaching to it."""
PART = 4_000
"""Steps per window."""
ROUNDS = 3
LIMIT_S = 60.0
OTHER = "other checkout, log of protocol 1"
SIZES = ((80, 24), (120, 40), (200, 60))
KEYS = {"l": ("log on", "log off"), "m": ("smooth 0.6", "smooth 0.9", "smooth 0.97", "smooth off")}
"""Keys that repaint the chart, and the text below the chart after each press."""
KEY_S = 0.7
"""Seconds to wait for the effect of a key."""
FRAMES = 21


ONE_TEXT = """
from textual.app import App
from textual.widgets import Static

class OneText(App):
    def compose(self):
        yield Static("Loss")

OneText().run()
"""
"""The smallest Textual app."""


def app(home: Path, *arguments: str, size: tuple[int, int] = (120, 40)) -> Terminal:
    """The app in a terminal of `size`, started as users start it: no process is forked, which would take other imports."""
    return Terminal(*COMMAND, *arguments, size=size, environment={"EPOCHTOP_HOME": str(home)}, synchronized=False)


def as_installed() -> None:
    """Let programs that are started keep their bytecode, as those of an installed package do: a start that compiles every module
    takes 100 ms longer."""
    for name in ("NO_COLOR", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)


def until(happened: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Wait until `happened` is true; check every 2 ms."""
    end = perf_counter() + limit_s
    while not happened():
        assert perf_counter() < end, "timed out"
        time.sleep(0.002)


def seen(terminal: Terminal, text: str) -> Callable[[], bool]:
    """A check whether the terminal has received `text`; searching bytes is cheaper than drawing them."""
    return lambda: text.encode() in terminal.output


def first_frame() -> list[Figure]:
    """Time from the command to the chart's frame on the terminal, next to that of an app that shows one text."""
    commands = {"ours": COMMAND, "least": (sys.executable, "-P", "-c", ONE_TEXT)}
    seconds: dict[str, list[float]] = {"ours": [], "least": []}
    cpu: dict[str, list[float]] = {"ours": [], "least": []}
    whole = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(STARTS):
            for name, command in commands.items():
                start = perf_counter()
                with Terminal(*command, environment={"EPOCHTOP_HOME": folder}, synchronized=False) as terminal:
                    until(seen(terminal, "Loss"))
                    seconds[name].append(perf_counter() - start)
                    cpu[name].append(cpu_s(terminal))
                    if name == "ours":
                        until(seen(terminal, "Learning rate"))
                        whole.append(perf_counter() - start)
    ours, least = seconds["ours"][1:], seconds["least"][1:]  # the first start reads from the disk
    ratios, cpu_ratios = (
        [ours / least for ours, least in zip(each["ours"][1:], each["least"][1:], strict=True)]
        for each in (seconds, cpu)
    )
    return [
        Figure("first frame after the command, s", spread(ours, "{:.2f}"), "≤ 0.4"),
        Figure("  of a Textual app with one Static, s", spread(least, "{:.2f}")),
        Figure("  ratio, round by round", spread(ratios, "{:.2f}"), "≤ 1.15"),
        Figure("  processor time, s", spread(cpu["ours"][1:], "{:.2f}")),
        Figure("  ratio of processor times, round by round", spread(cpu_ratios, "{:.2f}"), "≤ 1.15"),
        Figure("everything on the screen, s", spread(whole[1:], "{:.2f}")),
    ]


def cpu_s(terminal: Terminal) -> float:
    """Processor seconds that the command has taken."""
    times = psutil.Process(terminal.process.pid).cpu_times()
    return times.user + times.system


def start_to_loss() -> list[Figure]:
    """Time from ctrl+s to a loss on the screen, with the standby ready; memory and output of the app while it trains."""
    times, memory, rates = [], [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder, app(Path(folder)) as terminal:
            until(seen(terminal, "torch "))
            time.sleep(SETTLE_S)
            start = perf_counter()
            terminal.press(CTRL_S)
            until(seen(terminal, "log off"))  # below the chart
            times.append(perf_counter() - start)
            time.sleep(0.5)
            before, sent = perf_counter(), len(terminal.output)
            time.sleep(1.5)
            rates.append((len(terminal.output) - sent) / (perf_counter() - before) / 1000)
            memory.append(psutil.Process(terminal.process.pid).memory_info().rss / 2**20)
    return [
        Figure("ctrl+s to the first loss on the screen, s", spread(times, "{:.2f}"), "≤ 0.5"),
        Figure("KB/s to the terminal while training", spread(rates, "{:.1f}"), "≤ 5"),
        Figure("memory of the app's process while training, MB", spread(memory, "{:.0f}"), "≤ 80"),
    ]


# --- sizes -------------------------------------------------------------------------------------------------


def start_to_frame(size: tuple[int, int]) -> list[float]:
    """Seconds from the command to the first frame, without the first start, which reads from the disk."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(4):
            start = perf_counter()
            with app(Path(folder), size=size) as terminal:
                until(seen(terminal, "Loss"))
                times.append(perf_counter() - start)
    return times[1:]


def key_to_paint(size: tuple[int, int]) -> list[float]:
    """Milliseconds from a key to the bytes that show its effect, with a finished run open."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder), "shown", events_of("finished"))
        with app(Path(folder), "attach", "shown", size=size) as terminal:
            until(seen(terminal, "finished: 20,000 steps"))
            until(seen(terminal, "torch 2"))
            time.sleep(SETTLE_S)
            for key, effects in KEYS.items():
                for effect in effects:
                    assert effect not in terminal.text
                    start = perf_counter()
                    terminal.press(key)
                    time.sleep(KEY_S)
                    arrival = terminal.arrival_of(effect)
                    assert arrival is not None, f"{key}: {effect!r} did not appear:\n{terminal.text}"
                    times.append(1000 * (arrival - start))
    return times


def chart_frame(size: tuple[int, int]) -> list[float]:
    """Milliseconds to redraw the app's chart at its size in a terminal of `size`."""

    async def frames() -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            run, times_ms = write_run(Path(folder), "shown", events_of("running")), []
            async with still_app(Path(folder)).run_test(size=size) as pilot:
                still = await furnished(pilot)
                await show_run(pilot, run, 9_500)
                for _ in range(FRAMES):
                    still.main.chart._stale = True
                    start = perf_counter()
                    still.main.chart.redraw()
                    times_ms.append(1000 * (perf_counter() - start))
        return times_ms

    return asyncio.run(frames())


def training_bytes(size: tuple[int, int]) -> float:
    """KB/s to the terminal over eight seconds of a run."""
    flags = ("--start", "--epochs", "200000", "--executor", "eager")
    with tempfile.TemporaryDirectory() as folder, app(Path(folder), *flags, size=size) as terminal:
        until(seen(terminal, "train "))
        time.sleep(1.0)
        before, sent = perf_counter(), len(terminal.output)
        time.sleep(8.0)
        return (len(terminal.output) - sent) / (perf_counter() - before) / 1000


def at_size(size: tuple[int, int]) -> list[Figure]:
    """Figures that depend on the terminal size."""
    name = f"{size[0]}×{size[1]}"
    return [
        Figure(f"{name}: first frame after the command, s", spread(start_to_frame(size), "{:.2f}"), "≤ 0.4"),
        Figure("  from a key to its effect on the terminal, ms", spread(key_to_paint(size), "{:.0f}"), "≤ 100"),
        Figure("  redraw of the chart, ms", spread(chart_frame(size), "{:.1f}"), "≤ 30"),
        Figure(
            "  KB/s to the terminal while training", f"{training_bytes(size):.1f}", "≤ 5" if size < (200, 60) else ""
        ),
    ]


# --- long runs ---------------------------------------------------------------------------------------------


def long_bytes() -> list[Figure]:
    """Output to the terminal over ten seconds of a longer run."""
    with tempfile.TemporaryDirectory() as folder, app(Path(folder), "--start", "--epochs", "200000") as terminal:
        until(seen(terminal, "train "))
        time.sleep(1.0)
        before, sent = perf_counter(), len(terminal.output)
        time.sleep(10.0)
        rate = (len(terminal.output) - sent) / (perf_counter() - before) / 1000
    return [Figure("KB/s to the terminal, ten seconds of a run of 200,000 epochs", f"{rate:.1f}", "≤ 5")]


def values_of(steps: int) -> Iterator[tuple[int, array[float]]]:
    """A falling noisy curve in windows: the first step and the values."""
    for first in range(0, steps, PART):
        numbers = range(first, first + PART)
        yield first, array("f", [1.1 / (1 + step / 5e5) + 1e-4 * (step * 7919 % 100) for step in numbers])


def write_old(home: Path, name: str, steps: int) -> Path:
    """A finished run of protocol 1."""
    run = write_run(home, name, [started(steps)])
    with open(run / "events.jsonl", "ab") as log:
        for first, values in values_of(steps):
            seconds = (first + PART) / 5000
            event = Losses(first_step=first, seconds=seconds, values=values.tobytes(), reads=1, waited=0.0)
            log.write(encode(event) + b"\n")
        log.write(encode(finished("finished", [0.05], steps=steps)) + b"\n")
    return run


def write_new(home: Path, name: str, steps: int) -> Path:
    """A finished run with windows of series and their summaries."""
    run = write_run(home, name, [started(steps)])
    with open(run / "events.jsonl", "ab") as log:
        for first, values in values_of(steps):
            event = Logged(
                time=0.0,
                seconds=(first + PART) / 5000,
                first_step=first,
                count=PART,
                values={TRAIN_LOSS: values.tobytes()},
                summaries={TRAIN_LOSS: summary_of(values)},
            )
            log.write(encode(event) + b"\n")
        log.write(encode(finished("finished", [0.05], steps=steps)) + b"\n")
    return run


def attach_s(program: Sequence[str], home: Path, run: Path, steps: int) -> tuple[float, float, float]:
    """Seconds until the whole curve is on the screen, CPU seconds until then, and MiB of the app's process."""
    start = perf_counter()
    with Terminal(
        *program, "attach", run.name, size=(120, 40), environment={"EPOCHTOP_HOME": str(home)}, synchronized=False
    ) as terminal:
        text = f"finished: {steps:,}".encode()
        while text not in terminal.output:
            assert perf_counter() - start < LIMIT_S
            time.sleep(0.002)
        elapsed_s = perf_counter() - start
        taken_s, memory_mib = cpu_s(terminal), psutil.Process(terminal.process.pid).memory_info().rss / 2**20
        terminal.press(CTRL_Q)
    return elapsed_s, taken_s, memory_mib


def medians_of(programs: dict[str, tuple[Sequence[str], Path, Path]], steps: int) -> dict[str, tuple[float, ...]]:
    """Medians of :func:`attach_s` by name, measured in turn."""
    measured: dict[str, list[tuple[float, ...]]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, (program, home, run) in programs.items():
            measured[name].append(attach_s(program, home, run, steps))
    return {name: tuple(map(statistics.median, zip(*rounds, strict=True))) for name, rounds in measured.items()}


def attach_figures(against: str = "") -> list[Figure]:
    """Times for finished runs of 10⁵ and 10⁷ steps, new logs and old ones. `against` is another checkout, which is measured
    in turn with this one; it may be able to read old logs only."""
    figures = []
    this, other = COMMAND, (f"{against}/.venv/bin/python", "-P", "-m", "epochtop")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for steps, target in LENGTHS.items():
            old, new = write_old(home, f"old-{steps}", steps), write_new(home, f"new-{steps}", steps)
            programs: dict[str, tuple[Sequence[str], Path, Path]] = {
                "log of protocol 1": (this, home, old),
                "new log": (this, home, new),
            }
            if against:
                programs[OTHER] = (other, home, old)
            medians = medians_of(programs, steps)
            for name, (wall_s, cpu_s, memory_mib) in medians.items():
                ratio = f" · {wall_s / medians[OTHER][0]:.2f} of the other checkout" if against else ""
                text = f"{wall_s:.2f} · CPU {cpu_s:.2f} s · {memory_mib:.0f} MiB{ratio}"
                figures.append(Figure(f"{steps:,} steps, {name}, s", text, target if name == "new log" else ""))
    return figures


def watched(home: Path) -> float:
    """Steps per second of the same job, started and shown by the app."""
    flags = ("--epochs", str(ATTACHED_EPOCHS), "--threads", "1", "--device", "cpu", "--executor", "eager")
    with app(home, *flags) as terminal:
        until(seen(terminal, "torch "))
        time.sleep(SETTLE_S)
        terminal.press(CTRL_S)
        until(seen(terminal, "finished: "))
    return finished_run(run_paths(home)[0]).steps_per_second


def attach() -> None:
    """Print the table of attaching."""
    as_installed()
    show("From `epochtop attach` to the whole curve on the screen", attach_figures())


def main() -> None:
    """Print the tables."""
    as_installed()
    show("The app through a pseudo-terminal, 120×40", [*first_frame(), *start_to_loss(), *long_bytes()])
    show("The app in terminals of three sizes", [figure for size in SIZES for figure in at_size(size)])
    attach()
    show("The default job (60,000 epochs) with the app attached and without", with_the_app(watched))


if __name__ == "__main__":
    if "--against" in sys.argv:
        as_installed()
        show("From `epochtop attach` to the whole curve", attach_figures(sys.argv[sys.argv.index("--against") + 1]))
    else:
        main()
