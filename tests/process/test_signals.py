"""Signals to an engine and to the command that shows a run: none that can be caught ends a run without saving."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from epochtop.engine.process.signals import answer, forget_workers
from epochtop.engine.protocol.commands import BATCH_SIGNALS
from epochtop.engine.protocol.events import Finished, Logged
from epochtop.engine.protocol.fields import parse
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import run_paths
from epochtop.engine.training import checkpoint, clock
from tests.cli.test_commands import command
from tests.support.engines import HANGING_S, Engine, Watch, finished, losses

NAMES = [number.name for number in BATCH_SIGNALS]


def endless(**fields: object) -> RunSpec:
    """An Iris run that continues until it is stopped."""
    defaults = {"epochs": 10**9, "threads": 1, "device": "cpu", "refresh_ms": 20, "executor": "eager"}
    return RunSpec(**(defaults | fields))  # type: ignore[arg-type]


def check_saved(run: Path, *reasons: str) -> None:
    """The run has stopped for one of `reasons`, and its checkpoint has all of its steps."""
    end = finished(run)
    assert end.outcome == "stopped"
    assert end.reason in reasons
    assert checkpoint.read(run, "last")[0].step == end.steps == len(losses(run)) > 0


def test_after_a_failure_the_ends_of_workers_raise_nothing() -> None:
    """A handler like that of torch, which raises in the main thread as long as a dead worker is known."""

    def handler(_number: int, _frame: object) -> None:
        raise RuntimeError("DataLoader worker exited unexpectedly")

    before = signal.signal(signal.SIGCHLD, handler)
    try:
        with pytest.raises(RuntimeError, match="worker"):
            os.kill(os.getpid(), signal.SIGCHLD)
        forget_workers()
        os.kill(os.getpid(), signal.SIGCHLD)
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGXCPU", "SIGTERM"])
def test_a_signal_of_a_batch_system_saves_and_stops(engine: Engine, home: Path, name: str) -> None:
    watch = Watch(engine.train(endless(), home))
    watch.until(Logged)
    engine.process.send_signal(signal.Signals[name])
    watch.until(Finished)
    assert engine.wait() == 0
    check_saved(watch.run, f"stopped by signal {name}")


def test_signals_that_are_not_chosen_do_nothing_and_chosen_ones_stop(engine: Engine, home: Path) -> None:
    watch = Watch(engine.train(endless(signals="USR2"), home))
    watch.until(Logged)
    for name in NAMES:
        if name != "SIGUSR2":
            engine.process.send_signal(signal.Signals[name])
    watch.windows(2)
    engine.process.send_signal(signal.SIGUSR2)
    assert engine.wait() == 0
    check_saved(watch.run, "stopped by signal SIGUSR2")


def test_repeated_signals_never_end_a_run_before_it_has_saved(engine: Engine, home: Path) -> None:
    watch = Watch(engine.train(endless(hidden=(256, 256)), home))
    watch.until(Logged)
    while engine.process.poll() is None:  # until the last moment of the process
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGQUIT):
            engine.process.send_signal(number)
        time.sleep(0.001)
    assert engine.wait() == 0
    check_saved(watch.run, "stopped by signal SIGTERM", "stopped by signal SIGUSR1")


def test_the_command_that_shows_a_run_waits_until_it_is_saved(home: Path) -> None:
    arguments = ("train", "--epochs", "1000000000", "--threads", "1", "--device", "cpu", "--executor", "eager")
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("run ")
        (run,) = run_paths(home)
        Watch(run).until(Logged)
        process.send_signal(signal.SIGUSR2)  # not among the run's signals
        process.send_signal(signal.SIGUSR1)
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        process.communicate(timeout=HANGING_S)
    assert process.returncode == 0
    end = finished(run)
    assert end.outcome == "stopped"
    assert checkpoint.read(run, "last")[0].step == end.steps


@pytest.mark.parametrize("text", ["KILL", "SIGUSR1,", "SIGUSR1 SIGXCPU", "TERM", "usr1"])
def test_other_signals_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match="SIGUSR2"):
        parse("signals", text)


def test_a_handler_of_a_task_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: dict[signal.Signals, object] = {signal.SIGALRM: print, signal.SIGUSR1: print}
    monkeypatch.setattr(signal, "signal", installed.__setitem__)
    monkeypatch.setattr(signal, "getsignal", lambda number: installed.get(number, signal.SIG_DFL))
    answer(endless(), None, lambda: None)  # type: ignore[arg-type]
    assert installed[signal.SIGALRM] is installed[signal.SIGUSR1] is print
    assert installed[signal.SIGUSR2] == installed[signal.SIGHUP] == signal.SIG_IGN
    assert callable(installed[signal.SIGXCPU])


# --- suspensions ---------------------------------------------------------------------------------------------


def test_the_time_of_a_suspension_is_not_training_time(engine: Engine, home: Path) -> None:
    began = time.monotonic()
    watch = Watch(engine.train(endless(), home))
    watch.windows(2)
    os.kill(engine.process.pid, signal.SIGSTOP)
    stopped_at = time.monotonic()
    time.sleep(3.0)
    resumed_at = time.monotonic()
    os.kill(engine.process.pid, signal.SIGCONT)
    watch.windows(2)
    engine.process.send_signal(signal.SIGTERM)
    assert engine.wait() == 0
    ended = time.monotonic()
    assert finished(watch.run).seconds < (ended - began) - (resumed_at - stopped_at) + 0.5
    seconds = [event.seconds for event in watch.seen if isinstance(event, Logged)]
    assert seconds == sorted(seconds)


class Times:
    """Clocks that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_s = self.cpu_s = 100.0
        monkeypatch.setattr(clock, "perf_counter", lambda: self.wall_s)
        monkeypatch.setattr(clock, "process_time", lambda: self.cpu_s)

    def advance(self, wall_s: float, cpu_s: float) -> None:
        """Let time pass."""
        self.wall_s += wall_s
        self.cpu_s += cpu_s


@pytest.mark.parametrize("thread_is_first", [False, True])
def test_a_clock_leaves_out_suspensions_only(monkeypatch: pytest.MonkeyPatch, thread_is_first: bool) -> None:
    times = Times(monkeypatch)
    suspension = clock.Suspension()
    training = clock.Clock(7.0, suspension)
    training.start()
    times.advance(2.0, 2.0)
    suspension.end()  # SIGCONT to a process that runs, while the ticking thread is busy
    assert training.seconds() == 9.0
    times.advance(0.02, 0.02)
    suspension.tick()
    times.advance(60.0, 0.001)
    if thread_is_first:
        suspension.tick()
        assert training.seconds() == pytest.approx(69.02)
        times.advance(0.01, 0.01)
    suspension.end()
    assert suspension.seconds == pytest.approx(60.0)
    highest = training.seconds()
    assert highest == pytest.approx(69.02 if thread_is_first else 9.02)  # a time that was told never decreases
    suspension.end()
    times.advance(1.0, 1.0)
    assert training.seconds() >= highest
    assert suspension.seconds == pytest.approx(60.0)
