"""Kills and signals × moments: the run continues with the losses of an undisturbed one, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epochtop.engine.process import signals
from epochtop.engine.protocol.events import Finished, Logged
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.reader import is_alive
from epochtop.engine.training import checkpoint
from tests.faults.selection import EVERYTHING, rows
from tests.support.engines import Engine, Watch, finished, losses, train_here
from tests.support.executors import go_on

STEPS = 4_000
SPEC = RunSpec(
    epochs=STEPS, threads=1, device="cpu", executor="eager", batch_size=0, refresh_ms=10, save_every=0.05, eval_every=0,
    optimizer="adam", learning_rate=0.001, dropout=0.1,
)  # fmt: skip
MOMENTS = list(range(200 if EVERYTHING else 2))
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

pytestmark = pytest.mark.xdist_group("kills")  # the undisturbed run is trained once instead of per worker


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Losses of the run without a fault."""
    return losses(train_here(SPEC, tmp_path_factory.mktemp("undisturbed")))


def check_resumed(run: Path, undisturbed: Any) -> None:
    """The run reaches its end with the losses of the undisturbed one."""
    if not (run / "checkpoints/last.json").exists() or finished_already(run):
        recorded = losses(run)
    else:
        recorded = losses(go_on(run))
        assert len(recorded) == STEPS
    np.testing.assert_array_equal(recorded, undisturbed[: len(recorded)])


def finished_already(run: Path) -> bool:
    try:
        return finished(run).outcome == "finished"
    except (AssertionError, StopIteration):
        return False


@pytest.mark.parametrize("seed", MOMENTS)
def test_a_kill_at_any_moment_changes_no_loss(seed: int, home: Path, undisturbed: Any) -> None:
    moment = random.Random(seed)
    with Engine() as engine:
        run = engine.train(SPEC, home)
        Watch(run).until_step(moment.randrange(STEPS))
        time.sleep(moment.uniform(0, 0.01))
        engine.kill()
    assert not is_alive(run)
    check_resumed(run, undisturbed)


@pytest.mark.parametrize("name", [name for (name,) in (TABLE if EVERYTHING else IN_CI)])
def test_a_signal_saves_stops_or_does_nothing(name: str, home: Path, undisturbed: Any) -> None:
    number = signal.Signals[name]
    with Engine() as engine:
        watch = Watch(engine.train(SPEC, home))
        watch.until(Logged)
        engine.process.send_signal(number)
        if number in STOPPING:
            time.sleep(0.3)
            engine.process.send_signal(signal.SIGCONT)
        if number in ENDING | UNHANDLED:
            assert engine.wait() != 0
        else:
            watch.until(Finished)
            assert engine.wait() == 0
            end = finished(watch.run)
            assert checkpoint.read(watch.run, "last")[0].step == end.steps == len(losses(watch.run))
            stops = end.outcome == "stopped"
            assert not stops or number in (signal.SIGTERM, signal.SIGINT, *signals_of(SPEC))
    check_resumed(watch.run, undisturbed)


def signals_of(spec: RunSpec) -> list[signal.Signals]:
    """The signals that stop a run of `spec`."""
    return [signal.Signals[f"SIG{name}"] for name in spec.signals.replace("SIG", "").split(",") if name]


def test_every_signal_of_the_system_is_in_the_table() -> None:
    assert {name for (name,) in TABLE} >= {number.name for number in signals.CHOSEN}
    assert rows([(1,)], [(1,)])
