"""Models with extra state, DataParallel, scripted or complex weights go all the way: average, checkpoint, resume, exports."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from epochtop.engine.inference import trained_model
from epochtop.engine.job import state
from epochtop.engine.job.evaluate import evaluating
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.process import commands
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks import extra_state
from epochtop.engine.tasks.loader import load_task
from epochtop.engine.training import checkpoint
from tests.support.engines import train_here
from tests.tasks.task_files import task_file, task_spec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of packages that the readers import
    import onnx
    from onnx.reference import ReferenceEvaluator

EXTRA = """
import numpy as np

class Counted(nn.Linear):
    calls = 0
    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (1 + self.calls / 10)
    def get_extra_state(self):
        return {"calls": self.calls, "scale": torch.ones(2), "table": np.arange(3), "raw": b"\\x00abc", "pairs": [(1, None)]}
    def set_extra_state(self, state):
        assert torch.equal(state["scale"], torch.ones(2)) and state["table"].tolist() == [0, 1, 2]
        assert state["raw"] == b"\\x00abc" and state["pairs"] == [(1, None)]
        self.calls = state["calls"]

def make_task():
    return Task(model=nn.Sequential(Counted(4, 5), Counted(5, 3)), train=(X, Y), test=(X[:20], Y[:20]))
"""
NETS = {
    "data parallel": "nn.DataParallel(nn.Linear(4, 3))",
    "scripted": "torch.jit.script(nn.Sequential(nn.Linear(4, 3)))",
    "complex only": "Complex()",
    "tied": "Tied()",
}
UNUSUAL = """
class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64, generator=g))
    def forward(self, x):
        return (x.cfloat() @ self.weight).abs()

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.b.weight = self.a.weight
    def forward(self, x):
        return self.out(self.b(torch.tanh(self.a(x))))

def make_task():
    return Task(model={net}, train=(X, Y), test=(X[:20], Y[:20]))
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def exported(run: Path, form: str, output: str) -> Path:
    assert commands.main(["export", str(run), "--format", form, "--output", output]) == 0
    return Path(output)


# --- extra state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_extra_state_is_resumed(ema: float, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, EXTRA), ema=ema)
    straight, interrupted, continued = prepare_job(spec), prepare_job(spec), prepare_job(spec)
    expected = [straight.step().item() for _ in range(9)]
    for _ in range(4):
        interrupted.step()
    tensors, values = state.capture(interrupted)
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    state.restore(continued, tensors, values, 4)
    assert [continued.step().item() for _ in range(5)] == expected[4:]


def test_only_the_extra_state_is_restored_with_the_progress(tmp_path: Path) -> None:
    """As by ranks whose weights are sharded: rank 0 sends them only what does not grow with the model."""
    job = prepare_job(task_spec(task_file(tmp_path, EXTRA)))
    initial = {name: tensor.clone() for name, tensor in extra_state.weights_of(job.model).items()}
    other = prepare_job(job.spec)
    for _ in range(3):
        other.step()
    tensors, values = state.capture(other)
    sent = {name: tensor for name, tensor in tensors.items() if state.is_progress(name)}
    state.restore_progress(job, sent, values)
    assert [part.calls for part in job.model] == [3, 3]  # type: ignore[union-attr]
    for name, tensor in extra_state.weights_of(job.model).items():
        assert torch.equal(tensor, initial[name])


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_extra_state_comes_with_the_best_weights(ema: float, home: Path, tmp_path: Path) -> None:
    run = train_here(task_spec(task_file(tmp_path, EXTRA), ema=ema, eval_epochs=1), home)
    info, tensors = checkpoint.read(run, "best")
    calls = {name: value["calls"] for name, value in extra_state.decode(tensors).items()}
    assert calls == dict.fromkeys(("0._extra_state", "1._extra_state"), info.step)
    x, trained = torch.randn(7, 4), trained_model.load(run)
    first, second = (tensors[f"model.{n}.weight"] * (1 + info.step / 10) for n in (0, 1))
    biases = [tensors[f"model.{n}.bias"] * (1 + info.step / 10) for n in (0, 1)]
    torch.testing.assert_close(trained.model(x), (x @ first.T + biases[0]) @ second.T + biases[1])


def test_exports_have_the_extra_state(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = EXTRA.replace(' "table": np.arange(3),', "").replace(' and state["table"].tolist() == [0, 1, 2]', "")
    run = train_here(task_spec(task_file(tmp_path, source)), home)
    loaded = torch.load(exported(run, "torch", "run.pt"), weights_only=True)
    model = load_task(f"{tmp_path}/task_file.py:make_task").model
    model.load_state_dict(loaded)
    expected = trained_model.load(run).model.eval()
    x = torch.randn(5, 4)
    torch.testing.assert_close(model.eval()(x), expected(x))
    capsys.readouterr()
    exported(run, "safetensors", "run.safetensors")
    assert "it has no 0._extra_state, 1._extra_state, because safetensors holds tensors only" in capsys.readouterr().out
    network = ReferenceEvaluator(exported(run, "onnx", "run.onnx").read_bytes())
    (actual,) = network.run(None, {"input": x.numpy()})
    np.testing.assert_allclose(actual, expected(x).detach(), rtol=1e-4, atol=1e-5)


def test_extra_state_that_a_checkpoint_cannot_hold_is_refused(tmp_path: Path) -> None:
    source = EXTRA.replace("self.calls, ", "object(), ")
    with pytest.raises(Invalid) as error:
        load_task(task_file(tmp_path, source))
    assert re.match(r"task_file\.py, line \d+, in get_extra_state: ", error.value.message)
    assert "get_extra_state() of layer '0'['calls'] is a value of type object; return tensors" in error.value.message


# --- averages ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("net", NETS)
def test_the_average_of_an_unusual_model_is_evaluated(net: str, home: Path, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, UNUSUAL.replace("{net}", NETS[net])), ema=0.8)
    job = prepare_job(spec)
    weights = {name: weight.detach().clone() for name, weight in job.model.named_parameters()}
    for _ in range(6):
        job.step()
        for name, weight in job.model.named_parameters():
            weights[name] = 0.8 * weights[name] + 0.2 * weight.detach()
    model = copy.deepcopy(job.model)
    for name, weight in model.named_parameters():
        weight.data.copy_(weights[name])
    x, y = job.workload.task.test  # type: ignore[union-attr, misc]
    before = {name: tensor.clone() for name, tensor in job.model.state_dict().items()}
    with evaluating(job):
        loss = job.evaluator.evaluate(job.model, job.eval_batches)[0]
    expected = functional.cross_entropy(model.eval()(x), y).item()
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    for name, tensor in job.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    run = train_here(spec, home)
    assert checkpoint.exists(run, "best")
    assert trained_model.load(run).model(x).shape == (20, 3)


def test_a_model_in_data_parallel_is_exported_as_the_module_inside(home: Path, tmp_path: Path) -> None:
    run = train_here(task_spec(task_file(tmp_path, UNUSUAL.replace("{net}", NETS["data parallel"]))), home)
    network = ReferenceEvaluator(exported(run, "onnx", "run.onnx").read_bytes())
    x, tensors = torch.randn(5, 4), checkpoint.read(run, "best")[1]
    (actual,) = network.run(None, {"input": x.numpy()})
    expected = x @ tensors["model.module.weight"].T + tensors["model.module.bias"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_onnx_refuses_a_scripted_model(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train_here(task_spec(task_file(tmp_path, UNUSUAL.replace("{net}", NETS["scripted"]))), home)
    assert commands.main(["export", str(run), "--format", "onnx"]) == 2
    assert (
        "torch cannot translate a scripted model to ONNX; train it without torch.jit.script" in capsys.readouterr().err
    )


# --- nested batches in ONNX --------------------------------------------------------------------------------

NESTED = """
from dataclasses import dataclass
from typing import Any, NamedTuple
from torch.utils.data import Dataset

class Named(NamedTuple):
    f: Any
    w: Any

@dataclass
class Box:
    f: Any
    w: Any

class Rows(Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, at):
        return ROW(X[at], X[at, 0].abs()), Y[at]

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
    def forward(self, batch):
        f, w = READ(batch)
        return self.fc(f) * w[:, None]

def make_task():
    return Task(model=Net(), train=Rows(), test=Rows())
"""
ROWS = {
    "dict": ("lambda f, w: {'f': f, 'w': w, 'name': 'row'}", "lambda b: (b['f'], b['w'])", ("f", "w")),
    "nested": ("lambda f, w: {'a': {'f': f}, 'b': [w]}", "lambda b: (b['a']['f'], b['b'][0])", ("a_f", "b_0")),
    "namedtuple": ("Named", "lambda b: b", ("f", "w")),
    "dataclass": ("Box", "lambda b: (b.f, b.w)", ("f", "w")),
    "tuple": ("lambda f, w: (f, w)", "lambda b: b", ("input_0", "input_1")),
}


@pytest.mark.parametrize("kind", ROWS)
def test_onnx_takes_the_tensors_of_a_nested_batch_by_name(kind: str, home: Path, tmp_path: Path) -> None:
    row, read, names = ROWS[kind]
    source = NESTED.replace("class Rows", f"ROW, READ = {row}, {read}\n\nclass Rows")
    run = train_here(task_spec(task_file(tmp_path, source)), home)
    path = exported(run, "onnx", "run.onnx")
    assert [value.name for value in onnx.load(path).graph.input] == [*names]
    tensors = checkpoint.read(run, "best")[1]
    f, w = torch.randn(5, 4), torch.rand(5)
    (actual,) = ReferenceEvaluator(path.read_bytes()).run(None, dict(zip(names, (f.numpy(), w.numpy()), strict=True)))
    expected = nn.functional.linear(f, tensors["model.fc.weight"], tensors["model.fc.bias"]) * w[:, None]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_lazy_model_begins_with_the_statistics_of_no_row(tmp_path: Path) -> None:
    source = """
    def make_task():
        return Task(model=nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(3)), train=(X, Y))
    """
    model = prepare_job(task_spec(task_file(tmp_path, source))).model
    assert model[0].weight.shape == (8, 4)  # type: ignore[index]
    for name, initial in (("running_mean", torch.zeros(8)), ("running_var", torch.ones(8))):
        assert torch.equal(model[1].get_buffer(name), initial)  # type: ignore[index, union-attr, operator]
