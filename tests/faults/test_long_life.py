"""Long life × place: what lasts for a day, 10⁸ steps or 10,000 runs takes no more memory, and opens no slower, than a tenth of it.

Figures are ratios and counts of bytes and calls, so that no test depends on the speed of the machine.
"""

from __future__ import annotations

import gc
import pickle
import sys
import tracemalloc
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from epochtop.engine.protocol.events import AnyEvent, Evaluated, Logged, Saved, Telemetry, encode
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.index import summarize
from epochtop.engine.runs.paths import EVENTS
from epochtop.engine.runs.reader import read_record
from epochtop.engine.runs.series import summary_of
from epochtop.engine.runs.table.table import RunTable
from epochtop.engine.runs.writer import create
from epochtop.engine.training.recorder import Recorder
from epochtop.tui.chart.run_series import RunSeries
from epochtop.tui.screens.run_list import Lister
from epochtop.tui.state.run import RunState
from tests.faults.selection import EVERYTHING
from tests.support.runs import CREATED, finished, losses_like_iris, started, windows, write_run

DAY_S = 86_400
WINDOWS = DAY_S if EVERYTHING else 16_000
"""A day of refreshes, one per second; in a selection, one per 5 s."""
WINDOW_STEPS = 1_160 if EVERYTHING else 64
"""10⁸ steps in a day."""
RUNS = 10_000 if EVERYTHING else 200
FLAT = 2.0
"""Most memory in all of the time, relative to the most memory in the first quarter. What is thinned out varies by two; a leak
has four."""


def day(count: int = WINDOWS, size: int = WINDOW_STEPS) -> Iterator[AnyEvent]:
    """The events of a run that trains for a day: windows, telemetry, and now and then an evaluation and a checkpoint."""
    values = array("f", losses_like_iris(size))
    packed, summaries = values.tobytes(), {"train/loss": summary_of(array("d", values))}
    for number in range(count):
        second, first = number * DAY_S / count, number * size
        yield Logged(
            time=CREATED + second, seconds=second, first_step=first, count=size,
            values={"train/loss": packed}, summaries=summaries, reads=number, waited=second / 1e4,
        )  # fmt: skip
        if number % 2:
            yield Telemetry(
                time=CREATED + second, engine_cpu_percent=100.0, engine_memory_bytes=1 << 29, gpu_percent=None,
                sm_percent=None, gpu_memory_bytes=None, temperature_c=None, power_w=None,
            )  # fmt: skip
        if number % 600 == 599:
            yield Evaluated(step=first, seconds=second, loss=0.5, metric=0.9)
            yield Saved(step=first, kind="last")


def test_a_viewer_of_a_day_of_training_has_flat_memory(home: Path) -> None:
    state, series = RunState(read_record(write_run(home, "iris-mlp-0001", []))), RunSeries()
    begin = msgspec.structs.replace(started(WINDOWS * WINDOW_STEPS), time=CREATED)
    state.apply(begin)
    series.feed(begin)
    sizes: list[int] = []
    for number, event in enumerate(day()):
        state.apply(event)
        series.feed(event)
        if number % (WINDOWS // 32) == 0:
            sizes.append(len(pickle.dumps((state, series))))
    assert state.step == series.steps == WINDOWS * WINDOW_STEPS
    assert series.clock.last - CREATED > 0.99 * DAY_S
    assert max(sizes) < FLAT * max(sizes[: len(sizes) // 4])


def test_an_engine_that_records_for_a_day_has_flat_memory(home: Path) -> None:
    run, lock = create(home, RunSpec(), {}, CREATED)
    with lock:
        recorder = Recorder(run, RunSpec())
        recorder.start(on_command=lambda: None)
        kept = memory_of(recorder)
        recorder.put(finished("finished", [0.5] * 10))
        assert recorder.close()
    assert summarize(run).state == "finished"
    assert min(kept[12:]) < min(kept[:4]) + (64 << 10)  # the least of several, because its thread may hold a buffer


def memory_of(recorder: Recorder) -> list[int]:
    """Bytes that are kept at 16 moments while a recorder writes hours of small windows."""
    kept: list[int] = []
    gc.collect()
    tracemalloc.start()
    try:
        for number, event in enumerate(day(WINDOWS // 4, 64)):
            recorder.put(event)
            if number % (WINDOWS // 64) == WINDOWS // 64 - 1:
                assert recorder.restart(RunSpec())
                gc.collect()
                kept.append(tracemalloc.get_traced_memory()[0])
        return kept
    finally:
        tracemalloc.stop()


# --- opening --------------------------------------------------------------------------------------------------------


def reads(call: Callable[[], object]) -> tuple[int, int]:
    """Bytes and calls that this process reads meanwhile."""
    before = _input()
    call()
    after = _input()
    return after["rchar"] - before["rchar"], after["syscr"] - before["syscr"]


def _input() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what a process has read")


@linux
def test_the_summary_of_a_long_log_reads_no_more_than_that_of_a_shorter_one(home: Path) -> None:
    read: list[int] = []
    for count in (1_000, 400_000 if EVERYTHING else 10_000):
        run = write_run(home, f"iris-mlp-{count}", [started(10**8)])
        line = encode(next(day(size=64)))
        with open(run / EVENTS, "ab") as log:
            log.writelines(line + b"\n" for _ in range(count))
            log.write(encode(finished("finished", [0.5] * 10)) + b"\n")
        read.append(reads(lambda run=run: summarize(run))[0])  # type: ignore[misc]
        assert summarize(run).state == "finished"
    assert read[1] < 1.1 * read[0] < 2 << 20


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home with a quarter of the runs, and one with all of them."""
    folders = []
    for count in (RUNS // 4, RUNS):
        home = tmp_path_factory.mktemp("home")
        values = losses_like_iris(40)
        events: list[AnyEvent] = [started(40), *windows(values, 20), finished("finished", values)]
        for number in range(count):
            write_run(home, f"iris-mlp-{number:05}", events, seed=number)
        folders.append(home)
    return folders[0], folders[1]


SAME_HOMES = pytest.mark.xdist_group("homes")


@linux
@SAME_HOMES
def test_opening_a_home_of_many_runs_is_bounded(homes: tuple[Path, Path]) -> None:
    """The first list reads every run once, the first picture only what fits its time, a later start nothing again."""
    calls_per_run = []
    for home, count in zip(homes, (RUNS // 4, RUNS), strict=True):
        assert reads(lambda home=home: Lister(home).list(0.0))[1] < 40  # type: ignore[misc]
        bytes_read, calls = reads(lambda home=home: RunTable(home).list())  # type: ignore[misc]
        calls_per_run.append(calls / count)
        assert bytes_read / count < 64 << 10
        table = RunTable(home)
        _, calls_again = reads(table.list)
        assert calls_again < 20 + count / 100
        assert len(table.list(0.0)) == count
        assert all(run.complete for run in table.list(0.0))
    assert calls_per_run[1] < 1.1 * calls_per_run[0] + 1


@SAME_HOMES
def test_memory_of_a_table_grows_with_its_runs_and_no_faster(homes: tuple[Path, Path]) -> None:
    kept = []
    for home in homes:
        gc.collect()
        tracemalloc.start()
        table = RunTable(home)
        assert table.list()
        gc.collect()
        kept.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert kept[1] < 4 * FLAT * kept[0]
