"""Nothing on the step path reads the device: proven operator by operator, in the source, and in a real run."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from epochtop.engine.execution import compiled, cuda_graph, eager
from epochtop.engine.execution.c import graph
from epochtop.engine.job import state
from epochtop.engine.job.job import Job
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.commands import Pause as PauseNow
from epochtop.engine.protocol.commands import Resume, Set, Stop
from epochtop.engine.protocol.events import Paused, Resumed
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step import batches, evaluation, step, torch_rules, update_rules, window
from epochtop.engine.step.window import SLOTS, LossWindow
from epochtop.engine.training import evaluations, loop
from tests.support.engines import Engine, Watch, events, finished, windows
from tests.support.plain_loop import needs_muon

READS = {"aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.nonzero", "aten.equal", "aten.masked_select"}


class Operators(TorchDispatchMode):
    """Counts every operator, and those that move a value to the host or between devices.

    `tolist`, `numpy` and `print` use no operator on the CPU; the source is searched for them instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.all: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket)
        self.all[name] += 1
        copied = name == "aten._to_copy" and result.device != args[0].device
        if name in READS or copied or (name == "aten.copy_" and args[0].device != args[1].device):
            self.reads[name] += 1
        return result


READING = {
    "item": lambda loss: loss.item(),
    "float": float,
    "if": bool,
    "to another device": lambda loss: loss.to("meta"),
    "copy to another device": lambda loss: torch.empty((), device="meta").copy_(loss),
    "isnan": lambda loss: bool(torch.isnan(loss)),
}


@pytest.mark.parametrize("name", READING)
def test_a_read_is_seen(name: str) -> None:
    """Else the tests below would prove nothing."""
    loss = torch.ones(()) * 2
    with Operators() as operators:
        READING[name](loss)
    assert operators.reads.total() > 0


JOBS = [
    RunSpec(**({"threads": 1, "device": "cpu", "epochs": 10_000} | fields))  # type: ignore[arg-type]
    for fields in (
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.1, "dataset": "digits"},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"batch_size": 32},
        {"batch_size": 32, "optimizer": "adam", "dataset": "wine"},
        {"dataset": "sums", "batch_size": 64},
        {"clip_norm": 0.1},
        {"precision": "bf16"},
        {"precision": "fp16", "clip_norm": 0.1},
        {"precision": "fp16", "optimizer": "adam", "batch_size": 16, "accumulate": 3},
        {"batch_size": 16, "accumulate": 4, "ema": 0.9, "dropout": 0.2},
        {"optimizer": "rmsprop", "momentum": 0.5},
        {"optimizer": "adagrad"},
        {"optimizer": "muon"},
        {"momentum": 0.9, "nesterov": True, "label_smoothing": 0.1, "class_weights": True},
        {"batch_size": 16, "placement": "stream"},
        {"dataset": "digits", "model": "cnn", "batch_size": 16, "channels_last": True, "width": 4},
    )
]


def built(spec: RunSpec) -> Job:
    """What the loop trains."""
    return prepare_job(spec)


@pytest.mark.parametrize(
    "spec",
    [pytest.param(spec, marks=needs_muon) if spec.optimizer == "muon" else spec for spec in JOBS],
    ids=lambda spec: f"{spec.dataset}-{spec.optimizer}-{spec.batch_size}-{spec.precision}",
)
def test_no_operator_of_a_step_reads(spec: RunSpec) -> None:
    training = built(spec)
    take_step, losses = training.step, LossWindow(training.device)
    steps = 100
    with Operators() as operators:
        for _ in range(steps):
            losses.record(take_step())
    assert operators.reads == Counter()
    assert operators.all.total() > 10 * steps


def test_recording_more_losses_than_there_are_slots_reads_nothing() -> None:
    losses, loss = LossWindow(torch.device("cpu")), torch.ones(())
    with Operators() as operators:
        for _ in range(2 * SLOTS + 10):
            losses.record(loss)
    assert operators.reads == Counter()
    reading = losses.turn(0.0)
    assert reading is not None
    assert torch.equal(reading.losses, torch.ones(2 * SLOTS + 10))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_step_runs_where_there_is_no_value_to_read(optimizer: str) -> None:
    """On the meta device tensors have shapes only: any look at a value raises."""
    spec = RunSpec(optimizer=optimizer, weight_decay=0.1)  # type: ignore[arg-type]
    device = torch.device("meta")
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3)).to(device)
    rows = (torch.empty(120, 4, device=device), torch.empty(120, dtype=torch.int64, device=device))
    weights = list(model.parameters())
    rule = torch_rules.make_update_rule(spec, weights)
    take_step = step.eager_step(model, nn.functional.cross_entropy, rule, lambda: rows, weights)
    losses = LossWindow(device)
    for _ in range(5):
        losses.record(take_step())
    with pytest.raises((RuntimeError, NotImplementedError)):
        take_step().item()


def test_an_evaluation_and_a_checkpoint_are_enqueued_without_reading() -> None:
    training = built(JOBS[0])
    losses = LossWindow(training.device)
    with Operators() as operators:
        evaluations.Evaluations(training, losses).enqueue(step=1, seconds=0.0)
        state.capture(training)
    assert operators.reads == Counter()


# --- the source --------------------------------------------------------------------------------------------

FORBIDDEN = {"item", "cpu", "tolist", "numpy", "print", "synchronize", "isnan", "float", "bool", "to", "wait", "sleep"}


def calls(source: str) -> set[str]:
    """Names of everything that is called."""
    called = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {getattr(function, "attr", getattr(function, "id", "")) for function in called}


def test_a_forbidden_call_is_seen() -> None:
    assert calls("print(loss.detach().cpu().item(), loss.tolist())") == {"print", "detach", "cpu", "item", "tolist"}


PATH = [
    loop.Loop._run_to,
    eager.Eager.run,
    graph.CGraph.run,
    cuda_graph.CudaGraph.run,
    cuda_graph.CudaGraph._fill,
    compiled.Compiled.run,
    LossWindow.record,
    LossWindow._fold,
    LossWindow.attach,
    step,
    update_rules.SGD,
    update_rules.Adam,
    torch_rules.TorchRule.__call__,
    torch_rules.LossScaledRule.__call__,
    batches.ResidentBatches,
    batches.FullBatch.__call__,
    evaluation.Evaluator.evaluate,
    state.capture,
    state.weights,
]


@pytest.mark.parametrize("part", PATH, ids=lambda part: getattr(part, "__qualname__", part.__name__))
def test_the_source_of_the_step_path_calls_nothing_that_reads(part: Any) -> None:
    source = inspect.getsource(part)
    dedented = source if inspect.ismodule(part) else inspect.cleandoc("\n" + source)
    assert not calls(dedented) & FORBIDDEN


def test_the_window_waits_in_one_place() -> None:
    """The one synchronization of the training loop."""
    assert inspect.getsource(window).count(".synchronize()") == 1
    assert "synchronize" not in inspect.getsource(loop)


# --- real runs ---------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("iris")
def test_the_default_run_reads_no_more_often_than_the_refresh(iris_run: Path) -> None:
    end = finished(iris_run)
    recorded = windows(events(iris_run))
    assert len(recorded) <= end.device_reads <= end.seconds / 0.1 + 2
    assert recorded[-1].reads is not None
    assert recorded[-1].reads <= end.device_reads
    assert 0 <= end.waited_seconds <= end.seconds


def test_a_pause_does_not_read_more(engine: Engine, home: Path) -> None:
    """A pause reads what is left once; while it lasts, nothing is read."""
    spec = RunSpec(epochs=10**9, threads=1, device="cpu", refresh_ms=50)
    watch = Watch(engine.train(spec, home))
    watch.windows(3)
    watch.command(PauseNow(), Paused)
    reads = windows(watch.seen)[-1].reads
    watch.command(Resume(), Resumed)
    watch.windows(1)
    again = windows(watch.seen)[-1].reads
    assert again is not None
    assert reads is not None
    assert again <= reads + 2
    watch.command(Set(field="learning_rate", value=0.1), object)
    watch.command(Stop(), object)
    assert engine.wait() == 0
    commands = 4
    assert finished(watch.run).device_reads <= finished(watch.run).seconds / 0.05 + 2 + commands


def test_the_loss_is_that_of_the_plain_loop_without_reads_in_between() -> None:
    """The window holds values of steps, not a view of the newest."""
    training = built(JOBS[0])
    losses, take_step = LossWindow(training.device), training.step
    for _ in range(3):
        losses.record(take_step())
    reading = losses.turn(0.0)
    assert reading is not None
    assert len(set(reading.losses.tolist())) == 3


def test_a_recorded_loss_keeps_no_graph() -> None:
    training = built(JOBS[0])
    loss = training.step()
    assert isinstance(loss, Tensor)
    assert loss.grad_fn is None
    assert not loss.requires_grad
