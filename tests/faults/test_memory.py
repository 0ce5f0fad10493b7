"""Memory that ends × process: a run says that memory is out, or dies and can be resumed; nothing is left half-written.

A cgroup's limit ends in SIGKILL for the process that has grown too large. Cgroups cannot be made everywhere, so a task sends
itself this signal when it has kept the tensors of too many steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from epochtop.engine.protocol.events import Continued, Failed
from epochtop.engine.protocol.requests import Accepted, Refused
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.index import run_paths, summarize
from tests.faults.selection import EVERYTHING
from tests.support.engines import Engine, Watch, events, finished, losses

LIMITED = """
import resource, sys
import torch
from epochtop.engine.process import standby
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {extra}, used + {extra}))
sys.exit(standby.main())
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits address space as Linux does")


def test_a_run_that_the_limit_stops_says_so(home: Path) -> None:
    """The model fits, its training does not."""
    spec = RunSpec(hidden=(9000, 9000), optimizer="adam", epochs=50, threads=1, device="cpu", executor="eager")
    with Engine(("-c", LIMITED.format(extra=1200 << 20))) as engine:
        answer = engine.begin(spec, home)
        if isinstance(answer, Refused):
            assert "memory" in answer.message
            assert run_paths(home) == []
            return
        assert isinstance(answer, Accepted)
        end = Watch(Path(answer.run)).end()
        assert engine.wait() != 0
    assert isinstance(end, Failed)
    assert "memory" in end.message
    assert summarize(Path(answer.run)).state == "failed"
    assert np.isfinite(losses(Path(answer.run))).all()


LEAKING = """
import os
import signal
import time

import torch
from epochtop import Task

LIMIT_STEPS = 64
leak = []


def loss(output, y):
    if torch.is_grad_enabled():
        leak.append(torch.ones(1 << 12))
        time.sleep(0.002)
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        if {limited} and rank == {rank} and len(leak) > LIMIT_STEPS:
            os.kill(os.getpid(), signal.SIGKILL)
    return torch.nn.functional.cross_entropy(output, y)


def make_task():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=draw)
    return Task(model=torch.nn.Linear(4, 2), train=(x, (x[:, 0] > 0).long()), loss=loss)
"""
STEPS = 100
MOST_ATTEMPTS = 30
"""A kill may come before the first checkpoint of an attempt, which is then no progress."""
RANKS = [(1, 0), (2, 0), (2, 1)] if EVERYTHING else [(1, 0)]


@pytest.mark.parametrize(("processes", "rank"), RANKS, ids=lambda value: str(value))
def test_a_run_that_is_killed_for_its_memory_again_and_again_reaches_its_end(
    processes: int, rank: int, home: Path, tmp_path: Path
) -> None:
    """Every resumed engine comes further, and the losses are those of a run that nothing limits."""
    file = tmp_path / "own.py"
    spec = RunSpec(
        task=f"{file}:make_task", processes=processes, batch_size=0, epochs=STEPS, threads=1, device="cpu",
        executor="eager", refresh_ms=10, save_every=0.02, eval_every=0, learning_rate=0.1,
    )  # fmt: skip
    file.write_text(LEAKING.format(limited=False, rank=rank), encoding="utf-8")
    with Engine() as engine:
        undisturbed = engine.train(spec, home)
        assert engine.wait() == 0
    file.write_text(LEAKING.format(limited=True, rank=rank), encoding="utf-8")
    with Engine() as engine:
        run = engine.train(spec, home)
        assert engine.wait() != 0
    check_death(run, rank)
    attempts = 1
    while summarize(run).state != "finished":
        assert attempts < MOST_ATTEMPTS
        attempts += 1
        with Engine() as engine:
            assert isinstance(engine.resume(run), Accepted)
            engine.wait()
    assert attempts > STEPS // 64
    assert finished(run).steps == STEPS
    np.testing.assert_array_equal(losses(run), losses(undisturbed))
    starts = [event.step for event in events(run) if isinstance(event, Continued)]
    assert starts == sorted(starts)


def check_death(run: Path, rank: int) -> None:
    """A killed engine leaves no last event; a killed rank is named by rank 0."""
    summary = summarize(run)
    assert summary.state == ("died" if rank == 0 else "failed")
    assert rank == 0 or "rank 1 was killed by SIGKILL" in summary.note
    assert len(losses(run)) < STEPS
