"""A killed run continues with losses and weights identical to an uninterrupted run, bit for bit."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from epochtop.engine.protocol.events import Finished, Switched, Warned
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.reader import BadLine
from epochtop.engine.training import checkpoint
from tests.support.engines import Engine, Watch, events, finished, losses, train_here

KILLS = 3
"""Kills per job; with seven jobs these are 21 random moments."""

COMMON = {"device": "cpu", "threads": 1, "refresh_ms": 10, "eval_every": 0.03, "save_every": 0.05, "seed": 5}
JOBS: dict[str, dict[str, object]] = {
    "full batch": {"epochs": 12_000},
    "shuffled": {"dataset": "digits", "batch_size": 100, "hidden": (16,), "epochs": 300, "momentum": 0.9},
    "dropout, adam": {"dropout": 0.3, "optimizer": "adam", "epochs": 8_000},
    "accumulation, clipping": {
        "dataset": "wine",
        "batch_size": 16,
        "accumulate": 3,
        "clip_norm": 0.5,
        "epochs": 2_000,
    },
    "cosine with warm-up, average": {"schedule": "cosine", "warmup": 100, "ema": 0.99, "epochs": 6_000},
    "plateau and patience": {
        "schedule": "plateau",
        "patience": 40,
        "eval_epochs": 20,
        "optimizer": "rmsprop",
        "learning_rate": 0.02,
        "epochs": 5_000,
    },
    "cnn": {
        "dataset": "digits",
        "model": "cnn",
        "width": 4,
        "batch_size": 256,
        "optimizer": "adamw",
        "learning_rate": 0.002,
        "epochs": 25,
    },
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("job", JOBS)
def test_a_run_killed_at_random_moments_ends_like_an_uninterrupted_one(job: str, home: Path) -> None:
    spec = RunSpec(**(COMMON | JOBS[job]))  # type: ignore[arg-type]
    straight = train_here(spec, home)
    chance = random.Random(job)
    total = finished(straight).steps
    run: Path | None = None
    for _ in range(KILLS):
        moment = chance.uniform(0.02, 0.9) * total
        with Engine() as engine:
            if run is None:
                run = engine.train(spec, home)
            else:
                assert isinstance(engine.resume(run), Accepted)
            watch = Watch(run)
            watch.until_step(int(moment))
            engine.kill()
        if isinstance(events(run)[-1], Finished):  # this process had to wait too long for a processor
            break
    else:
        assert run is not None
        with Engine() as engine:
            assert isinstance(engine.resume(run), Accepted)
            engine.wait()
    ours, theirs = ([event for event in events(of) if isinstance(event, Switched)] for of in (run, straight))
    assert [(event.step, event.executor) for event in ours] == [(event.step, event.executor) for event in theirs], (
        ours,
        theirs,
    )
    np.testing.assert_array_equal(losses(run), losses(straight))
    assert not [event for event in events(run) if isinstance(event, Warned | BadLine) and "another" in str(event)]
    for kind in ("last",):
        (_, weights), (_, expected) = checkpoint.read(run, kind), checkpoint.read(straight, kind)
        assert weights.keys() == expected.keys()
        for name in weights:
            assert torch.equal(weights[name], expected[name]), name
    ends = finished(run), finished(straight)
    for figure in ("outcome", "reason", "steps", "final_loss", "best_loss", "best_step", "test_loss", "test_metric"):
        assert getattr(ends[0], figure) == getattr(ends[1], figure), figure
