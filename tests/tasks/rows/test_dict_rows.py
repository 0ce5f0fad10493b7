"""Rows that are dicts, as in Hugging Face's datasets: `model(**batch)` trains as in a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from epochtop.engine.protocol.events import Evaluated
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks.loader import load_task
from tests.support.engines import events, losses, train_here
from tests.tasks.task_files import task_file, task_spec

ROWS, SIZE, SEED, EPOCHS = 65, 16, 5, 2

START = """
from dataclasses import dataclass
from typing import Any
from torch.utils.data import Dataset

class Rows({base}):
    def __len__(self):
        return len(X)
    def __getitem__(self, number):
        return {row}
    {more}

@dataclass
class Output:
    loss: Any = None
    logits: Any = None

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
    def forward(self, {parameters}):
        {body}

def make_task():
    return Task(model=Net(), train=Rows(), test=Rows(){options})
"""
DEFAULTS = {
    "base": "Dataset",
    "row": '{"values": X[number], "labels": Y[number]}',
    "more": "",
    "parameters": "values, labels=None",
    "body": "return self.fc(values)",
    "options": "",
}
OWN_LOSS = "logits = self.fc(values); return Output(F.cross_entropy(logits, labels), logits)"
TASKS: dict[str, dict[str, str]] = {
    "logits": {},
    "own loss": {"body": OWN_LOSS},
    "own loss in a dict": {
        "body": "logits = self.fc(values); return dict(loss=F.cross_entropy(logits, labels), logits=logits)"
    },
    "logits in an object": {"body": "return Output(logits=self.fc(values))"},
    "loss of the task": {"body": OWN_LOSS, "options": ", loss=lambda output, labels: output.loss"},
    "label in place of labels": {"row": '{"values": X[number], "label": int(Y[number])}', "body": OWN_LOSS},
    "a model without labels": {"parameters": "values"},
    "entries that the model does not take": {
        "row": '{"values": X[number], "labels": Y[number], "idx": number, "text": "row " * number}',
    },
    "a model that takes all entries": {"parameters": "**batch", "body": "return self.fc(batch['values'])"},
    "a model that takes the dict": {"parameters": "batch", "body": "return self.fc(batch['values'])"},
    "no Dataset of torch": {
        "base": "object",
        "more": "def __getitems__(self, numbers): return [self[number] for number in numbers]",
    },
    "labels that only the loss knows": {
        "row": '{"values": X[number], "classes": Y[number]}',
        "options": ", loss=lambda output, batch: F.cross_entropy(output, batch['classes'])",
    },
}


def written(folder: Path, **parts: str) -> str:
    return task_file(folder, START.format(**(DEFAULTS | parts)))


def plain() -> tuple[list[float], nn.Linear, torch.Tensor, torch.Tensor]:
    """Losses of a plain loop over pairs, its layer, and all rows."""
    x, y = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(0)), torch.arange(ROWS) % 3
    torch.manual_seed(SEED)
    layer = nn.Linear(4, 3)
    optimizer, order, values = torch.optim.SGD(layer.parameters(), lr=0.1), torch.Generator().manual_seed(SEED), []
    for _ in range(EPOCHS):
        for chosen in torch.randperm(ROWS, generator=order).split(SIZE):
            optimizer.zero_grad()
            loss = functional.cross_entropy(layer(x[chosen]), y[chosen])
            loss.backward()
            optimizer.step()
            values.append(loss.item())
    return values, layer, x, y


def spec_of(task: str, **fields: Any) -> Any:
    return task_spec(task, epochs=EPOCHS, eval_every=0, eval_epochs=1, **fields)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", TASKS)
def test_it_trains_and_is_evaluated_as_in_a_plain_loop(name: str, home: Path, tmp_path: Path) -> None:
    run = train_here(spec_of(written(tmp_path, **TASKS[name])), home)
    values, layer, x, y = plain()
    np.testing.assert_array_equal(losses(run), np.array(values, np.float32))
    last = [event for event in events(run) if isinstance(event, Evaluated)][-1]
    assert last.loss == pytest.approx(functional.cross_entropy(layer(x), y).item(), rel=1e-6)
    if name == "logits":
        assert last.metrics["accuracy"] == pytest.approx((layer(x).argmax(1) == y).float().mean().item())


@pytest.mark.parametrize("settings", [{"workers": 1}, {"ema": 0.9}, {"accumulate": 2, "batch_size": 8}])
def test_other_settings_train_as_with_pairs(settings: dict[str, Any], home: Path, tmp_path: Path) -> None:
    for folder in ("dicts", "pairs"):
        (tmp_path / folder).mkdir()
    pairs = written(tmp_path / "pairs", row="(X[number], Y[number])", parameters="values")
    runs = [
        train_here(spec_of(task, **settings), home)
        for task in (written(tmp_path / "dicts", **TASKS["label in place of labels"]), pairs)
    ]
    np.testing.assert_array_equal(losses(runs[0]), losses(runs[1]))
    evaluated = [[event.loss for event in events(run) if isinstance(event, Evaluated)] for run in runs]
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-6)


def test_names_of_weights_are_those_of_the_user(tmp_path: Path) -> None:
    assert list(load_task(written(tmp_path)).model.state_dict()) == ["fc.weight", "fc.bias"]


def test_a_task_that_needs_a_loss_is_refused(tmp_path: Path) -> None:
    task = written(tmp_path, row='{"values": X[number]}', body="return Output(logits=self.fc(values))")
    with pytest.raises(Invalid, match="neither a loss nor logits for the labels of its rows; give the Task a loss"):
        load_task(task)
