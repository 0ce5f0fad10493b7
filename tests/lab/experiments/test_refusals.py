"""Refusals of a job or a device: the verdict gives the reason, and never claims that the experiment was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from epochtop.engine.lab.experiment import Experiment, ExperimentContext
from epochtop.engine.lab.experiments import accumulation, checkpointing, memory, precision
from epochtop.engine.lab.experiments.accumulation import measure as accumulation_measure
from epochtop.engine.lab.experiments.memory import measure as memory_measure
from epochtop.engine.lab.experiments.memory.schema import Peak
from epochtop.engine.lab.instruments import allocation, variants
from epochtop.engine.lab.measurements import Row
from epochtop.engine.lab.pairs import LeftOut
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.lab.stored_rows import StoredRows

MEMORY = StoredRows("memory")
ACCUMULATION = StoredRows("accumulation")
CHECKPOINTING = StoredRows("checkpointing")

CNN = RunSpec(dataset="digits", model="cnn", width=4, batch_size=16, threads=1, device="cpu", epochs=1)
REFUSED = "batch_size: it needs 3 GiB, and 1 GiB is free"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def context(
    experiment: Experiment, folder: Path, spec: RunSpec, devices: tuple[str, ...] = ("cpu",)
) -> ExperimentContext:
    return ExperimentContext(experiment.fields(), spec, devices, 0.5, folder, quick=True)


def left_out(*names: str) -> list[Row]:
    return [{"kind": "left_out", "device": "cpu", "way": way, "why": REFUSED} for way in names]


WAYS = [
    (accumulation.EXPERIMENT, ("4 × 16",)),
    (checkpointing.EXPERIMENT, ("again",)),
    (precision.EXPERIMENT, ("tf32", "bf16", "fp16")),
]


@pytest.mark.parametrize(("experiment", "names"), WAYS, ids=[experiment.name for experiment, _ in WAYS])
def test_a_job_that_is_refused_in_every_other_way_cannot_be_measured(
    experiment: Experiment, names: tuple[str, ...]
) -> None:
    spec = RunSpec(batch_size=64)
    conclusion = StoredRows(experiment.name).conclude(left_out(*names), experiment.fields(), spec)
    assert conclusion.finding.startswith("this job cannot be measured: ")
    assert REFUSED in conclusion.finding
    assert "stopped" not in conclusion.uncertainty
    assert conclusion.setting == {}
    begun = StoredRows(experiment.name).conclude(left_out(*names[1:]), experiment.fields(), spec)
    assert "stopped before enough was measured" in begun.uncertainty
    elsewhere = StoredRows(experiment.name).conclude(left_out(*names), experiment.fields(), spec, ("cpu", "cuda:0"))
    assert "stopped before enough was measured" in elsewhere.uncertainty


def test_a_model_without_blocks_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    spec = RunSpec(hidden=(8,), device="cpu", threads=1)
    with pytest.raises(Invalid, match="this mlp has fewer than two hidden layers"):
        next(CHECKPOINTING.measure(context(checkpointing.EXPERIMENT, tmp_path, spec)))


def test_a_task_has_no_activations_that_we_could_compute_again(tmp_path: Path) -> None:
    spec = RunSpec(task="mine.py:make_task", device="cpu", threads=1)
    with pytest.raises(Invalid, match="computes its model as written"):
        next(CHECKPOINTING.measure(context(checkpointing.EXPERIMENT, tmp_path, spec)))


def test_accumulation_that_is_refused_on_one_device_is_measured_on_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(dataset="digits", hidden=(16,), batch_size=64, threads=1, device="cpu")
    build_variants = accumulation_measure.variants.build_variants
    asked = []

    def refusing(*arguments: object) -> object:
        these, none = build_variants(*arguments)  # type: ignore[arg-type]
        asked.append(these)
        if len(asked) > 1:
            return these, none
        small = dict(list(these.jobs.items())[:1])
        refusals = [LeftOut(device="cpu", way="4 × 16", why=REFUSED)]
        return accumulation_measure.variants.Variants("cpu", small, these.workload), refusals

    monkeypatch.setattr(accumulation_measure.variants, "build_variants", refusing)
    experiment = accumulation.EXPERIMENT
    rows = list(ACCUMULATION.measure(context(experiment, tmp_path, spec, ("cpu", "cpu"))))
    assert [row["kind"] for row in rows][:2] == ["left_out", "gradients"]
    conclusion = ACCUMULATION.conclude(rows, experiment.fields(), spec)
    assert f"cpu: 4 × 16 was not measured: {REFUSED}" in conclusion.evidence


# --- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "seen"), [("cpu", True), ("cuda", True), ("mps", False)])
def test_an_unknown_peak_of_torch_is_reported(tmp_path: Path, kind: str, seen: bool) -> None:
    asked = context(memory.EXPERIMENT, tmp_path, CNN)
    assert allocation.peak_is_seen(asked, torch.device(kind)) == seen
    assert [f"peak memory on {kind}" in line for line in asked.cannot_see] == [True] * (not seen)


def unseen(asked: ExperimentContext, device: torch.device) -> bool:
    asked.cannot_see.append(f"memory at its peak on {device}")
    return False


@pytest.mark.parametrize(
    ("experiment", "spec", "result"),
    [
        (precision.EXPERIMENT, RunSpec(dataset="digits", hidden=(16,), batch_size=64), "memory was not measured"),
        (accumulation.EXPERIMENT, RunSpec(dataset="digits", hidden=(16,), batch_size=64), "was not measured here"),
        (checkpointing.EXPERIMENT, RunSpec(dataset="digits", hidden=(16,) * 4), "was not measured here"),
    ],
    ids=["precision", "accumulation", "checkpointing"],
)
def test_without_a_peak_there_are_times_and_no_row_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: Experiment, spec: RunSpec, result: str
) -> None:
    monkeypatch.setattr(variants, "peak_is_seen", unseen)
    asked = context(experiment, tmp_path, RunSpec(**{**_fields(spec), "threads": 1, "device": "cpu"}))  # type: ignore[arg-type]
    rows = list(StoredRows(experiment.name).measure(asked))
    kinds = {row["kind"] for row in rows}
    assert "step" in kinds
    assert "memory" not in kinds
    assert asked.cannot_see == ["memory at its peak on cpu"]
    conclusion = StoredRows(experiment.name).conclude(rows, asked.fields, asked.spec)
    assert result in " ".join((conclusion.finding, conclusion.next_step))
    assert "memory of" not in conclusion.finding


def _fields(spec: RunSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in ("dataset", "hidden", "batch_size")}


def test_memory_of_a_device_that_does_not_tell_its_peak_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_measure, "peak_is_seen", unseen)
    with pytest.raises(Invalid, match="memory at its peak on cpu"):
        list(MEMORY.measure(context(memory.EXPERIMENT, tmp_path, CNN)))


TASK = """
import torch
from torch import nn

from epochtop import Task


def make_task():
    model = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 3))
    return Task(model=model, train=(torch.randn(40, 4), torch.arange(40) % 3))
"""


def test_a_model_with_batch_norm_is_measured_from_two_rows_on(tmp_path: Path) -> None:
    """It refuses a single row, which has no spread."""
    (tmp_path / "mine.py").write_text(TASK)
    spec = RunSpec(task=f"{tmp_path / 'mine.py'}:make_task", batch_size=16, threads=1, device="cpu")
    small = context(memory.EXPERIMENT, tmp_path, spec)
    small.budget_s = 60.0
    rows = list(MEMORY.measure(small))
    assert {row["kind"] for row in rows} == {"job", "peak", "check", "held"}
    assert min(int(row["batch"] or 0) for row in rows if row["kind"] == "peak") == 2


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "can't allocate memory"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Tried to allocate"),
    ],
)
def test_a_batch_that_does_not_fit_is_reported_whatever_the_error_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, result: str
) -> None:
    monkeypatch.setattr(memory_measure, "_peak", _raising(error))
    trials = memory_measure._Trials(context(memory.EXPERIMENT, tmp_path, CNN), torch.device("cpu"), None)  # type: ignore[arg-type]
    row = trials.run(Peak, 64, 0)
    assert isinstance(row, memory_measure.LeftOut)
    assert result in row.why


def test_an_error_of_another_kind_is_not_called_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_measure, "_peak", _raising(RuntimeError("shapes cannot be multiplied")))
    trials = memory_measure._Trials(context(memory.EXPERIMENT, tmp_path, CNN), torch.device("cpu"), None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="shapes"):
        trials.run(Peak, 64, 0)


def _raising(error: Exception) -> Callable[..., int]:
    def peak(*_: object) -> int:
        raise error

    return peak
