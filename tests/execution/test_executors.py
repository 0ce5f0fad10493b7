"""A run is the same with every executor: losses, weights, commands, evaluations, checkpoints, outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epochtop.engine.protocol.commands import Pause, Resume, Save, Set, Stop
from epochtop.engine.protocol.events import Changed, Evaluated, Paused, Saved, Started, Warned
from epochtop.engine.step import torch_rules
from epochtop.engine.training import checkpoint
from tests.support.engines import events, finished, losses
from tests.support.executors import EXECUTORS, asked, go_on, train, use
from tests.support.plain_loop import needs_muon

DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.xdist_group("gpu")])]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "weight_decay": 0.01},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "rmsprop": {"optimizer": "rmsprop", "learning_rate": 0.001, "momentum": 0.5},
    "adagrad": {"optimizer": "adagrad"},
    "muon": {"optimizer": "muon"},
}
EAGER_ONLY = {"adagrad", "muon"}
JOBS: dict[str, dict[str, Any]] = {
    "full batch": {},
    "batches with a rest": {"batch_size": 50, "epochs": 60},
    "small epochs": {"batch_size": 100, "epochs": 60, "schedule": "cosine", "warmup": 10},
    "accumulation, clipping": {"dataset": "wine", "batch_size": 16, "accumulate": 3, "clip_norm": 0.1, "epochs": 40},
    "average, class weights": {"ema": 0.9, "class_weights": True, "schedule": "one_cycle", "optimizer": "adam"},
    "label smoothing": {"dataset": "digits", "batch_size": 200, "label_smoothing": 0.1, "epochs": 10},
    "binary": {"dataset": "sums", "hidden": (16, 8), "activation": "gelu", "batch_size": 500, "epochs": 10},
    "numbers": {"dataset": "regression", "hidden": (8,), "activation": "silu"},
    "tanh": {"activation": "tanh", "hidden": (6, 5)},
    "sigmoid": {"activation": "sigmoid", "dataset": "wine"},
    "linear": {"hidden": ()},
}
TOLERANCE = {"rtol": 2e-4, "atol": 1e-5}
"""Tolerance of losses: executors sum in different orders, and rounding errors grow with the steps."""


@pytest.fixture(autouse=True)
def _there(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint."""
    return checkpoint.read(run, "last")[1]


def start_of(run: Path) -> Started:
    """The run's first event: which executor takes the steps, and why."""
    return next(event for event in events(run) if isinstance(event, Started))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "optimizer", [pytest.param(name, marks=needs_muon) if name == "muon" else name for name in OPTIMIZERS]
)
@pytest.mark.parametrize("executor", EXECUTORS[1:])
def test_losses_equal_those_of_eager_steps(
    executor: str, device: str, optimizer: str, precision: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**OPTIMIZERS[optimizer], "precision": precision, "device": device, "epochs": 60}
    use(executor, monkeypatch)
    run, eager = train(asked(executor, **fields), home), train(asked("eager", **fields), home)
    start = start_of(run)
    name, notes = start.executor, start.notes
    in_c = executor == "graph" and device == "cpu"
    if (executor != "captured" and optimizer in EAGER_ONLY) or (in_c and precision == "bf16"):
        assert name == "eager"
        assert any(note.startswith(f"eager instead of {executor}: ") for note in notes)
        assert start.fallback in notes
    loose = {"rtol": 2e-2, "atol": 2e-2} if precision == "bf16" else TOLERANCE
    np.testing.assert_allclose(losses(run), losses(eager), **loose)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", JOBS)
@pytest.mark.parametrize("executor", EXECUTORS[1:])
def test_every_kind_of_step_is_executed(
    executor: str, device: str, kind: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(executor, monkeypatch)
    fields = {**JOBS[kind], "device": device}
    run, eager = train(asked(executor, **fields), home), train(asked("eager", **fields), home)
    start = start_of(run)
    assert start.executor == ("graph" if executor == "captured" else executor), start.notes
    np.testing.assert_allclose(losses(run), losses(eager), **TOLERANCE)  # type: ignore[arg-type]
    actual, theirs = weights(run), weights(eager)
    assert actual.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(actual[name], theirs[name], rtol=2e-3, atol=2e-4, msg=name)
    assert finished(run).test_loss == pytest.approx(finished(eager).test_loss, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_commands_are_answered(executor: str, device: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(executor, monkeypatch)
    rate = Set(field="learning_rate", value=0.2)
    commands = [(20, Pause()), (20, Resume()), (33, rate), (50, Save()), (150, Stop(by="me"))]
    run = train(asked(executor, device=device), home, commands)
    happened = events(run)
    assert [event.step for event in happened if isinstance(event, Paused)] == [20]
    assert [(event.step, event.value) for event in happened if isinstance(event, Changed)] == [(33, 0.2)]
    assert any(isinstance(event, Saved) and event.step == 50 for event in happened)
    assert (finished(run).outcome, finished(run).steps, len(losses(run))) == ("stopped", 150, 150)
    expected = train(asked("eager", device=device), home, commands)
    np.testing.assert_allclose(losses(run), losses(expected), **TOLERANCE)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["full batch", "batches with a rest", "average, class weights"])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_interrupted_run_continues_exactly(
    executor: str, device: str, kind: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(executor, monkeypatch)
    spec = asked(executor, **JOBS[kind], device=device, eval_epochs=7)
    rate = (71, Set(field="learning_rate", value=0.03))
    straight = train(spec, home, [rate])
    run = train(spec, home, [rate, (83, Stop())])
    go_on(run, [(131, Stop())])
    go_on(run)
    if device == "cpu":
        np.testing.assert_array_equal(losses(run), losses(straight))
        assert all(torch.equal(weights(run)[name], tensor) for name, tensor in weights(straight).items())
    else:
        np.testing.assert_allclose(losses(run), losses(straight), rtol=1e-3)
    assert not [event for event in events(run) if isinstance(event, Warned)]
    evaluated = [{event.step for event in events(path) if isinstance(event, Evaluated)} for path in (straight, run)]
    assert evaluated[0] <= evaluated[1]  # the interrupted run was also evaluated where it stopped


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_run_that_diverges_records_the_step(
    executor: str, device: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(executor, monkeypatch)
    fields = {"dataset": "regression", "hidden": (), "learning_rate": 50.0, "device": device}
    run, eager = train(asked(executor, **fields), home), train(asked("eager", **fields), home)
    assert finished(run).outcome == finished(eager).outcome == "diverged"
    assert finished(run).diverged_step == finished(eager).diverged_step
    assert np.isfinite(losses(run)[: finished(run).diverged_step]).all()


@pytest.mark.parametrize("executor", ["graph", "captured"])
def test_dropout_is_drawn_again_in_every_step(
    executor: str, device: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(executor, monkeypatch)
    spec = asked(executor, dropout=0.5, learning_rate=1e-12, device=device)
    run = train(spec, home)
    recorded = losses(run).astype(np.float64)
    assert len(np.unique(recorded)) > 150  # the weights hardly move: else all losses were the same
    eager = losses(train(asked("eager", dropout=0.5, learning_rate=1e-12, device=device), home)).astype(np.float64)
    error = np.hypot(recorded.std(), eager.std()) / np.sqrt(len(recorded))
    assert abs(recorded.mean() - eager.mean()) < 5 * error
    assert 0.5 < recorded.std() / eager.std() < 2


@pytest.mark.parametrize("executor", ["graph", "compile"])
def test_a_run_with_dropout_continues_exactly(
    executor: str, home: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    use(executor, monkeypatch)
    spec = asked(executor, dropout=0.3, hidden=(8,), device=device)
    straight, run = train(spec, home), go_on(train(spec, home, [(90, Stop())]))
    if device == "cpu":
        np.testing.assert_array_equal(losses(run), losses(straight))


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_create_state_creates_the_state_of_a_first_step(name: str, device: str) -> None:
    """The state is zero, and the following steps equal those of a new optimizer, so that trial steps can be undone."""
    torch.manual_seed(1)
    first = [torch.nn.Parameter(torch.randn(4, 3, device=device)), torch.nn.Parameter(torch.randn(3, device=device))]
    other = [torch.nn.Parameter(weight.detach().clone()) for weight in first]
    options = {"lr": 0.1, "weight_decay": 0.1, "fused": True} | ({"momentum": 0.9} if name == "SGD" else {})
    plain = getattr(torch.optim, name)(first, **options)
    ours = torch_rules.TorchRule(other, [getattr(torch.optim, name)(other, **options)])
    ours.create_state()
    assert all(not tensor.any() for slot in ours.state_dict().values() for tensor in slot.values())
    with torch.no_grad():
        for actual, theirs in zip(other, first, strict=True):
            actual.copy_(theirs)
    for _ in range(5):
        gradients = [torch.randn_like(weight) for weight in first]
        for weight, gradient in zip(first, gradients, strict=True):
            weight.grad = gradient.clone()
        plain.step()
        ours([gradient.clone() for gradient in gradients])
    for actual, theirs in zip(other, first, strict=True):
        torch.testing.assert_close(actual, theirs)
