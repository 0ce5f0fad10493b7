"""Kills and signals × moments: the run continues with the losses of an undisturbed one, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epochtop.engine.protocol.commands import BATCH_SIGNALS
from epochtop.engine.protocol.events import Logged
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.reader import is_alive
from epochtop.engine.training import checkpoint
from epochtop.engine.training.resume import recorded_run
from tests.faults.selection import EVERYTHING, Note, rows
from tests.support.engines import Engine, Watch, finished, losses, train_here
from tests.support.executors import go_on

STEPS = 2_500
SPEC = RunSpec(
    epochs=STEPS, threads=1, device="cpu", executor="eager", batch_size=0, refresh_ms=10, save_every=0.05, eval_every=0,
    optimizer="adam", learning_rate=0.001, dropout=0.1,
)  # fmt: skip
MOMENTS = list(range(200 if EVERYTHING else 2))
MOST_ATTEMPTS = 50
"""A signal that arrives after the end of a run, because the test had no processor time, is sent to another run."""
GROUPS = 3 if EVERYTHING else 1
"""Workers of pytest-xdist that share the kills. Each trains the undisturbed run once."""
ENDING = {signal.SIGKILL, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP}
"""Nothing can be saved after these."""
UNHANDLED = {
    getattr(signal, name)
    for name in ("SIGIO", "SIGPROF", "SIGPWR", "SIGSTKFLT", "SIGSYS", "SIGVTALRM")
    if hasattr(signal, name)
}
"""Signals that no batch system sends and no engine handles. They end the process like SIGKILL."""
STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
NUMBERS = [number for number in signal.Signals if number < signal.SIGRTMIN]
TABLE = [(number.name,) for number in NUMBERS]
IN_CI = [("SIGPIPE",), ("SIGTSTP",)]

pytestmark = pytest.mark.xdist_group("kills")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Losses of the run without a fault."""
    return losses(train_here(SPEC, tmp_path_factory.mktemp("undisturbed")))


def check_resumed(run: Path, undisturbed: Any) -> None:
    """The run reaches its end with the losses of the undisturbed one."""
    np.testing.assert_array_equal(losses(run if finished_already(run) else go_on(run)), undisturbed)


def finished_already(run: Path) -> bool:
    try:
        return finished(run).outcome == "finished"
    except (AssertionError, StopIteration):
        return False


def worker(number: int) -> pytest.MarkDecorator:
    """Which worker of pytest-xdist takes row `number`."""
    return pytest.mark.xdist_group(str(number % GROUPS))


def ended_in_training(home: Path, moment: random.Random) -> Path:
    """A run whose engine is killed at a random moment before its end."""
    for _ in range(MOST_ATTEMPTS):
        with Engine() as engine:
            run = engine.train(SPEC, home)
            Watch(run).until_step(moment.randrange(STEPS))
            time.sleep(moment.uniform(0, 0.01))
            engine.kill()
        assert not is_alive(run)
        if not finished_already(run):
            return run
    raise AssertionError("every kill came after the end of the run")


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=worker(seed)) for seed in MOMENTS])
def test_a_kill_at_any_moment_changes_no_loss(seed: int, home: Path, undisturbed: Any, note: Note) -> None:
    run = ended_in_training(home, random.Random(seed))
    left = recorded_run(run)
    note("resumed from a checkpoint" if left.info else "killed before the first checkpoint")
    note("steps computed again", len(left.log.losses) - left.step)
    check_resumed(run, undisturbed)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=worker(row)) for row, (name,) in enumerate(TABLE if EVERYTHING else IN_CI)]
)
def test_a_signal_saves_stops_or_does_nothing(name: str, home: Path, undisturbed: Any, note: Note) -> None:
    number = signal.Signals[name]
    run, status = signaled_in_training(number, home)
    if number in ENDING | UNHANDLED:
        assert status != 0
        note("ended the process")
    else:
        assert status == 0
        end = finished(run)
        assert checkpoint.read(run, "last")[0].step == end.steps == len(losses(run))
        assert (end.outcome == "stopped") == (number in (signal.SIGTERM, signal.SIGINT, *signals_of(SPEC)))
        note(end.outcome)
    check_resumed(run, undisturbed)


def signaled_in_training(number: signal.Signals, home: Path) -> tuple[Path, int]:
    """A run whose engine has got a signal before its end, and the engine's exit status."""
    for _ in range(MOST_ATTEMPTS):
        with Engine() as engine:
            run = engine.train(SPEC, home)
            Watch(run).until(Logged)
            engine.process.send_signal(number)
            is_in_time = not finished_already(run)
            if number in STOPPING:
                time.sleep(0.3)
                engine.process.send_signal(signal.SIGCONT)
            status = engine.wait()
        if is_in_time:
            return run, status
    raise AssertionError("every signal came after the end of the run")


def signals_of(spec: RunSpec) -> list[signal.Signals]:
    """The signals that stop a run of `spec`."""
    return [signal.Signals[f"SIG{name}"] for name in spec.signals.replace("SIG", "").split(",") if name]


def test_every_signal_of_the_system_is_in_the_table() -> None:
    assert {name for (name,) in TABLE} >= {number.name for number in BATCH_SIGNALS}
    assert rows([(1,)], [(1,)])
