"""Clock × place: a clock that is moved changes dates and nothing else: no loss, duration, state or file depends on it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count, pairwise, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from epochtop.engine.protocol.events import Logged, Losses, ScriptEnded, ScriptStarted
from epochtop.engine.protocol.quantities import UNKNOWN
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import heartbeat
from epochtop.engine.runs.index import summarize
from epochtop.engine.runs.opened.follower import OpenedFollower
from epochtop.engine.runs.opened.summary import summarize_log
from epochtop.engine.runs.paths import EVENTS, HEARTBEAT, LOCK, RECORD
from epochtop.engine.runs.reader import BadLine, is_alive, read_record
from epochtop.formats.scan import log_at
from epochtop.recording.run import Run
from epochtop.supervisor.child import Child
from epochtop.supervisor.record import create_run
from epochtop.supervisor.supervise import FORWARDED, Supervision
from epochtop.tui.chart.axes import x_ticks
from epochtop.tui.chart.run_series import RunSeries
from epochtop.tui.cli.runs.listing import cells
from tests.faults.selection import EVERYTHING
from tests.formats.writers import scalar_event, tensorboard
from tests.support.engines import events, finished, losses, train_here
from tests.support.runs import write_run

HOUR_S, DAY_S, YEAR_S = 3_600.0, 86_400.0, 365 * 86_400.0
SHIFTS = {
    "back a minute": -60.0, "back an hour": -HOUR_S, "back a day": -DAY_S, "back a year": -YEAR_S, "back to 1970": -1e9,
    "forward a minute": 60.0, "forward an hour": HOUR_S, "forward a day": DAY_S, "forward 100 years": 100 * YEAR_S,
}  # fmt: skip
CHOSEN = list(SHIFTS) if EVERYTHING else ["back a day", "forward 100 years"]
SPEC = RunSpec(epochs=500, threads=1, device="cpu", executor="eager", refresh_ms=10, eval_every=100, seed=1)
AGE_CELLS = 6


class MovedClock:
    """The clock of this machine, as every module sees it; its files keep the kernel's times."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.shift_s = 0.0
        self.swings = False
        """Whether it is moved and set right again at every look."""
        real, looks = time.time, count()

        def now() -> float:
            return real() + (self.shift_s if not self.swings or next(looks) % 2 else 0.0)

        patch.setattr(time, "time", now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    return MovedClock(monkeypatch)


@pytest.fixture(params=CHOSEN)
def shift_s(request: pytest.FixtureRequest) -> float:
    """How far the clock is moved."""
    return SHIFTS[request.param]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> npt.NDArray[np.float32]:
    """The losses of the run with an unchanged clock."""
    return losses(train_here(SPEC, tmp_path_factory.mktemp("undisturbed")))


def check_age(run: Path) -> None:
    age = cells(summarize(run), time.time())[-1]
    assert 0 < len(age) <= AGE_CELLS


def check_chart(run: Path) -> None:
    """The run can be drawn over the time of day: every step has a time, and times never fall."""
    series = RunSeries()
    for event in events(run):
        series.feed(event)  # type: ignore[arg-type]
    times = [series.clock.at(step) for step in range(0, series.steps, 10)]
    assert len(times) > 1
    assert times == sorted(times)
    assert len(x_ticks(times[0], times[-1], 100, "clock")) < 100


def seconds_of(run: Path) -> list[float]:
    """The durations in a log, in their order."""
    return [
        event.seconds
        for event in events(run)
        if isinstance(event, Logged | Losses | ScriptEnded) or hasattr(event, "seconds")
    ]


@pytest.mark.parametrize("swings", [False, True], ids=["once", "to and fro"])
def test_training_takes_the_same_steps_and_time(
    shift_s: float, swings: bool, home: Path, clock: MovedClock, undisturbed: npt.NDArray[np.float32]
) -> None:
    began = time.monotonic()
    clock.shift_s, clock.swings = shift_s, swings
    run = train_here(SPEC, home)
    assert summarize(run).state == "finished"
    np.testing.assert_array_equal(losses(run), undisturbed)
    seconds = seconds_of(run)
    assert all(0 <= earlier <= later for earlier, later in pairwise(seconds))
    assert 0 < finished(run).seconds <= time.monotonic() - began
    clock.swings = False
    for shown_at in (0.0, shift_s, -shift_s):
        clock.shift_s = shown_at
        check_age(run)
    check_chart(run)


def test_a_script_has_the_same_durations(shift_s: float, home: Path, clock: MovedClock) -> None:
    began = time.monotonic()
    with Run("night run") as run:
        run.log({"loss": 0.5})
        clock.shift_s = shift_s
        run.log({"loss": 0.25})
    path = next(path for path in home.iterdir() if (path / RECORD).exists())
    assert summarize(path).state == "finished"
    seconds = seconds_of(path)
    assert len(seconds) >= 2
    assert all(0 <= each <= time.monotonic() - began for each in seconds)
    check_age(path)


@pytest.fixture
def signals() -> Iterator[None]:
    """Sets back the signals that a supervisor forwards."""
    before = {number: signal.getsignal(number) for number in FORWARDED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_a_command_has_the_same_duration(shift_s: float, home: Path, clock: MovedClock) -> None:
    began = time.monotonic()
    command = ("sh", "-c", "echo step 1 loss 0.5")
    run, lock = create_run(command, "")
    with lock:
        supervision = Supervision(run, Child(command, os.environ, None, False), {}, True)
        clock.shift_s = shift_s
        assert supervision.run_to_the_end() == 0
    seconds = seconds_of(run)
    assert len(seconds) == 2
    assert all(0 <= each <= time.monotonic() - began for each in seconds)


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
@pytest.mark.parametrize("known", [True, False], ids=["later", "before the first look"])
def test_a_run_of_another_host_lives_by_the_clock_of_its_files(
    shift_s: float, known: bool, alive: bool, home: Path, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks cannot be seen. A run that only looks dead could be resumed, and two engines would write it."""
    run = write_run(home, "iris-mlp-0001", [])
    (run / HEARTBEAT).write_text("elsewhere 7 0\n")
    if not alive:
        refreshed_at = time.time() - 10 * heartbeat.DEAD_S
        os.utime(run / HEARTBEAT, (refreshed_at, refreshed_at))
    monkeypatch.setattr(heartbeat, "_offsets", {})
    assert not known or is_alive(run) == alive
    clock.shift_s = shift_s
    assert is_alive(run) == alive


def test_a_run_of_this_host_lives_by_its_lock(shift_s: float, home: Path, clock: MovedClock) -> None:
    run = write_run(home, "iris-mlp-0001", [])
    (run / HEARTBEAT).write_text(f"{socket.gethostname()} 7 0\n")
    clock.shift_s = shift_s
    assert not is_alive(run)


# --- logs of other tools, whose state follows from the times of their files ------------------------------------------

TENSORBOARD = "events.out.tfevents.1"


def tensorboard_log(folder: Path, *times: float) -> Path:
    """A log with one value per time."""
    folder.mkdir()
    (folder / TENSORBOARD).write_bytes(
        tensorboard([scalar_event(step, "train/loss", 1 / (step + 1), moment) for step, moment in enumerate(times)])
    )
    return folder


def state_of_log(folder: Path, now: float) -> str:
    log = log_at(folder)
    assert log is not None
    return summarize_log(log, now).state


NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("last_change_s", "state"),
    [(-5, "running"), (300, "running"), (-DAY_S, "finished"), (DAY_S, "finished"), (YEAR_S, "finished")],
    ids=["now", "clocks of two machines differ", "a day ago", "before the clock went back a day", "before a year"],
)
def test_the_log_of_another_tool_grows_if_it_has_changed_lately(
    last_change_s: float, state: str, tmp_path: Path
) -> None:
    changed_at = NOW + last_change_s
    folder = tensorboard_log(tmp_path / "log", changed_at - 10, changed_at)
    os.utime(folder / TENSORBOARD, (changed_at, changed_at))
    assert state_of_log(folder, NOW) == state


# --- times that no calendar has ---------------------------------------------------------------------------------------

IMPOSSIBLE = (1e300, -1e300, 1e12, -1e12)
PLACES = ("run.json", "events.jsonl", "tensorboard")


@pytest.mark.parametrize(("moment", "place"), product(IMPOSSIBLE, PLACES))
def test_a_time_that_no_calendar_has_is_reported_or_left_out(moment: float, place: str, tmp_path: Path) -> None:
    if place == "tensorboard":
        folder = tensorboard_log(tmp_path / "log", moment, NOW, moment)
        with closing(OpenedFollower(folder)) as follower:
            series = RunSeries()
            while batch := follower.read():
                for event in batch:
                    assert not isinstance(event, BadLine)
                    series.feed(event)
        assert series.steps == 3
        first, last = series.clock.at(0), series.clock.last
        assert x_ticks(first, last, 100, "clock") is not None
        log = log_at(folder)
        assert log is not None
        assert cells(summarize_log(log, NOW), NOW)[-1] != UNKNOWN
        return
    run = write_run(tmp_path, "iris-mlp-0001", [ScriptStarted(time=NOW, pid=1)])
    path = run / place
    path.write_bytes(path.read_bytes().replace(b"1790000000.0", repr(moment).encode()))
    assert repr(moment).encode() in path.read_bytes()
    if place == RECORD:
        with pytest.raises(Invalid, match=RECORD):
            read_record(run)
    else:
        assert [type(event) for event in events(run)] == [BadLine]
    check_age(run)


@pytest.mark.parametrize("created", [0.0, -6e10])
def test_an_age_that_no_run_has_is_unknown(created: float, tmp_path: Path) -> None:
    run = write_run(tmp_path, "iris-mlp-0001", [], age_s=1_790_000_000.0 - created)
    assert (run / LOCK).exists()
    assert (run / EVENTS).exists()
    assert cells(summarize(run), NOW)[-1] == UNKNOWN
