"""An engine that is killed while its forks live on: its run is dead at once, and so are its other ranks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import pytest

from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.reader import is_alive
from tests.support.engines import HANGING_S, Engine, Watch, rank_of, wait_until
from tests.support.processes import prefork

TASK = """
import os
from pathlib import Path

import torch
from torch.utils.data import Dataset

from epochtop import Task


class Rows(Dataset):
    process = 0

    def __len__(self):
        return 10**6

    def __getitem__(self, row):
        if self.process != os.getpid():
            self.process = os.getpid()
            (Path(__file__).parent / f"worker of {os.getppid()}").write_text(str(self.process))
        return torch.ones(4), row % 2


def make_task():
    return Task(model=torch.nn.Linear(4, 2), train=Rows(), test=(torch.ones(8, 4), torch.arange(8) % 2))
"""


@pytest.fixture
def spec(folder: Path) -> RunSpec:
    """A run whose first epoch is long, and whose rows come from a worker."""
    (folder / "own.py").write_text(TASK, encoding="utf-8")
    return RunSpec(
        task=f"{folder / 'own.py'}:make_task",
        device="cpu",
        threads=1,
        refresh_ms=20,
        workers=1,
        batch_size=16,
        epochs=9,
    )


@pytest.fixture
def forks() -> Iterator[list[psutil.Process]]:
    """Processes that are killed afterwards."""
    processes: list[psutil.Process] = []
    yield processes
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def stopped_worker(engine: Engine, folder: Path) -> psutil.Process:
    """The worker of rank 0's loader, stopped: it cannot notice that its engine is gone."""
    worker = psutil.Process(int((folder / f"worker of {engine.process.pid}").read_text()))
    worker.suspend()
    wait_until(lambda: worker.status() == psutil.STATUS_STOPPED)
    return worker


def test_a_killed_run_is_dead_although_a_worker_of_its_loader_lives(
    spec: RunSpec, home: Path, folder: Path, forks: list[psutil.Process]
) -> None:
    with Engine() as engine:
        run = engine.train(spec, home)
        Watch(run).windows(1)
        forks.append(stopped_worker(engine, folder))
        assert is_alive(run)
        engine.kill()
    assert not is_alive(run)
    assert forks[0].status() == psutil.STATUS_STOPPED


def test_no_rank_outlives_the_first_although_a_worker_of_its_loader_lives(
    spec: RunSpec, home: Path, folder: Path, forks: list[psutil.Process]
) -> None:
    with Engine() as engine:
        run = engine.train(msgspec.structs.replace(spec, processes=2), home)
        Watch(run).windows(1)
        other = rank_of(engine, 1)
        forks.append(stopped_worker(engine, folder))
        engine.kill()
        other.wait(HANGING_S)
    assert not is_alive(run)
    assert forks[0].status() == psutil.STATUS_STOPPED


@pytest.mark.parametrize("request_sent", [b"", b'{"home": "of nobody"}'])
def test_a_viewer_that_is_killed_while_it_asks_for_an_engine_ends_no_other(request_sent: bytes) -> None:
    """The engines of all tests are forked from one process."""
    for _ in range(20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect("\0" + prefork.address())
            if request_sent:
                connection.send(request_sent)
    assert prefork.forked() == {}
