"""Weights sharded over two processes (FSDP) train as unsharded ones, need half the memory, and are complete in checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from epochtop.engine.distributed import fsdp, fsdp_optim
from epochtop.engine.job.plan import describe
from epochtop.engine.job.workload import load_workload
from epochtop.engine.models.fsdp_units import units
from epochtop.engine.process import commands
from epochtop.engine.protocol.events import Continued, Failed, Mapped, Saved, Started, Warned
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.reader import BadLine
from epochtop.engine.training import checkpoint
from tests.architecture.test_no_reads import FORBIDDEN, calls
from tests.support import sharded
from tests.support.engines import Engine, Watch, events, finished, losses, rank_of
from tests.support.sharded import (
    CASES,
    CHANNELS_LAST,
    CROSS,
    DDP,
    FSDP,
    RESUMED,
    STEPS,
    THEN,
    job_of,
    spec_of,
    take,
)
from tests.support.trained_runs import FLOWERS, floats, flowers, read_table, write_table

pytestmark = [
    pytest.mark.xdist_group("fsdp"),  # two fixtures that train for half a minute, once instead of per worker
    pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.7 or later"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- the same steps ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files written by two ranks for every case."""
    folder = tmp_path_factory.mktemp("pair")
    sharded.train_all(2, "cpu", folder)
    return folder


def left(pair: Path, name: str) -> dict[str, Tensor]:
    """Weights, optimizer state, losses and figures of rank 0 at the end."""
    return load_file(pair / f"{name}.safetensors")


ROUNDED = {"clipping": 1e-7, "everything": 1e-7, "odd, clipped": 1e-7, "fp16": 1e-7}
"""Cases with another order of additions: the norm is summed rank by rank."""

SAME_STEPS = {CHANNELS_LAST: "cnn sgd"}
"""Cases with the steps of another case. FSDP gathers weights row by row, and images of one channel have one layout."""


@pytest.mark.parametrize("case", CASES)
def test_sharded_weights_take_the_steps_of_unsharded_ones(case: str, pair: Path) -> None:
    """Bit for bit: updates are elementwise, and the sum of two gradients has one order."""
    actual, expected = left(pair, f"{case} {FSDP}"), left(pair, f"{SAME_STEPS.get(case, case)} {DDP}")
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].shape == tensor.shape, name
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=ROUNDED.get(case, 0), msg=name)
    assert len(actual["losses"]) == STEPS + 1


def test_sharded_weights_without_channels_last_differ_by_rounding(pair: Path) -> None:
    """A convolution adds its products in an order that depends on the layout of its weights and on the CPU.

    A gradient is a sum over 20 rows of 8 × 8 pixels. Its rounding errors, at most half a unit in the last place for each
    addition, grow like a random walk: with the square root of the number of additions.
    """
    additions = sharded.COMMON["batch_size"] * 8 * 8
    tolerance = additions**0.5 * torch.finfo(torch.float32).eps / 2
    sharded_state, state = left(pair, f"{CHANNELS_LAST} {FSDP}"), left(pair, f"{CHANNELS_LAST} {DDP}")
    for name in (name for name in state if name.startswith("model.") or name == "losses"):
        largest = float(state[name].abs().max())
        torch.testing.assert_close(sharded_state[name], state[name], rtol=0, atol=tolerance * largest, msg=name)


@pytest.mark.parametrize("case", [*CROSS, "nesterov", "rmsprop", "adagrad", "accumulation", "clipping", "average"])
def test_two_sharded_processes_take_the_steps_of_one_with_the_double_batch(case: str, pair: Path) -> None:
    """Up to rounding: a mean over 40 rows is summed in another order than two means over 20."""
    job = job_of(spec_of(case, pair, batch_size=2 * sharded.COMMON["batch_size"]))
    values = take(job, 0, STEPS + 1)
    actual = left(pair, f"{case} {FSDP}")
    torch.testing.assert_close(actual["losses"], values, rtol=2e-5, atol=1e-6)
    for name, tensor in job.model.state_dict().items():
        if not name.endswith("queries_keys_values.bias"):  # that of the keys has no gradient but rounding
            torch.testing.assert_close(actual[f"model.{name}"], tensor, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize(("first", "then"), [(first, then) for first in THEN for then in THEN[first]])
@pytest.mark.parametrize("case", RESUMED)
def test_a_checkpoint_of_either_layout_continues_in_either(case: str, first: str, then: str, pair: Path) -> None:
    actual, expected = left(pair, f"{case} {first} then {then}"), left(pair, f"{case} {first}")
    tolerance = ROUNDED.get(case, 0) if first != then else 0
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_no_operator_of_a_sharded_step_an_evaluation_or_a_checkpoint_reads(case: str, pair: Path) -> None:
    for rank in range(2):
        usage = json.loads((pair / f"{case} {FSDP}.{rank}.json").read_text())
        assert usage["reads"] == {}
        assert usage["operators"] > 50


# --- memory of a rank -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "moments"), [("mlp adam", 2), ("cnn momentum", 1), ("transformer adamw", 2)])
def test_every_rank_has_half_of_weights_and_optimizer_state(case: str, moments: int, pair: Path) -> None:
    usage = [json.loads((pair / f"{case} {FSDP}.{rank}.json").read_text()) for rank in range(2)]
    sizes = {
        key.removeprefix("model."): len(t.flatten())
        for key, t in left(pair, f"{case} {FSDP}").items()
        if key.startswith("model.")
    }
    job = job_of(spec_of(case, pair))
    trained = [name for name, _ in job.model.named_parameters()]
    for name in trained:
        assert usage[0]["weights"][name] + usage[1]["weights"][name] == sizes[name], name
    total = sum(sizes[name] for name in trained)
    for rank in usage:
        elements = sum(rank["weights"][name] for name in trained)
        assert 0.4 * total < elements < 0.6 * total
        assert rank["memory"] == moments * elements


def names_of(model: nn.Module, parts: list[nn.Module]) -> list[str]:
    names = {module: name for name, module in model.named_modules()}
    return [names[part] for part in parts]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("mlp adam", ["0", "2", "4"]),
        ("cnn adam", ["blocks.0.0", "blocks.1.0", "blocks.2.0", "hidden.0", "head"]),
        ("transformer adam", ["embedding", "blocks.0", "blocks.1", "norm", "head"]),
        ("batch norm", ["stem.0", "stem.1", "blocks.0", "blocks.1", "blocks.2", "head"]),
    ],
)
def test_a_unit_is_a_layer_or_a_block(
    case: str, expected: list[str], pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epochtop.engine.models.fsdp_units.UNDIVIDED_WEIGHTS", 0)
    model = job_of(spec_of(case, pair)).model
    assert names_of(model, units(model)) == expected


def test_a_module_whose_weights_are_used_elsewhere_is_not_a_unit(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epochtop.engine.models.fsdp_units.UNDIVIDED_WEIGHTS", 0)
    job = job_of(spec_of("odd", pair))
    assert job.workload.task is not None
    assert names_of(job.model, units(job.model, job.workload.task.batch(2)[0])) == ["first"]


class Deep(nn.Module):
    """Blocks inside a module that is not a container, as in most public models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 2, 4 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(x).mean(1))
        return out


def test_blocks_are_found_inside_other_modules() -> None:
    model = Deep(width=256)
    actual = names_of(model, units(model, torch.randn(2, 3, 256)))
    assert actual == ["encoder.layers.0", "encoder.layers.1", "encoder.layers.2"]  # the head is too small


def test_a_small_model_is_one_unit() -> None:
    model = Deep(width=8)
    assert units(model, torch.randn(2, 3, 8)) == []


# --- a run ---------------------------------------------------------------------------------------------------


class Trained(NamedTuple):
    """An uninterrupted sharded run, its table and its spec."""

    run: Path
    table: Path
    spec: RunSpec


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run with two features, so that there is a decision boundary; validation and test rows; an evaluated average."""
    folder = tmp_path_factory.mktemp("straight")
    rows = read_table(flowers(folder / "all.csv").read_text())
    table = write_table(
        folder / "f.csv", (*FLOWERS[2:], "species"), [[*(r[n] for n in FLOWERS[2:]), r["species"]] for r in rows]
    )
    spec = RunSpec(
        device="cpu",
        threads=1,
        refresh_ms=20,
        eval_every=0.2,
        save_every=0.2,
        seed=3,  # type: ignore[arg-type]
        dataset=f"csv:{table}",
        target="species",
        hidden=(15,),
        optimizer="adamw",
        learning_rate=0.02,
        batch_size=20,
        epochs=100,
        dropout=0.1,  # every rank draws its own
        ema=0.9,
        clip_norm=1.0,
        validation_fraction=0.2,
        keep_epochs=50,
        processes=2,
        shard=True,
    )
    with Engine() as engine:
        run = engine.train(spec, folder / "runs")
        assert engine.wait() == 0, (events(run)[-1], (run / "output.log").read_text())
    return Trained(run, table, spec)


def test_a_sharded_run_notes_it_evaluates_and_saves(straight: Trained) -> None:
    seen = events(straight.run)
    started = next(event for event in seen if isinstance(event, Started))
    assert started.processes == 2
    assert any("sharded over 2 processes" in note for note in started.notes)
    assert any(isinstance(event, Mapped) for event in seen)
    assert not [event for event in seen if isinstance(event, Warned | BadLine)]
    assert (straight.run / "output.log").read_text() == ""
    end = finished(straight.run)
    assert end.outcome == "finished"
    assert end.test_metric is not None
    assert end.test_metric > 0.8
    assert {"last", "best", "epoch-50", "epoch-100"} <= {event.kind for event in seen if isinstance(event, Saved)}


def test_predictions_and_exports_of_a_sharded_run_are_those_of_its_weights(
    straight: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    info, best = checkpoint.read(straight.run, "best")
    actual = {name.removeprefix("model."): tensor for name, tensor in best.items()}
    exported = tmp_path / "weights.pt"
    assert commands.main(["export", str(straight.run), "--format", "torch", "--output", str(exported)]) == 0
    weights = torch.load(exported, weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {
        "0.weight": (15, 2),
        "0.bias": (15,),
        "3.weight": (3, 15),
        "3.bias": (3,),
    }
    assert all(torch.equal(weights[name], actual[name]) for name in actual)
    capsys.readouterr()
    assert commands.main(["predict", str(straight.run), str(straight.table)]) == 0
    rows = read_table(capsys.readouterr().out)
    workload = load_workload(straight.spec)
    assert workload.preparation is not None
    x = floats(rows, *FLOWERS[2:]) * workload.preparation.factor + workload.preparation.offset
    hidden = functional.relu(torch.from_numpy(x.astype(np.float32)) @ actual["0.weight"].T + actual["0.bias"])
    logits = hidden @ actual["3.weight"].T + actual["3.bias"]
    assert [row["prediction"] for row in rows] == [workload.classes[at] for at in logits.argmax(1)]
    assert info.values["test_loss"] == pytest.approx(finished(straight.run).best_test_loss)
    x, y = torch.from_numpy(workload.validation.x), torch.from_numpy(workload.validation.y)  # type: ignore[union-attr]
    logits = functional.relu(x @ actual["0.weight"].T + actual["0.bias"]) @ actual["3.weight"].T + actual["3.bias"]
    assert float(functional.cross_entropy(logits, y)) == pytest.approx(finished(straight.run).best_test_loss, rel=1e-5)


def test_a_killed_rank_is_reported_and_the_run_continues_exactly(straight: Trained, home: Path) -> None:
    with Engine() as engine:
        run = engine.train(straight.spec, home)
        watch = Watch(run)
        watch.until(Saved)
        watch.windows(2)
        rank_of(engine, 1).kill()
        failed = watch.until(Failed)
        assert engine.wait() == 1
    assert failed.message == "rank 1 was killed by SIGKILL"
    with Engine() as engine:
        assert isinstance(engine.resume(run), Accepted)
        assert engine.wait() == 0, events(run)[-1]
    assert next(event for event in events(run) if isinstance(event, Continued)).step > 0
    assert not [event for event in events(run) if isinstance(event, Warned | BadLine)]
    np.testing.assert_array_equal(losses(run), losses(straight.run))
    (_, weights), (_, expected) = checkpoint.read(run, "last"), checkpoint.read(straight.run, "last")
    assert weights.keys() == expected.keys()
    for name in weights:
        assert torch.equal(weights[name], expected[name]), name


# --- refusals, reads ---------------------------------------------------------------------------


def test_sharding_needs_several_processes() -> None:
    with pytest.raises(Invalid, match="needs at least 2 processes") as error:
        check(RunSpec(shard=True))
    assert error.value.field == "shard"


MIXED = """
import torch
from epochtop import Task

def make_task():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    model[0].bias = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16), requires_grad=False)
    model[0].forward = lambda x: x @ model[0].weight.T
    return Task(model=model, train=(torch.randn(60, 4), torch.zeros(60, dtype=torch.int64)))
"""


def test_weights_of_several_types_are_refused(folder: Path) -> None:
    (folder / "mixed.py").write_text(MIXED)
    spec = RunSpec(task=f"{folder / 'mixed.py'}:make_task", processes=2, shard=True, device="cpu", threads=1)
    with pytest.raises(Invalid, match="bfloat16 and float32") as error:
        describe(spec, load_workload(spec))
    assert error.value.field == "shard"


@pytest.mark.parametrize("part", [fsdp.Shards, fsdp._to_host, fsdp._copy, fsdp_optim], ids=lambda part: part.__name__)
def test_the_source_of_sharding_reads_nothing_on_the_step_path(part: object) -> None:
    import inspect

    source = inspect.getsource(part)  # type: ignore[arg-type]
    if part is fsdp.Shards:  # scattering happens before the first step
        source = source[: source.index("    def scatter(")] + source[source.index("    def _shape(") :]
    assert not calls(source) & FORBIDDEN
