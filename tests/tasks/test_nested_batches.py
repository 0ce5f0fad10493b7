"""Tasks with nested rows, labels and outputs train as in a plain loop, from the file to the recorded figures."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional

from epochtop.engine.protocol.events import Evaluated
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.tasks.loader import load_task
from tests.support.engines import events, finished, losses, train_here
from tests.support.trained_runs import weights

ROWS, TESTED, SIZE, EPOCHS, RATE, SEED = 40, 21, 8, 2, 0.1, 1

START = """
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from epochtop import Task

draw = torch.Generator().manual_seed(0)
X = torch.randn(40, 5, generator=draw)
Y = torch.randint(0, 3, (40,), generator=draw)
W = torch.ones(40)

class Pair(NamedTuple):
    features: Any
    mask: Any

@dataclass
class Output:
    loss: Any = None
    logits: Any = None

class Rows(Dataset):
    def __init__(self, count, x, y):
        self.count, self.x, self.y = count, x, y
    def __len__(self):
        return self.count
    def __getitem__(self, at):
        return self.x(at), self.y(at)

class Net(nn.Module):
    def __init__(self, features, output):
        super().__init__()
        self.fc, self.features, self.output = nn.Linear(5, 3), features, output
    def forward(self, x):
        return self.output(self.fc(self.features(x)))

def accuracy(logits, y):
    return (logits.argmax(1) == y).float().mean()

same = lambda value: value
"""

TASKS = {
    "dict": ("lambda at: {'f': X[at], 'name': 'row'}", "lambda at: Y[at]", "lambda x: x['f']", "same", "same", "same"),
    "namedtuple": ("lambda at: Pair(X[at], W[at])", "lambda at: Y[at]", "lambda x: x.features", "same", "same", "same"),
    "dataclass": ("lambda at: Output(logits=X[at])", "lambda at: Y[at]", "lambda x: x.logits", "same", "same", "same"),
    "None in rows": ("lambda at: (X[at], None)", "lambda at: Y[at]", "lambda x: x[0]", "same", "same", "same"),
    "dict labels": ("lambda at: X[at]", "lambda at: {'y': Y[at]}", "same", "same", "same", "lambda y: y['y']"),
    "tuple labels": ("lambda at: X[at]", "lambda at: (Y[at], W[at])", "same", "same", "same", "lambda y: y[0]"),
    "dict output": ("lambda at: X[at]", "lambda at: Y[at]", "same", "lambda o: OrderedDict(l=o)", "lambda o: o['l']", "same"),
    "dataclass output": ("lambda at: X[at]", "lambda at: Y[at]", "same", "lambda o: Output(logits=o)", "lambda o: o.logits", "same"),
}  # fmt: skip
"""Row, label, then how the model reads its rows and makes its output, and how the loss reads output and labels."""


def written(folder: Path, source: str) -> str:
    file = folder / "nested.py"
    file.write_text(START + dedent(source))
    return f"{file}:make_task"


def task_of(folder: Path, name: str) -> str:
    x, y, features, output, logits, labels = TASKS[name]
    return written(
        folder,
        f"""
        row, label, logits, labels = {x}, {y}, {logits}, {labels}
        def make_task():
            return Task(
                model=Net({features}, {output}), train=Rows(40, row, label), test=Rows(21, row, label),
                loss=lambda o, t: F.cross_entropy(logits(o), labels(t)),
                metrics={{"accuracy": lambda o, t: accuracy(logits(o), labels(t))}},
            )
        """,
    )


def spec_of(task: str) -> RunSpec:
    return RunSpec(
        task=task, device="cpu", batch_size=SIZE, epochs=EPOCHS, learning_rate=RATE, seed=SEED, eval_epochs=1
    )


def plain(ignored: torch.Tensor | None = None) -> tuple[list[float], nn.Linear, torch.Tensor, torch.Tensor]:
    """Losses of a plain loop, its layer, and all rows. Every epoch has a new order from one generator."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(ROWS, 5, generator=draw), torch.randint(0, 3, (ROWS,), generator=draw)
    if ignored is not None:
        y[ignored] = -100
    torch.manual_seed(SEED)
    layer = nn.Linear(5, 3)
    optimizer, order, values = torch.optim.SGD(layer.parameters(), lr=RATE), torch.Generator().manual_seed(SEED), []
    for _ in range(EPOCHS):
        for chosen in torch.randperm(ROWS, generator=order).split(SIZE):
            optimizer.zero_grad()
            loss = functional.cross_entropy(layer(x[chosen]), y[chosen])
            loss.backward()
            optimizer.step()
            values.append(loss.item())
    return values, layer, x, y


@pytest.mark.parametrize("name", TASKS)
def test_a_nested_task_trains_and_is_evaluated_as_in_a_plain_loop(name: str, tmp_path: Path) -> None:
    run = train_here(spec_of(task_of(tmp_path, name)), tmp_path)
    values, layer, x, y = plain()
    np.testing.assert_array_equal(losses(run), np.array(values, np.float32))
    last = [event for event in events(run) if isinstance(event, Evaluated)][-1]
    logits = layer(x[:TESTED])
    assert last.step == len(values)
    assert last.loss == pytest.approx(functional.cross_entropy(logits, y[:TESTED]).item(), rel=1e-6)
    assert last.metrics["accuracy"] == pytest.approx((logits.argmax(1) == y[:TESTED]).float().mean().item())


def test_the_default_metrics_take_ignored_labels_and_probabilities(tmp_path: Path) -> None:
    for labels in ("torch.where(torch.arange(40) % 4 == 3, -100, Y)", "F.one_hot(Y, 3).float()"):
        source = f"""
        LABELS = {labels}
        def make_task():
            return Task(model=nn.Linear(5, 3), train=(X, LABELS), test=(X, LABELS))
        """
        run = train_here(spec_of(written(tmp_path, source)), tmp_path)
        _, _, x, y = plain()
        state = weights(run, "last")
        predicted = (x @ state["weight"].T + state["bias"]).argmax(1)
        counted = torch.arange(ROWS) % 4 != 3 if "-100" in labels else torch.ones(ROWS, dtype=torch.bool)
        last = [event for event in events(run) if isinstance(event, Evaluated)][-1]
        assert last.metrics["accuracy"] == pytest.approx((predicted == y)[counted].float().mean().item())
        assert last.metrics["f1"] == pytest.approx(f1_score(y[counted], predicted[counted], average="macro"))


def test_batches_without_a_label_do_not_end_a_run(tmp_path: Path) -> None:
    """torch's loss of such a batch is NaN, but its gradient is 0."""
    source = """
    LABELS = torch.full((40,), -100)
    LABELS[:2] = torch.tensor([1, 0])
    def make_task():
        return Task(model=nn.Linear(5, 3), train=(X, LABELS), test=(X, LABELS))
    """
    run = train_here(spec_of(written(tmp_path, source)), tmp_path)
    assert finished(run).outcome == "finished"
    assert 0 < np.count_nonzero(losses(run)) < len(losses(run))
    last = [event for event in events(run) if isinstance(event, Evaluated)][-1]
    assert last.loss is not None


@pytest.mark.parametrize("executor", ["eager", "graph"])
def test_ignored_labels_train_as_in_a_plain_loop(executor: str, tmp_path: Path) -> None:
    source = """
    LABELS = torch.where(torch.arange(40) % 4 == 3, -100, Y)
    def make_task():
        return Task(model=nn.Linear(5, 3), train=(X, LABELS))
    """
    run = train_here(replace(spec_of(written(tmp_path, source)), executor=executor), tmp_path)
    values, _, _, _ = plain(ignored=torch.arange(ROWS) % 4 == 3)
    np.testing.assert_allclose(losses(run), values, rtol=1e-6)


def test_one_hot_integers_are_refused_with_what_to_write(tmp_path: Path) -> None:
    source = """
    def make_task():
        return Task(model=nn.Linear(5, 3), train=(X, F.one_hot(Y, 3)))
    """
    with pytest.raises(Invalid, match=r"use y\.argmax\(1\) for class numbers, or y\.float\(\)"):
        load_task(written(tmp_path, source))


def test_an_object_with_update_and_compute_is_a_metric(tmp_path: Path) -> None:
    source = """
    class F1:
        def __init__(self):
            self.outputs, self.labels = [], []
        def update(self, output, labels):
            self.outputs.append(output.argmax(1))
            self.labels.append(labels)
        def compute(self):
            from sklearn.metrics import f1_score
            return f1_score(torch.cat(self.labels), torch.cat(self.outputs), average="macro")
    def make_task():
        return Task(model=nn.Linear(5, 3), train=(X, Y), test=(X, Y), metrics={"f1": F1()})
    """
    run = train_here(spec_of(written(tmp_path, source)), tmp_path)
    _, layer, x, y = plain()
    last = [event for event in events(run) if isinstance(event, Evaluated)][-1]
    assert last.metric == pytest.approx(f1_score(y, layer(x).argmax(1), average="macro"))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def update(self, output): pass\n    def compute(self): return 1.0", "takes 2 positional arguments"),
        ("def update(self, output, y): pass\n    def compute(self): return torch.ones(3)", "the shape (3,)"),
        ("def update(self, output, y): pass\n    def compute(self): return None", "is None"),
    ],
)
def test_an_object_that_is_not_a_metric_is_refused(body: str, says: str, tmp_path: Path) -> None:
    source = f"class Metric:\n    {body}\ndef make_task():\n    return Task(model=nn.Linear(5, 3), train=(X, Y), metrics={{'m': Metric()}})\n"
    file = tmp_path / "nested.py"
    file.write_text(START + source)
    with pytest.raises(Invalid) as error:
        load_task(f"{file}:make_task")
    assert says in error.value.message
