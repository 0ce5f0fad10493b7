"""Every training option, compared with a plain loop of torch's classes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adagrad, AdamW, Optimizer, RMSprop
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.job.workload import load_workload
from epochtop.engine.protocol.events import Evaluated
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.training import checkpoint
from tests.support import plain_loop
from tests.support.engines import events, finished, losses, train_here
from tests.support.plain_loop import needs_muon

STEPS = 120


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Theirs:
    """A plain loop on digits, 64-16-10, seed 7, with batches in the documented order of the engine."""

    optimizer: Callable[[nn.Module], list[Optimizer]]
    criterion: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    clip: float = 0.0
    ema: float = 0.0
    dropout: float = 0.0
    batch_size: int = 0
    accumulate: int = 1
    autocast: torch.dtype | None = None
    rows: plain_loop.Rows = field(default_factory=lambda: plain_loop.rows("digits"))

    def train(self) -> tuple[list[float], nn.Module, nn.Module]:
        """Losses, model and moving average."""
        torch.manual_seed(7)
        parts: list[nn.Module] = [nn.Linear(64, 16), nn.ReLU()]
        parts += [nn.Dropout(self.dropout)] if self.dropout else []
        model = nn.Sequential(*parts, nn.Linear(16, 10))
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.ema))
        average.update_parameters(model)  # the first one is a copy
        optimizers, batches = self.optimizer(model), self.batches()
        loss_values = []
        for _ in range(STEPS):
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss_values.append(self.backward(model, next(batches)))
            if self.clip:
                nn.utils.clip_grad_norm_(model.parameters(), self.clip)
            for optimizer in optimizers:
                optimizer.step()
            average.update_parameters(model)
        return loss_values, model, average.module

    def backward(self, model: nn.Module, together: list[Tensor]) -> float:
        """Compute gradients of the mean over all rows of a step, batch by batch."""
        rows = sum(map(len, together))
        total = 0.0
        for chosen in together:
            x, y = self.rows.x[chosen], self.rows.y[chosen]
            if self.autocast:
                with torch.autocast("cpu", self.autocast):
                    loss = self.criterion(model(x), y)
            else:
                loss = self.criterion(model(x), y)
            loss = loss * (len(chosen) / rows) if len(together) > 1 else loss
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    def batches(self) -> Iterator[list[Tensor]]:
        """Row numbers of the batches of a step."""
        generator = torch.Generator().manual_seed(7)
        everything = torch.arange(len(self.rows.x))
        while True:
            if not self.batch_size:
                yield [everything]
                continue
            cut = torch.randperm(len(everything), generator=generator).split(self.batch_size)
            for first in range(0, len(cut), self.accumulate):
                yield list(cut[first : first + self.accumulate])


def sgd(**options: Any) -> Callable[[nn.Module], list[Optimizer]]:
    return lambda model: [SGD(model.parameters(), lr=0.05, **options)]


def muon(model: nn.Module) -> list[Optimizer]:
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    others = [weight for weight in model.parameters() if weight.ndim != 2]
    return [
        torch.optim.Muon(matrices, lr=0.05, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        AdamW(others, lr=0.05, weight_decay=0.1),
    ]


def class_weights() -> Tensor:
    """Inverse class frequencies with a mean of 1."""
    counts = np.bincount(plain_loop.rows("digits").y.numpy())
    inverse = 1 / counts
    return torch.tensor(inverse / inverse.mean(), dtype=torch.float32)


def weighted(output: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(output, labels, weight=class_weights())


def smoothed(output: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(output, labels, label_smoothing=0.1)


CASES: dict[str, tuple[dict[str, object], Theirs]] = {
    "nesterov": ({"momentum": 0.9, "nesterov": True}, Theirs(sgd(momentum=0.9, nesterov=True))),
    "rmsprop": (
        {"optimizer": "rmsprop", "momentum": 0.5, "learning_rate": 0.001},
        Theirs(lambda model: [RMSprop(model.parameters(), lr=0.001, momentum=0.5)]),
    ),
    "adagrad": (
        {"optimizer": "adagrad"},
        Theirs(lambda model: [Adagrad(model.parameters(), lr=0.05, fused=True)]),
    ),
    "muon": ({"optimizer": "muon", "weight_decay": 0.1}, Theirs(muon)),
    "clipping": ({"clip_norm": 0.2}, Theirs(sgd(), clip=0.2)),
    "label smoothing": ({"label_smoothing": 0.1}, Theirs(sgd(), criterion=smoothed)),
    "class weights": ({"class_weights": True}, Theirs(sgd(), criterion=weighted)),
    "bf16": ({"precision": "bf16"}, Theirs(sgd(), autocast=torch.bfloat16)),
    "dropout": ({"dropout": 0.4}, Theirs(sgd(), dropout=0.4)),
    "accumulation": (
        {"batch_size": 100, "accumulate": 4},
        Theirs(sgd(), batch_size=100, accumulate=4),
    ),
    "average": ({"ema": 0.9}, Theirs(sgd(), ema=0.9)),
    "streamed": ({"batch_size": 100, "placement": "stream"}, Theirs(sgd(), batch_size=100)),
}
EXACT = {"nesterov", "rmsprop", "adagrad", "clipping", "label smoothing", "dropout", "streamed", "bf16", "average"}
"""Cases that are equal bit for bit; others differ in the order of an addition."""


def asked(**fields: object) -> RunSpec:
    """A run of STEPS steps; evaluations and checkpoints in between must not change it."""
    common = {
        "dataset": "digits",
        "hidden": (16,),
        "seed": 7,
        "learning_rate": 0.05,
        "epochs": 10**6,
        "max_steps": STEPS,
        "device": "cpu",
        "threads": 1,
        "refresh_ms": 10,
        "eval_every": 0.02,
        "save_every": 0.05,
    }
    return RunSpec(**(common | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("case", [pytest.param(case, marks=needs_muon) if case == "muon" else case for case in CASES])
def test_losses_and_weights_equal_the_plain_loop(case: str, home: Path) -> None:
    fields, theirs = CASES[case]
    run = train_here(asked(**fields), home)
    expected, model, average = theirs.train()
    _, tensors = checkpoint.read(run, "last")
    if case in EXACT:
        np.testing.assert_array_equal(losses(run), np.array(expected, dtype=np.float32))
    else:
        np.testing.assert_allclose(losses(run), expected, rtol=2e-5)
    tolerance = 0.0 if case in EXACT else 1e-4
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(tensors[f"model.{name}"], weight, rtol=tolerance, atol=tolerance)
    for name, weight in average.state_dict().items():
        if theirs.ema:
            torch.testing.assert_close(tensors[f"average.{name}"], weight, rtol=1e-5, atol=1e-7)


def test_the_average_is_evaluated_and_saved_as_the_best(home: Path) -> None:
    run = train_here(asked(ema=0.9, eval_every=0.0), home)
    _, _, average = Theirs(sgd(), ema=0.9).train()
    rows = plain_loop.rows("digits")
    with torch.no_grad():
        output = average(rows.x_test)
    assert finished(run).test_loss == pytest.approx(float(functional.cross_entropy(output, rows.y_test)), rel=1e-5)
    _, tensors = checkpoint.read(run, "best")
    for name, weight in average.state_dict().items():
        torch.testing.assert_close(tensors[f"model.{name}"], weight, rtol=1e-5, atol=1e-7)


def test_dropout_is_off_while_rows_are_evaluated(home: Path) -> None:
    run = train_here(asked(dropout=0.5, eval_every=0.0), home)
    _, model, _ = Theirs(sgd(), dropout=0.5).train()
    rows = plain_loop.rows("digits")
    with torch.no_grad():
        output = model.eval()(rows.x_test)
    assert finished(run).test_loss == pytest.approx(float(functional.cross_entropy(output, rows.y_test)), rel=1e-6)


def test_a_loss_scale_changes_nothing_but_skips_steps_that_overflow() -> None:
    """fp16 on float32 data trains like bf16 up to rounding; an infinite gradient does not change weights."""
    spec = asked(precision="fp16")
    training = prepare_job(spec)
    first = float(training.step())
    assert float([training.step() for _ in range(100)][-1]) < first
    before = copy.deepcopy(training.model.state_dict())
    training.update([torch.full_like(weight, torch.inf) for weight in training.model.parameters()])
    assert all(torch.equal(weight, before[name]) for name, weight in training.model.state_dict().items())
    training.update([torch.ones_like(weight) for weight in training.model.parameters()])
    assert not any(torch.equal(weight, before[name]) for name, weight in training.model.state_dict().items())


def test_evaluations_after_every_n_epochs(home: Path) -> None:
    run = train_here(asked(batch_size=360, eval_epochs=5, max_steps=50), home)  # four steps an epoch
    assert [event.step for event in events(run) if isinstance(event, Evaluated)] == [20, 40, 50]


def test_checkpoints_are_kept_after_every_n_epochs(home: Path) -> None:
    run = train_here(asked(batch_size=360, keep_epochs=5, max_steps=50), home)
    for epoch in (5, 10):
        info, _ = checkpoint.read(run, f"epoch-{epoch}")
        assert info.step == 4 * epoch
    assert not checkpoint.exists(run, "epoch-15")


def test_validation_rows_select_the_best_weights_and_test_rows_are_used_at_the_end(home: Path) -> None:
    run = train_here(asked(validation_fraction=0.25), home)
    workload = load_workload(asked(validation_fraction=0.25))
    assert len(workload.train) + len(workload.validation) == 1437  # type: ignore[arg-type]
    assert len(workload.test) == 360  # type: ignore[arg-type]
    end = finished(run)
    judged = [event for event in events(run) if isinstance(event, Evaluated)]
    assert end.best_test_loss == min(event.loss for event in judged if event.loss is not None)
    assert end.test_loss not in {event.loss for event in judged}
    _, tensors = checkpoint.read(run, "last")
    model = workload.model(asked())
    model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    with torch.no_grad():
        output = model(torch.from_numpy(workload.test.x))  # type: ignore[union-attr]
    expected = functional.cross_entropy(output, torch.from_numpy(workload.test.y))  # type: ignore[union-attr]
    assert end.test_loss == pytest.approx(float(expected), rel=1e-6)
