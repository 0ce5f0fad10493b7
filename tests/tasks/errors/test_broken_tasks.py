"""Whatever is wrong with a task, and whenever: the error names the user's line, and what is wrong, in one line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from epochtop.engine.job.failures import failed
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.events import Failed
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.writer import create
from epochtop.engine.training.loop import Loop
from epochtop.engine.training.recorder import Recorder
from tests.support.engines import Engine, Watch
from tests.tasks.task_files import task_file, task_spec

NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
    def forward(self, x):
        {forward}

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 65
    def __getitem__(self, at):
        {row}

def loss(output, y):
    {loss}

def metric(output, y):
    {metric}

class Mine(Task):
    saves = 0
    def state_dict(self):
        {state}

    def load_state_dict(self, state):
        pass

def make_task():
    return {task}
"""
GOOD = {
    "forward": "return self.fc(x)",
    "row": "return X[at], Y[at]",
    "loss": "return F.cross_entropy(output, y)",
    "metric": "return (output.argmax(1) == y).float().mean()",
    "state": "return {}",
    "task": "Task(model=Net(), train=(X, Y), test=(X, Y))",
}
LOSS = "Task(model=Net(), train=(X, Y), loss=loss)"
DATASET = "Task(model=Net(), train=Rows())"
TESTED = "Task(model=Net(), train=(X, Y), test=Rows())"
METRIC = "Task(model=Net(), train=(X, Y), test=(X, Y), metrics={'m': metric})"
STATE = "Mine(model=Net(), train=(X, Y))"
ROW_40 = "return (X[at], Y[at]) if at != 40 else "
LAST = "if len(x) == 1:"
"""The last batch of an epoch has one row, which the trial has not seen."""
OUTSIDE = "the model has 3 outputs, so labels go from 0 to 2 (rows count from 0); fix the labels or add outputs"

Case = tuple[dict[str, str], str, str, dict[str, Any]]
BROKEN: dict[str, Case] = {
    # --- forward
    "no output": ({"forward": "self.fc(x)"}, "def forward", "the model returns None", {}),
    "no output in evaluation": (
        {"forward": "return self.fc(x) if self.training else None"}, "def forward", "returns None in evaluation mode", {},
    ),
    "an error in a later batch": (
        {"forward": f"{LAST} raise ValueError('too few')\n        return self.fc(x)"}, "raise ValueError", "ValueError: too few", {},
    ),
    "an error in an evaluation": (
        {"forward": "assert self.training or len(x) < 9, 'many'\n        return self.fc(x)"}, "assert self", "AssertionError: many", {},
    ),
    "an error in a later step, and in steps that are timed": (
        {"forward": "self.n = getattr(self, 'n', 0) + 1\n        assert self.n < 4, 'late'\n        return self.fc(x)"}, "assert self.n", "AssertionError: late", {"threads": 0},
    ),
    "no output for a later batch": (
        {"forward": f"{LAST} return None\n        return self.fc(x)"}, "def forward", "the model returns None", {},
    ),
    "another width for a later batch": (
        {"forward": f"{LAST} x = x[:, :2]\n        return self.fc(x)"}, "return self.fc(x)", "expects 4 features, but the rows have 2", {},
    ),
    "another type for a later batch": (
        {"forward": f"{LAST} x = x.double()\n        return self.fc(x)"}, "return self.fc(x)", "float64", {},
    ),
    "two inputs": ({"forward": "pass\n    def forward(self, x, w):\n        return self.fc(x)"}, "def forward(self, x, w)", "write forward(self, x)", {}),
    "fewer rows": ({"forward": "return self.fc(x[:1])"}, "def forward", "the model returns 1 rows for 2 labels", {}),
    # --- loss
    "a loss of Python's": (
        {"task": LOSS, "loss": "return F.cross_entropy(output, y).item()"}, "def loss", "the loss is a value of type float", {},
    ),
    "a later loss of Python's": (
        {"task": LOSS, "loss": "return F.cross_entropy(output, y) if len(y) > 1 else 0.0"}, "def loss", "the loss is a value of type float", {},
    ),
    "a later loss per row": (
        {"task": LOSS, "loss": "return F.cross_entropy(output, y, reduction='mean' if len(y) > 1 else 'none')"},
        "def loss", "the loss has the shape (1,); return one number", {},
    ),
    "a later loss without gradient": (
        {"task": LOSS, "loss": "return F.cross_entropy(output if len(y) > 1 else output.detach(), y)"},
        "def loss", "does not depend on the model's weights", {},
    ),
    "accumulated without gradient": (
        {"task": LOSS, "loss": "return F.cross_entropy(output if len(y) > 1 else output.detach(), y)"},
        "def loss", "does not depend on the model's weights", {"accumulate": 2},
    ),
    "an error in the loss": (
        {"task": LOSS, "loss": "assert len(y) > 1\n    return F.cross_entropy(output, y)"}, "assert len(y)", "AssertionError", {},
    ),
    # --- labels
    "a label out of range": ({"task": "Task(model=Net(), train=(X, torch.where(torch.arange(65) == 41, 3, Y)))"}, "def make_task", f"the label of training row 41 is 3, but {OUTSIDE}", {}),
    "a negative label": ({"task": "Task(model=Net(), train=(X, torch.where(torch.arange(65) == 41, -1, Y)))"}, "def make_task", "the label of training row 41 is -1", {}),
    "a test label": ({"task": "Task(model=Net(), train=(X, Y), test=(X, Y + (torch.arange(65) == 64) * 9))"}, "def make_task", "the label of test row 64 is 10", {}),
    "a label of an own loss": (
        {"task": "Task(model=Net(), train=(X, torch.where(torch.arange(65) == 41, 3, Y)), loss=loss)"},
        "return F.cross_entropy", f"the label of training row 41 is 3, but {OUTSIDE}", {},
    ),
    "a label of a Dataset": ({"task": DATASET, "row": f"{ROW_40}(X[at], torch.tensor(7))"}, "def __getitem__", f"the label of training row 40 is 7, but {OUTSIDE}", {}),
    "a label read by a worker": ({"task": DATASET, "row": f"{ROW_40}(X[at], torch.tensor(7))"}, "def __getitem__", f"the label of training row 40 is 7, but {OUTSIDE}", {"workers": 1}),
    "a label of a test Dataset": ({"task": TESTED, "row": f"{ROW_40}(X[at], torch.tensor(7))"}, "def __getitem__", "the label of test row 40 is 7", {}),
    "a label of a Dataset with an own loss": (
        {"task": "Task(model=Net(), train=Rows(), loss=loss)", "row": f"{ROW_40}(X[at], torch.tensor(7))"}, "return F.cross_entropy", "the label of training row 40 is 7", {},
    ),
    # --- Datasets
    "a row that cannot be read": ({"task": DATASET, "row": f"{ROW_40}X[at].nothing"}, "else X[at].nothing", "row 40: AttributeError", {}),
    "a row that a worker cannot read": ({"task": DATASET, "row": f"{ROW_40}X[at].nothing"}, "else X[at].nothing", "row 40: AttributeError", {"workers": 1}),
    "a test row that cannot be read": ({"task": TESTED, "row": f"{ROW_40}X[at].nothing"}, "else X[at].nothing", "row 40: AttributeError", {}),
    "a longer row": ({"task": DATASET, "row": f"{ROW_40}(X[:2].flatten(), 1)"}, "def __getitem__", "row 40", {"seed": 0}),
    "a row of a subset": ({"task": "Task(model=Net(), train=torch.utils.data.Subset(Rows(), range(40, 45)))", "row": f"{ROW_40}X[at]"}, "def __getitem__", "row 0 is a Tensor", {}),
    "a longer row in a worker": ({"task": DATASET, "row": f"{ROW_40}(X[:2].flatten(), 1)"}, "def __getitem__", "cannot be joined to a batch", {"workers": 1}),
    "a row without a label": ({"task": DATASET, "row": f"{ROW_40}X[at]"}, "def __getitem__", "row 40 is a Tensor, but items of a Dataset must be pairs", {}),
    "a label that is None": ({"task": DATASET, "row": f"{ROW_40}(X[at], None)"}, "def __getitem__", "(Tensor, None)", {}),
    "a row that ends the process": ({"task": DATASET, "row": f"{ROW_40}__import__('sys').exit('gone')"}, "exit('gone')", "row 40: SystemExit: gone", {}),
    "a row that ends a worker": ({"task": DATASET, "row": f"{ROW_40}__import__('sys').exit('gone')"}, "exit('gone')", "row 40: SystemExit: gone", {"workers": 1}),
    "a label that is a text": ({"task": DATASET, "row": f"{ROW_40}(X[at], 'cat')"}, "def __getitem__", "row 40", {"seed": 0}),
    # --- metrics
    "an error in a metric": ({"task": METRIC, "metric": "assert len(y) > 2 or len(y) == 2"}, "def metric", "the metric 'm' is None", {}),
    "a later error in a metric": ({"task": METRIC, "metric": "assert len(y) > 1\n    return output.mean()"}, "assert len(y)", "AssertionError", {}),
    "a later metric of Python's": ({"task": METRIC, "metric": "return output.mean() if len(y) > 1 else None"}, "def metric", "the metric 'm' is None", {}),
    # --- state
    "an error in state_dict": ({"task": STATE, "state": "1 / 0"}, "1 / 0", "ZeroDivisionError", {}),
    "a later error in state_dict": ({"task": STATE, "state": "self.__dict__['n'] = self.__dict__.get('n', 0) + 1\n        return {'a': 1 / (2 - self.n)}"}, "1 / (2 - self.n)", "ZeroDivisionError", {}),
    "a later state that cannot be saved": (
        {"task": STATE, "state": "self.__dict__['n'] = self.__dict__.get('n', 0) + 1\n        return {'a': 1 if self.n < 2 else object()}"},
        "def state_dict", "state_dict()['a'] is a value of type object", {},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def error_of(spec: RunSpec, home: Path) -> str:
    """The error before or in the run."""
    try:
        job = prepare_job(spec)
    except Invalid as error:
        return error.message
    run, lock = create(home, spec, {}, time.time())
    with lock:
        recorder = Recorder(run, spec)
        loop = Loop(job, recorder)
        recorder.start(on_command=loop.wake)
        try:
            loop.run()
        except Exception as error:
            return failed(error, loop.step, job).message.removeprefix("task: ")
        finally:
            recorder.close()
    raise AssertionError("the run finished")


def written(folder: Path, parts: dict[str, str]) -> tuple[str, list[str]]:
    """The task with these parts, and the lines of its file."""
    task = task_file(folder, NET.format(**GOOD | parts))
    return task, Path(task.rpartition(":")[0]).read_text().splitlines()


def check(message: str, lines: list[str], where: str, says: str) -> None:
    number = next(at for at, line in enumerate(lines, 1) if where in line)
    assert message.startswith(f"task_file.py, line {number}, in ")
    assert says in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("case", BROKEN)
def test_an_error_names_the_line_and_the_problem(case: str, home: Path, tmp_path: Path) -> None:
    parts, where, says, fields = BROKEN[case]
    task, lines = written(tmp_path, parts)
    check(error_of(task_spec(task, eval_epochs=1, epochs=2, last_batch="keep", **fields), home), lines, where, says)


def test_a_device_assert_is_explained_by_the_labels(tmp_path: Path) -> None:
    """A kernel that stops says nothing about the row, and the device answers nothing afterwards."""
    for case, line in (("a label of an own loss", "def loss"), ("a label of a Dataset with an own loss", "def loss")):
        parts, _, says, _ = BROKEN[case]
        task, lines = written(tmp_path, parts)
        error = RuntimeError("CUDA error: device-side assert triggered")
        check(failed(error, 3, prepare_job(task_spec(task))).message, lines, line, says)
    task, _ = written(tmp_path, {})
    event = failed(error, 3, prepare_job(task_spec(task)))
    assert "CUDA error: device-side assert triggered" in event.message
    assert "device cpu" in event.advice


def test_a_rank_names_the_line_and_the_row(home: Path, tmp_path: Path) -> None:
    task, lines = written(tmp_path, {"task": DATASET, "row": f"{ROW_40}(X[at], torch.tensor(7))"})
    with Engine() as engine:
        watch = Watch(engine.train(task_spec(task, processes=2, batch_size=8, last_batch="keep"), home))
        end = watch.end()
    assert isinstance(end, Failed)
    check(
        end.message.partition("rank 1: ")[2] or end.message,
        lines,
        "def __getitem__",
        "the label of training row 40 is 7",
    )
