"""A rank that keeps the others waiting is named, and Stop ends the run nevertheless."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from epochtop.engine.distributed import hanging
from epochtop.engine.distributed.hanging import PATIENCE, HangDetector, HangWatch, Reactions, patience_s
from epochtop.engine.distributed.orders import RankFailure
from epochtop.engine.distributed.presence import Presence, Progress, Wait
from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import RANK_HANGS, Failed, Noted, Warned
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.writer import send
from tests.support.engines import HANGING_S, Engine, Watch, rank_of, wait_until

PATIENCE_OF_TESTS_S = 20.0


def hang_after(seconds: int, ranks: Callable[[int], dict[int, tuple[int, int, Wait]]]) -> tuple[int, bool] | None:
    """The rank that a detector names after looking once a second, and whether it is suspended.

    `ranks` are beat, orders and what is waited for by rank, at each second.
    """
    detector, hang = HangDetector(PATIENCE_OF_TESTS_S), None
    for second in range(seconds + 1):
        presences = {
            rank: Presence(beat=beat, orders=orders, waits_for=wait, place="own.py:8 in loss", pid=100 + rank)
            for rank, (beat, orders, wait) in ranks(second).items()
        }
        hang = detector.see(presences, float(second))
    return None if hang is None else (hang.rank, hang.suspended)


CASES: dict[str, tuple[Callable[[int], dict[int, tuple[int, int, Wait]]], tuple[int, bool] | None]] = {
    "rank 1 loops": (lambda s: {0: (s, 5, "others"), 1: (s, 5, ""), 2: (s, 5, "others")}, (1, False)),
    "rank 2 is suspended": (lambda s: {0: (s, 5, "others"), 1: (s, 5, "others"), 2: (7, 5, "others")}, (2, True)),
    "rank 2 is suspended, and rank 1 has finished": (
        lambda s: {0: (s, 5, "others"), 1: (s, 5, "order"), 2: (7, 5, "")},
        (2, True),
    ),
    "rank 0 loops": (lambda s: {0: (s, 5, ""), 1: (s, 5, "others")}, (0, False)),
    "rank 0 evaluates or is paused": (lambda s: {0: (s, 5, ""), 1: (s, 5, "order")}, None),
    "all compute": (lambda s: {0: (s, 5, ""), 1: (s, 5, "")}, None),
    "all exchange": (lambda s: {0: (s, 5, "others"), 1: (s, 5, "others")}, None),
    "a slow rank makes progress": (lambda s: {0: (s, s // 10, "others"), 1: (s, s // 10, "")}, None),
    "rank 1 has told nothing": (lambda s: {0: (s, 5, "others")}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rank_that_others_wait_for_hangs(case: str) -> None:
    ranks, expected = CASES[case]
    assert hang_after(30, ranks) == expected
    assert hang_after(19, ranks) is None


def test_a_rank_is_named_within_thirty_seconds() -> None:
    assert patience_s() + 5 < 30


def test_the_reporting_thread_sees_the_line_of_the_main_thread() -> None:
    progress = Progress()
    here = progress.presence()
    assert (here.waits_for, here.pid) == ("", os.getpid())
    assert "presence.py" in here.place
    with progress.waiting("order"):
        assert progress.presence().waits_for == "order"
    assert progress.presence().beat > here.beat


class Store(dict[str, bytes]):
    """What the ranks have told."""

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)


class Ranks:
    """Ranks of a launcher that can end none of them, like torchrun's."""

    world_size = 2

    def __init__(self) -> None:
        self.store, self._beat = Store(), 0

    def connect(self) -> Store:
        return self.store

    def end_rank(self, report: RankFailure) -> bool:
        return False

    def tell(self, waits_for: Wait) -> None:
        """Let rank 1 say where it is."""
        self._beat += 1
        presence = Presence(beat=self._beat, orders=0, waits_for=waits_for, place="own.py:8 in loss", pid=101)
        self.store["presence/1"] = msgspec.json.encode(presence)


def test_rank_0_ends_itself_where_it_cannot_end_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hanging, "BEAT_S", 0.05)
    monkeypatch.setenv(PATIENCE, "0.1")
    ranks, progress, stop = Ranks(), Progress(), threading.Event()
    named: list[str] = []
    recovered: list[int] = []
    failures: list[RankFailure] = []
    watch = HangWatch(ranks, progress, Reactions(named.append, recovered.append, stop.is_set, failures.append))
    with progress.waiting("others"):
        ranks.tell("")
        watch.start()
        wait_until(lambda: named)
        ranks.tell("others")
        wait_until(lambda: recovered)
        ranks.tell("")
        stop.set()
        wait_until(lambda: failures)
    watch.close()
    assert "own.py:8 in loss" in named[0]
    assert set(recovered) == {1}
    assert [failure.rank for failure in failures] == [1]


TASK = """
import torch
from epochtop import Task

def loss(output, y):
    loss.steps += 1
    if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1 and loss.steps == 5:
        while True: pass
    return torch.nn.functional.cross_entropy(output, y)

loss.steps = 0

def make_task():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    return Task(model=torch.nn.Linear(4, 2), train=(x, (x[:, 0] > 0).long()), loss=loss)
"""
SPEC = {"device": "cpu", "threads": 1, "refresh_ms": 20, "epochs": 10**6, "processes": 2, "eval_every": 3600.0}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "1")


def stopped(engine: Engine, watch: Watch, stop: Callable[[], object]) -> Failed:
    """The end of a run whose rank 1 hangs, after `stop`. No process is left."""
    other = rank_of(engine, 1)
    stop()
    failed = watch.until(Failed)
    assert engine.wait() == 1
    other.wait(HANGING_S)
    return failed


@pytest.mark.xdist_group("processes")
@pytest.mark.usefixtures("impatient")
def test_a_suspended_rank_is_named_and_stop_works(home: Path) -> None:
    with Engine() as engine:
        run = engine.train(RunSpec(**SPEC), home)  # type: ignore[arg-type]
        watch = Watch(run)
        watch.windows(1)
        other = rank_of(engine, 1)
        other.suspend()
        # On a busy machine, a rank that was not suspended may be named too.
        named = watch.until(
            Warned, lambda event: event.code == RANK_HANGS and f"kill -CONT {other.pid}" in event.message
        )
        assert "rank 1 has kept the other ranks waiting" in named.message
        start = watch.seen.index(named) + 1
        other.resume()
        watch.until(Noted, lambda event: (event.code, event.message) == (RANK_HANGS, "rank 1 takes part again"), start)
        watch.windows(1)
        other.suspend()
        failed = stopped(engine, watch, lambda: send(run, Stop(by="a test")))
    assert "rank 1 kept the other ranks waiting until the run was stopped" in failed.message
    assert "resume" in failed.advice


@pytest.mark.xdist_group("processes")
@pytest.mark.usefixtures("impatient")
def test_a_rank_that_loops_is_named_with_its_line_and_a_signal_stops_the_run(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(TASK)
    with Engine() as engine:
        run = engine.train(RunSpec(**SPEC, task=f"{file}:make_task"), home)  # type: ignore[arg-type]
        watch = Watch(run)
        watch.until(Warned, lambda event: event.code == RANK_HANGS and "own.py:8 in loss" in event.message)
        failed = stopped(engine, watch, lambda: os.kill(engine.process.pid, signal.SIGTERM))
    assert "rank 1 kept the other ranks waiting until the run was stopped" in failed.message
