"""Random numbers of a training step depend on the seed and the step only: not on evaluations, workers or interruptions."""

from __future__ import annotations

import random
import runpy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from epochtop.engine.device import generators
from epochtop.engine.job.evaluate import enqueue
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.events import LOSS_DIFFERS, Evaluated, Saved, Warned
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.training import checkpoint
from tests.support.engines import Engine, Watch, events, losses, train_here

TASKS = '''
import random, time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from epochtop import Task

DRAW = {
    "torch": lambda: float(torch.rand(())),
    "numpy": lambda: float(np.random.normal()),
    "python": lambda: random.gauss(0, 1),
    "file": lambda: float(FILE.random()),
}
FILE = np.random.default_rng(5)
FAST = Path(__file__).with_name("fast")
X = torch.rand(96, 4, generator=torch.Generator().manual_seed(0))


class Noisy(nn.Module):
    """Draws in forward, in evaluations too."""

    def __init__(self, sources=tuple(DRAW), pause_s=0.0):
        super().__init__()
        self.layer, self.sources, self.pause_s = nn.Linear(4, 4), sources, pause_s
        self.own = torch.Generator().manual_seed(3)
        self.steps = 0

    def forward(self, x):
        time.sleep(self.pause_s)
        self.steps += self.training
        noise = torch.randn(x.shape, generator=self.own) + torch.randn_like(x)
        return self.layer(x) + noise * sum(DRAW[source]() for source in self.sources)


class Augmented(Dataset):
    """Draws in every row."""

    def __init__(self, sources, rows=64):
        self.sources, self.rows = sources, rows

    def __len__(self):
        return self.rows

    def __getitem__(self, row):
        return X[row] + sum(DRAW[source]() for source in self.sources), X[row]


def noisy():
    return Task(model=Noisy(), train=Augmented(tuple(DRAW)), test=Augmented(tuple(DRAW), 32), loss=nn.functional.mse_loss)


def slow():
    model = Noisy(("torch",), 0.002)
    return Task(model=model, train=(X[:64], X[:64]), test=(X[64:], X[64:]), loss=nn.functional.mse_loss)


class Plain(nn.Sequential):
    """Until the file `fast` exists, its steps are slow, and number 41 takes until then."""

    def __init__(self):
        super().__init__(nn.Linear(4, 4))
        self.taken = 0

    def forward(self, x):
        self.taken += self.training
        while self.training and not FAST.exists():
            time.sleep(0.007 * (1 + self.taken % 3))
            if self.taken <= 40:
                break
        return super().forward(x)


class Counting(Plain):
    """Its loss depends on the number of steps, a Python number, and on a generator of its own."""

    def __init__(self):
        super().__init__()
        self.steps, self.own = 0, np.random.default_rng(1)

    def forward(self, x):
        self.steps += self.training
        return super().forward(x) * (1 + min(1, self.steps / 1000) + self.training * self.own.random() / 2)


class CountingTask(Task):
    def state_dict(self):
        return {"steps": self.model.steps, "own": self.model.own.bit_generator.state}

    def load_state_dict(self, state):
        self.model.steps, self.model.own.bit_generator.state = state["steps"], state["own"]


def drawn(source):
    return Task(model=Plain(), train=Augmented((source,)), test=(X[64:], X[64:]), loss=nn.functional.mse_loss)


def by_torch():
    return drawn("torch")


def by_numpy():
    return drawn("numpy")


def by_python():
    return drawn("python")


def counting():
    return CountingTask(model=Counting(), train=(X[:64], X[:64]), test=(X[64:], X[64:]), loss=nn.functional.mse_loss)
'''

COMMON = {
    "device": "cpu",
    "threads": 1,
    "refresh_ms": 10,
    "batch_size": 16,
    "seed": 7,
    "executor": "eager",
    "learning_rate": 0.01,
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A file of tasks that draw random numbers."""
    file = tmp_path / "drawing.py"
    file.write_text(TASKS, encoding="utf-8")
    return file


def spec_of(tasks: Path, function: str, **fields: object) -> RunSpec:
    """A run of one of the tasks."""
    return RunSpec(task=f"{tasks}:{function}", **(COMMON | fields))  # type: ignore[arg-type]


# --- evaluations -------------------------------------------------------------------------------------------


def plain_losses(tasks: Path, epochs: int) -> npt.NDArray[np.float32]:
    """The losses of `noisy` in a plain loop that never evaluates."""

    def seed() -> None:
        torch.manual_seed(7)
        np.random.seed(7)
        random.seed(7)

    seed()
    names = runpy.run_path(str(tasks))
    model, dataset = names["Noisy"](), names["Augmented"](tuple(names["DRAW"]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    order, values = torch.Generator().manual_seed(7), []
    seed()
    for _ in range(epochs):
        for rows in torch.randperm(64, generator=order).split(16):
            x, y = map(torch.stack, zip(*(dataset[int(row)] for row in rows), strict=True))
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize("when", [{"eval_every": 0.001}, {"eval_every": 0.0}, {"eval_epochs": 1}, {"eval_epochs": 3}])
def test_losses_are_those_of_a_plain_loop_whenever_a_run_evaluates(
    when: dict[str, object], tasks: Path, home: Path
) -> None:
    run = train_here(spec_of(tasks, "noisy", epochs=10, **when), home)
    np.testing.assert_array_equal(losses(run), plain_losses(tasks, 10))


def test_an_evaluation_leaves_every_generator_as_it_was(tasks: Path) -> None:
    job = prepare_job(spec_of(tasks, "noisy", epochs=1))
    before = generators.states(job.device), job.model.own.get_state()  # type: ignore[operator,union-attr]
    first = enqueue(job)[0]
    after = generators.states(job.device), job.model.own.get_state()  # type: ignore[operator,union-attr]
    assert before[0].keys() == after[0].keys() == {"rng.cpu", "rng.numpy", "rng.python"}
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert torch.equal(before[1], after[1])
    assert torch.equal(enqueue(job)[0], first)


def test_preparing_a_job_changes_no_counter_of_the_model(tasks: Path) -> None:
    """A plain loop tries no rows before its first step."""
    job = prepare_job(spec_of(tasks, "noisy", epochs=1))
    assert job.model.steps == 0
    job.step()
    assert job.model.steps == 1


SHARDED = pytest.param(True, marks=pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.7 or later"))


@pytest.mark.parametrize("shard", [False, SHARDED])
def test_evaluations_change_no_loss_of_several_processes(shard: bool, tasks: Path, home: Path) -> None:
    runs = []
    for when in ({"eval_every": 0.001}, {"eval_every": 0.0}):
        with Engine() as engine:
            runs.append(engine.train(spec_of(tasks, "slow", epochs=10, processes=2, shard=shard, **when), home))
            assert engine.wait() == 0
    counts = [sum(isinstance(event, Evaluated) for event in events(run)) for run in runs]
    assert counts[0] > counts[1] == 1
    np.testing.assert_array_equal(losses(runs[0]), losses(runs[1]))


# --- states ------------------------------------------------------------------------------------------------


def draws() -> list[float]:
    """Numbers from every generator; one normal number is left over in numpy and Python each time."""
    return [random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(), float(torch.rand(()))]


def test_restored_generators_repeat_their_numbers() -> None:
    with generators.forked(torch.device("cpu")):
        for _ in range(3):
            draws()
            state = generators.states(torch.device("cpu"))
            expected = [draws() for _ in range(400)]
            generators.restore(state, torch.device("cpu"))
            assert [draws() for _ in range(400)] == expected


def test_a_checkpoint_of_an_older_version_restores_the_generators_that_it_has() -> None:
    with generators.forked(torch.device("cpu")):
        state = generators.states(torch.device("cpu"))
        expected = float(torch.rand(()))
        generators.restore({"rng.cpu": state["rng.cpu"]}, torch.device("cpu"))
        assert float(torch.rand(())) == expected


def test_seeding_is_that_of_each_library() -> None:
    with generators.forked(torch.device("cpu")):
        generators.seed(11)
        drawn = float(torch.rand(())), np.random.rand(), random.random()
    expected = float(torch.rand((), generator=torch.Generator().manual_seed(11)))
    assert drawn == (expected, np.random.RandomState(11).rand(), random.Random(11).random())


# --- runs that are killed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "workers"),
    [("by_torch", 0), ("by_numpy", 0), ("by_python", 0), ("counting", 0), ("by_numpy", 2), ("by_python", 1)],
)
def test_a_killed_run_repeats_its_random_numbers(function: str, workers: int, tasks: Path, home: Path) -> None:
    spec = spec_of(tasks, function, epochs=15, workers=workers, save_every=0.05, eval_every=0.05)
    with Engine() as engine:
        run = engine.train(spec, home)
        Watch(run).until(Saved, lambda event: event.step % 4 != 0)
        engine.kill()
    assert 0 < checkpoint.read_info(run, "last").step < 4 * spec.epochs
    tasks.with_name("fast").touch()
    straight = train_here(spec, home)
    with Engine() as engine:
        assert isinstance(engine.resume(run), Accepted)
        assert engine.wait() == 0
    np.testing.assert_array_equal(losses(run), losses(straight))
    assert not [event for event in events(run) if isinstance(event, Warned) and event.code == LOSS_DIFFERS]
    (_, weights), (_, expected) = checkpoint.read(run, "last"), checkpoint.read(straight, "last")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
