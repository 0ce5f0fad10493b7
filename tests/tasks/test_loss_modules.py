"""A loss that is a module is treated like the model: trained, averaged, saved, resumed, and moved to the device."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam

from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.training import checkpoint
from tests.support.engines import finished, losses, train_here
from tests.tasks.task_files import plain_task, task_file, task_spec

ARC = """
class Arc(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)))
        self.log_scale = nn.Parameter(torch.zeros(()))
    def forward(self, f, y):
        return F.cross_entropy(self.log_scale.exp() * F.normalize(f) @ F.normalize(self.w).T, y)

def make_task():
    return Task(model=nn.Linear(4, 8), train=(X, Y), test=(X[:20], Y[:20]), loss=Arc())
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weights_of_a_loss_are_trained_as_in_a_plain_loop(optimizer: str, home: Path, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, ARC), optimizer=optimizer)
    run = train_here(spec, home)
    expected, task = plain_task(spec, partial(SGD if optimizer == "sgd" else Adam, lr=0.1))
    np.testing.assert_array_equal(losses(run), expected)
    tensors = checkpoint.read(run, "last")[1]
    for name, weight in task.loss.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(tensors[f"loss.{name}"], weight), name
    with torch.no_grad():
        x, y = task.test  # type: ignore[misc]
        assert finished(run).test_loss == pytest.approx(task.loss(task.model(x), y).item(), rel=1e-6)


def test_a_method_of_a_module_and_arguments_count_as_the_module(home: Path, tmp_path: Path) -> None:
    body = ARC.replace("loss=Arc()", "loss=partial(Arc().forward)").replace(
        "class Arc", "from functools import partial\nclass Arc"
    )
    run = train_here(task_spec(task_file(tmp_path, body)), home)
    (tmp_path / "module").mkdir()
    expected, _ = plain_task(task_spec(task_file(tmp_path / "module", ARC)), partial(SGD, lr=0.1))
    np.testing.assert_array_equal(losses(run), expected)


def test_a_restored_job_continues_with_the_weights_of_the_loss(home: Path, tmp_path: Path) -> None:
    from epochtop.engine.job import state

    spec = task_spec(task_file(tmp_path, ARC), optimizer="adam", ema=0.9)
    straight, interrupted, continued = prepare_job(spec), prepare_job(spec), prepare_job(spec)
    expected = [straight.step().item() for _ in range(12)]
    for _ in range(7):
        interrupted.step()
    tensors, values = state.capture(interrupted)
    state.restore(continued, tensors, values, 7)
    assert [continued.step().item() for _ in range(5)] == expected[7:]
    assert {"loss.w", "loss_average.w", "optimizer.exp_avg.loss:w"} <= tensors.keys()


def test_the_moving_average_includes_the_loss(home: Path, tmp_path: Path) -> None:
    spec = task_spec(task_file(tmp_path, ARC), ema=0.5, epochs=2)
    run = train_here(spec, home)
    averages: dict[str, torch.Tensor] = {}

    def average(task: object, *_: object) -> None:
        tensors = {f"model.{name}": weight for name, weight in task.model.state_dict().items()}  # type: ignore[attr-defined]
        tensors |= {f"loss.{name}": weight for name, weight in task.loss.state_dict().items()}  # type: ignore[attr-defined]
        for name, weight in tensors.items():
            averages[name] = averages[name].lerp(weight, 0.5) if name in averages else weight.clone()

    def averaging(task: object) -> None:
        average(task)
        averaging.task = task  # type: ignore[attr-defined]

    class AveragedSGD(SGD):
        def step(self, *arguments: object) -> None:  # type: ignore[override]
            super().step()
            average(averaging.task)  # type: ignore[attr-defined]

    _, task = plain_task(spec, partial(AveragedSGD, lr=0.1), hook=averaging)
    x, y = task.test  # type: ignore[misc]
    task.model.load_state_dict({name[6:]: value for name, value in averages.items() if name.startswith("model.")})
    task.loss.load_state_dict({name[5:]: value for name, value in averages.items() if name.startswith("loss.")})  # type: ignore[attr-defined]
    with torch.no_grad():
        assert finished(run).test_loss == pytest.approx(task.loss(task.model(x), y).item(), rel=1e-5)


def test_weights_and_class_weights_of_a_loss_are_moved_to_the_device(tmp_path: Path) -> None:
    """On the meta device, which every machine has."""
    from epochtop.engine.job.workload import load_workload

    for loss in ("Arc()", "nn.CrossEntropyLoss(weight=torch.arange(1.0, 9.0))"):
        spec = task_spec(task_file(tmp_path, ARC.replace("loss=Arc()", f"loss={loss}")))
        workload = load_workload(spec)
        criterion = workload.criterion(spec, torch.device("meta"))
        tensors = [*criterion.parameters(), *criterion.buffers()]  # type: ignore[attr-defined]
        assert tensors
        assert {str(tensor.device) for tensor in tensors} == {"meta"}


def test_two_processes_train_the_loss_like_one(home: Path, tmp_path: Path) -> None:
    from tests.support.engines import Engine

    task = task_file(tmp_path, ARC)
    with Engine() as engine:
        run = engine.train(task_spec(task, processes=2, batch_size=8), home)
        assert engine.wait() == 0
    alone = train_here(task_spec(task, batch_size=16), home)
    np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-5)
    tensors, expected = (checkpoint.read(path, "last")[1] for path in (run, alone))
    torch.testing.assert_close(tensors["loss.w"], expected["loss.w"], rtol=1e-4, atol=1e-5)


def test_weights_of_a_loss_cannot_be_sharded(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="loss cannot be sharded") as error:
        prepare_job(task_spec(task_file(tmp_path, ARC), processes=2, shard=True))
    assert error.value.field == "shard"


HOLDERS = {
    "object": "Holder(arc)",
    "method": "Holder(arc).loss",
    "argument": "partial(apply, module=arc)",
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_module_that_a_loss_holds_is_trained(holder: str, home: Path, tmp_path: Path) -> None:
    body = ARC.replace(
        "def make_task():",
        """
from functools import partial

class Holder:
    def __init__(self, module):
        self.modules = [module]
    def __call__(self, f, y):
        return self.modules[0](f, y)
    loss = __call__

def apply(f, y, module):
    return module(f, y)

def make_task():
    arc = Arc()""",
    ).replace("loss=Arc()", f"loss={HOLDERS[holder]}")
    run = train_here(task_spec(task_file(tmp_path, body)), home)
    (tmp_path / "module").mkdir()
    expected, task = plain_task(task_spec(task_file(tmp_path / "module", ARC)), partial(SGD, lr=0.1))
    np.testing.assert_array_equal(losses(run), expected)
    assert torch.equal(checkpoint.read(run, "last")[1]["loss.w"], task.loss.w)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "loss",
    ["lambda f, y: ARC(f, y)", "lambda f, y: F.cross_entropy(f[:, :3] * SCALE, y)"],
    ids=["a module", "a parameter"],
)
def test_weights_that_would_not_be_trained_are_refused(loss: str, tmp_path: Path) -> None:
    body = ARC.replace("def make_task", "ARC, SCALE = Arc(), nn.Parameter(torch.ones(3))\n\ndef make_task")
    task = task_spec(task_file(tmp_path, body.replace("loss=Arc()", f"loss={loss}")))
    with pytest.raises(
        Invalid, match=r"task_file.py, line .*would not be trained; make it an attribute of an nn.Module"
    ):
        prepare_job(task)


def test_layers_in_a_list_are_refused_unless_they_are_frozen(tmp_path: Path) -> None:
    body = """
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.out = [nn.Linear(4, 8)], nn.Linear(8, 3)
        def forward(self, x):
            return self.out(self.layers[0](x))

    def make_task():
        return Task(model=Net(), train=(X, Y))
    """
    with pytest.raises(
        Invalid, match=r"a parameter of the shape \(8, 4\) belongs neither to the model nor to the loss"
    ):
        prepare_job(task_spec(task_file(tmp_path, body)))
    prepare_job(
        task_spec(task_file(tmp_path, body.replace("nn.Linear(4, 8)]", "nn.Linear(4, 8).requires_grad_(False)]")))
    )
