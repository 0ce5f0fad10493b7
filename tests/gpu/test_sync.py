"""On a GPU, the hot loop never waits for the device and trains like a plain loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam

from epochtop.engine.job.job import Job
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.commands import Pause, Resume, Save, Set, Stop
from epochtop.engine.protocol.events import Changed, Finished, Paused, Resumed, Saved
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.window import LossWindow
from epochtop.engine.training import checkpoint
from tests.gpu.waits import waiting_forbidden
from tests.support import plain_loop
from tests.support.engines import Engine, Watch, finished, losses

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.xdist_group("gpu"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]


def asked(**fields: object) -> RunSpec:
    """A run on the first GPU."""
    return RunSpec(**({"device": "cuda:0", "epochs": 10**6, "refresh_ms": 50} | fields))  # type: ignore[arg-type]


def built(spec: RunSpec) -> Job:
    """The job of a spec."""
    return prepare_job(spec)


def test_a_wait_is_detected() -> None:
    """Without this, the tests below would prove nothing."""
    loss = torch.ones((), device="cuda")
    with waiting_forbidden(), pytest.raises(RuntimeError):
        loss.item()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"optimizer": "adam"},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"batch_size": 32},
        {"batch_size": 64, "dataset": "sums", "optimizer": "adam"},
    ],
    ids=str,
)
def test_no_step_waits_for_the_device(fields: dict[str, object]) -> None:
    training = built(asked(**fields))
    take_step, window = training.step, LossWindow(training.device)
    for _ in range(10):  # the first steps load kernels and reserve memory
        window.record(take_step())
    with waiting_forbidden():
        for _ in range(5_000):
            window.record(take_step())
    assert window.turn(0.0) is None  # there is no earlier window yet
    reading = window.drain()
    assert reading is not None
    assert len(reading.losses) == 5_010
    assert bool(torch.isfinite(reading.losses).all())


def test_an_evaluation_and_a_copy_of_the_weights_are_only_enqueued() -> None:
    training = built(asked())
    training.evaluator.evaluate(training.model, training.test)
    with waiting_forbidden():
        training.evaluator.evaluate(training.model, training.test)
        [tensor.detach().clone() for tensor in training.model.state_dict().values()]


@pytest.mark.parametrize(
    ("fields", "optimizer"),
    [
        ({}, partial(SGD, lr=0.01)),
        ({"momentum": 0.9}, partial(SGD, lr=0.01, momentum=0.9)),
        ({"optimizer": "adam"}, partial(Adam, lr=0.01)),
        ({"batch_size": 32}, partial(SGD, lr=0.01)),
    ],
    ids=str,
)
def test_losses_equal_a_plain_loop_on_the_same_device(
    engine: Engine, home: Path, fields: dict[str, object], optimizer: plain_loop.Optimizer
) -> None:
    data = plain_loop.rows("iris")
    run = engine.train(asked(epochs=300, **fields), home)
    assert engine.wait() == 0
    recorded = losses(run)
    batch_size = int(str(fields.get("batch_size", 0)))
    expected = plain_loop.Plain(data.x.cuda(), data.y.cuda(), (4, 10, 3), optimizer, batch_size=batch_size)
    expected_losses, model = expected.train(len(recorded))
    np.testing.assert_allclose(recorded, expected_losses, rtol=1e-4, atol=1e-5)
    info, tensors = checkpoint.read(run, "last")
    assert info.step == len(recorded)
    for name, weight in model.state_dict().items():
        assert tensors[f"model.{name}"].device.type == "cpu"
        torch.testing.assert_close(tensors[f"model.{name}"], weight.cpu(), rtol=1e-3, atol=1e-4)


def test_no_step_is_missing_across_commands(engine: Engine, home: Path) -> None:
    watch = Watch(engine.train(asked(save_every=0.2, eval_every=0.1), home))
    watch.windows(3)
    watch.command(Set(field="learning_rate", value=0.05), Changed)
    paused, _ = watch.command(Pause(), Paused)
    assert len(losses(watch.run)) == paused.step
    watch.command(Save(), Saved)
    resumed, _ = watch.command(Resume(), Resumed)
    assert resumed.step == paused.step
    watch.windows(3)
    for command, answer in (
        (Set(field="learning_rate", value=0.01), Changed),
        (Save(), Saved),
        (Stop(), Finished),
    ):
        _, windows = watch.command(command, answer)
        assert windows <= 4, command  # two refreshes, the window before, and one in flight
    assert engine.wait() == 0
    end = finished(watch.run)
    assert (end.outcome, len(losses(watch.run))) == ("stopped", end.steps)
    assert checkpoint.read(watch.run, "last")[0].step == end.steps


@pytest.mark.parametrize("refresh_ms", [20, 100, 500])
def test_the_device_is_read_no_more_often_than_the_refresh(engine: Engine, home: Path, refresh_ms: int) -> None:
    run = engine.train(asked(epochs=10_000, refresh_ms=refresh_ms), home)
    assert engine.wait() == 0
    end = finished(run)
    assert (
        end.device_reads <= end.seconds / (refresh_ms / 1000) + 15
    )  # the first windows are short (engine/device/pace.py)
    assert len(losses(run)) == 10_000


def test_a_standby_creates_no_context_before_there_is_a_run(engine: Engine) -> None:
    pynvml = pytest.importorskip("pynvml")
    engine.describe(asked())
    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        users = {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    finally:
        pynvml.nvmlShutdown()
    assert engine.process.pid not in users
