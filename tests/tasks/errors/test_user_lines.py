"""Errors in a user's file are one line that names the user's line and never one of epochtop's."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks.loader import load_recorded, load_task
from epochtop.engine.tasks.task import Task

START = """
import torch
from torch import nn
from epochtop import Task

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
    def forward(self, x):
        return self.fc(x)

X, Y = torch.rand(20, 4), torch.randint(0, 3, (20,))
"""
GOOD = "def make_task():\n    return Task(model=Net(), train=(X, Y))\n"


def refusal(folder: Path, source: str, function: str = "make_task") -> str:
    """The message for such a file; it must be one line and must not mention epochtop's files."""
    file = folder / "mine.py"
    file.write_text(source)
    with pytest.raises(Invalid) as error:
        load_task(f"{file}:{function}")
    assert error.value.field == "task"
    message = error.value.message
    assert "\n" not in message
    for ours in ("taskfile", "engine/", "shapes.py"):
        assert ours not in message
    return message


def script(body: str) -> str:
    """A file with the start above and this body."""
    return START + dedent(body)


def line_of(source: str, words: str) -> str:
    """`line 12`, of the first line with these words."""
    return f"line {next(at for at, line in enumerate(source.splitlines(), 1) if words in line)}"


# --- files and functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "PATH.py:FUNCTION"),
        ("mine.py", "PATH.py:FUNCTION"),
        ("mine.py:", "PATH.py:FUNCTION"),
        ("mine.py:1a", "PATH.py:FUNCTION"),
        ("nowhere/mine.py:make_task", "there is no file nowhere/mine.py"),
        (".:make_task", "is a folder"),
    ],
)
def test_a_name_that_leads_nowhere(text: str, says: str) -> None:
    with pytest.raises(Invalid) as error:
        load_task(text)
    assert error.value.field == "task"
    assert says in error.value.message


FILES = {
    "syntax": ("def make_task(:\n    pass\n", ["mine.py, line 1: def make_task(:", "SyntaxError"]),
    "not text": ("x = '\0'\n", ["mine.py", "null bytes"]),
    "an import that fails": ("import os\nimport not_there_at_all\n", ["mine.py, line 2: import not_there_at_all", "No module"]),
    "raises while loading": ("a = 1\nb = a / 0\n", ["mine.py, line 2: b = a / 0", "ZeroDivisionError"]),
    "leaves while loading": ("import sys\nsys.exit(3)\n", ["line 2: sys.exit(3)", "SystemExit"]),
    "another name": ("def make_taks(): pass\n", ["no function make_task", "it has make_taks"]),
    "no name": ("x = 1\n", ["no function make_task", "it defines no functions"]),
    "no function": ("make_task = 4\n", ["make_task is a value of type int", "not a function"]),
    "arguments": ("def make_task(path, size=3): pass\n", ["without arguments", "path"]),
    "returns nothing": ("def make_task(): pass\n", ["make_task() returned None", "epochtop.Task"]),
    "returns another thing": ("def make_task(): return {}\n", ["returned a value of type dict", "epochtop.Task"]),
    "raises": ("def make_task():\n    return [][3]\n", ["line 2, in make_task: return [][3]", "IndexError"]),
    "raises in what it calls": (
        "import json\ndef read():\n    return json.loads('{')\ndef make_task():\n    return read()\n",
        ["line 3, in read: return json.loads('{')", "JSONDecodeError"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_gives_no_task(case: str, tmp_path: Path) -> None:
    source, says = FILES[case]
    message = refusal(tmp_path, source)
    for words in says:
        assert words in message


def test_an_error_in_a_neighboring_module_names_that_module(tmp_path: Path) -> None:
    (tmp_path / "beside_broken.py").write_text("def rows():\n    return 1 / 0\n")
    message = refusal(tmp_path, "import beside_broken\ndef make_task():\n    return beside_broken.rows()\n")
    assert message == "beside_broken.py, line 2, in rows: return 1 / 0: ZeroDivisionError: division by zero"


# --- what a task may hold ----------------------------------------------------------------------------------

TASKS = {
    "model": ("Task(model=Net, train=(X, Y))", ["Task.model must be a torch.nn.Module"]),
    "no training rows": ("Task(model=Net(), train=None)", ["Task.train must be a pair", "None"]),
    "three things": ("Task(model=Net(), train=(X, Y, Y))", ["Task.train must be a pair"]),
    "lists": ("Task(model=Net(), train=([1], [2]))", ["Task.train must be a pair"]),
    "lengths": ("Task(model=Net(), train=(X, Y[:7]))", ["Task.train has 20 rows and 7 labels"]),
    "test lengths": ("Task(model=Net(), train=(X, Y), test=(X[:3], Y[:2]))", ["Task.test has 3 rows and 2 labels"]),
    "empty": ("Task(model=Net(), train=(X[:0], Y[:0]))", ["Task.train has no rows"]),
    "loss": ("Task(model=Net(), train=(X, Y), loss='mse')", ["Task.loss must be a function", "a str"]),
    "metrics": ("Task(model=Net(), train=(X, Y), metrics=[len])", ["Task.metrics must be a dict"]),
    "metric": ("Task(model=Net(), train=(X, Y), metrics={'a': 3})", ["Task.metrics", "'a'"]),
    "classes": ("Task(model=Net(), train=(X, Y), classes='abc')", ["Task.classes must be a list"]),
    "a name that is none": ("Task(model=Net(), train=(X, Y), epochs=3)", ["epochs"]),
}


@pytest.mark.parametrize("case", TASKS)
def test_a_task_that_holds_something_else(case: str, tmp_path: Path) -> None:
    task_source, says = TASKS[case]
    source = script(f"def make_task():\n    return {task_source}\n")
    message = refusal(tmp_path, source)
    assert message.startswith(f"mine.py, {line_of(source, 'return Task')}, in make_task: return {task_source}: ")
    for words in says:
        assert words in message


# --- two rows are tried ------------------------------------------------------------------------------------

IN_FORWARD = "return self.fc(x)"
STEPS = {
    "features": ("X = torch.rand(20, 13)", IN_FORWARD, "the model expects 4 features, but the rows have 13"),
    "type": ("X = X.byte()", IN_FORWARD, "the rows are uint8, the weights float32; convert them with x.float()"),
    "device": (
        "Net = type('Net', (Net,), {'forward': lambda self, x: self.fc(x.to('meta'))})",
        "Net = type",
        "a tensor is on another device than the model (cpu)",
    ),
    "label out of range": ("Y[0] = 7", "", "the label of training row 0 is 7, but the model has 3 outputs"),
    "labels with a fraction": ("Y = Y.float()", "", "the labels are float32, but cross entropy takes whole numbers"),
    "labels in a column": ("Y = Y[:, None]", "", "the shape (2, 1), but cross entropy takes (2,); use y.squeeze(1)"),
}


@pytest.mark.parametrize("case", STEPS)
def test_rows_that_do_not_fit_the_model(case: str, tmp_path: Path) -> None:
    change, where, says = STEPS[case]
    source = script(f"{change}\n{GOOD}")
    message = refusal(tmp_path, source)
    assert says in message
    if where:
        assert message.startswith(f"mine.py, {line_of(source, where)}, in ")


LOSSES = {
    "a number of Python's": ("return nn.functional.cross_entropy(output, y).item()", "value of type float"),
    "one a row": (
        "return nn.functional.cross_entropy(output, y, reduction='none')",
        "the shape (2,); return one number",
    ),
    "detached": ("return nn.functional.cross_entropy(output.detach(), y)", "does not depend on the model's weights"),
    "raises": ("return output.nothing", "AttributeError"),
    "crosswise": (
        "return nn.functional.mse_loss(output[:, :1], y.float())",
        "(2,): the loss would compare every row with every other row",
    ),
}


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_that_cannot_be_trained(case: str, tmp_path: Path) -> None:
    body, says = LOSSES[case]
    source = script(
        f"def loss(output, y):\n    {body}\ndef make_task():\n    return Task(model=Net(), train=(X, Y), loss=loss)\n"
    )
    assert says in refusal(tmp_path, source)


def test_a_metric_that_reads_the_device(tmp_path: Path) -> None:
    task_source = (
        "Task(model=Net(), train=(X, Y), metrics={'hits': lambda output, y: (output.argmax(1) == y).sum().item()})"
    )
    message = refusal(tmp_path, script(f"def make_task():\n    return {task_source}\n"))
    assert "the metric 'hits' is a value of type int; return a tensor" in message
    assert "without .item()" in message


def test_a_weight_that_is_not_used(tmp_path: Path) -> None:
    task_source = "net = Net()\n    net.idle = nn.Linear(2, 2)\n    return Task(model=net, train=(X, Y))"
    file = tmp_path / "mine.py"
    file.write_text(script(f"def make_task():\n    {task_source}\n"))
    assert load_recorded(f"{file}:make_task").traits.unused == ("idle.weight", "idle.bias")


def test_weights_of_which_none_is_used(tmp_path: Path) -> None:
    body = """
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle, self.frozen = nn.Linear(4, 3), nn.Linear(4, 3).requires_grad_(False)
        def forward(self, x):
            return self.frozen(x.clone().requires_grad_())
    def make_task():
        return Task(model=Idle(), train=(X, Y))
    """
    assert "does not depend on any trained weight" in refusal(tmp_path, script(body))


def test_a_dataset_that_gives_no_pairs(tmp_path: Path) -> None:
    body = """
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 5
        def __getitem__(self, at):
            return X[at]
    def make_task():
        return Task(model=Net(), train=Rows())
    """
    assert "row 0 is a Tensor, but items of a Dataset must be pairs (x, y)" in refusal(tmp_path, script(body))


# --- loading -----------------------------------------------------------------------------------------------


def loaded(folder: Path, source: str) -> Task:
    file = folder / "mine.py"
    file.write_text(source)
    return load_task(f"{file}:make_task")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """Of the same length within the same second, as a cache of compiled modules would not notice."""
    (tmp_path / "beside_me.py").write_text("ROWS = 20\n")
    source = script(
        "import beside_me\ndef make_task():\n    return Task(model=Net(), train=(X[:beside_me.ROWS], Y[:beside_me.ROWS]))\n"
    )
    assert len(loaded(tmp_path, source).examples("train")) == 20  # type: ignore[arg-type]
    (tmp_path / "beside_me.py").write_text("ROWS = 12\n")
    assert len(loaded(tmp_path, source).examples("train")) == 12  # type: ignore[arg-type]
    assert len(loaded(tmp_path, source.replace("ROWS]", "ROWS-1]")).examples("train")) == 11  # type: ignore[arg-type]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "beside_me_too.py").write_text("")
    before = [*sys.path], sys.dont_write_bytecode
    loaded(tmp_path, script(f"import beside_me_too\n{GOOD}"))
    assert ([*sys.path], sys.dont_write_bytecode) == before
    assert sys.modules["beside_me_too"].__file__ == str(tmp_path / "beside_me_too.py")  # until another task is loaded
    (tmp_path / "other").mkdir()
    loaded(tmp_path / "other", script(GOOD))
    assert "beside_me_too" not in sys.modules
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py", "beside_me_too.py", "other"}


def test_the_trial_step_changes_no_weights_statistics_or_generators(tmp_path: Path) -> None:
    body = """
    def make_task():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
        return Task(model=net, train=(X, Y))
    """
    task = loaded(tmp_path, script(body))
    state = torch.get_rng_state()
    torch.manual_seed(1)
    expected = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert not task.model.training
    for name, value in expected.state_dict().items():
        assert torch.equal(task.model.state_dict()[name], value)
