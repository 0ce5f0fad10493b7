"""The trained model of a run: its weights, and its model with them, on the host.

Uses the best checkpoint if there is one, else the last. Must never write into the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.device import generators
from epochtop.engine.job.state import AVERAGE, MODEL
from epochtop.engine.models.build import build_model, features_of
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.ownership import check_code
from epochtop.engine.runs.paths import PREPARATION
from epochtop.engine.runs.reader import read_record
from epochtop.engine.runs.regular import read_regular
from epochtop.engine.tasks import extra_state
from epochtop.engine.tasks.loader import load_task
from epochtop.engine.tasks.sources import describe_changes, stored_record, working_folder
from epochtop.engine.tasks.task import Task
from epochtop.engine.terminal.output import write_error
from epochtop.engine.training import checkpoint


@dataclass(frozen=True)
class Weights:
    """The evaluated weights and buffers of a run: averaged if the run averages them."""

    tensors: dict[str, Tensor]
    """Tensors by their name in the model."""
    extras: dict[str, Any]
    """Extra states of its modules by their name in the model's `state_dict`."""
    kind: str
    """The checkpoint: `best` or `last`."""
    step: int
    """Steps taken before they were evaluated."""


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode with a run's weights."""

    run: Path
    spec: RunSpec
    model: nn.Module
    weights: Weights
    example: Any
    """Two rows of model input: a tensor, or the structure of a custom task's rows."""
    preparation: Preparation | None
    """How raw rows become model input; None for a custom task."""
    task: Task | None = None
    task_changes: str = ""
    """How the task's files differ from those of the run, for people; empty if they do not."""


def weights(run: Path) -> Weights:
    """The best weights of a run, else the last. Raises Invalid if there are none or they are not finite."""
    if read_record(run).script is not None:
        raise Invalid("", f"{run.name} was recorded by a script; epochtop has its values, not its model")
    kinds = ("best",) if checkpoint.exists(run, "best") else (checkpoint.LAST, checkpoint.PREVIOUS)
    newest = checkpoint.newest(run, kinds)
    info, tensors, kind = newest.info, newest.tensors, newest.kind
    if info is None and newest.problems:
        raise Invalid("", newest.problems[0])
    if info is None:
        raise Invalid("", f"{run.name} has no checkpoint yet; it saves one at its end and every save_every seconds")
    for problem in newest.problems:
        write_error(f"epochtop: {problem}; checkpoint {kind!r} of step {info.step:,} is used instead\n")
    prefix = AVERAGE if any(name.startswith(AVERAGE) for name in tensors) else MODEL
    evaluated = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    broken = next((name for name, tensor in evaluated.items() if not tensor.isfinite().all()), None)
    if broken is not None:
        raise Invalid(
            "", f"checkpoint {kind!r} of {run.name} has NaN or infinite weights in {broken}: the run diverged"
        )
    return Weights(evaluated, extra_state.decode(tensors), kind, info.step)


def preparation_of(run: Path) -> Preparation:
    """How a run prepared its rows. Raises Invalid if that is not recorded."""
    try:
        return msgspec.json.decode(read_regular(run / PREPARATION), type=Preparation)
    except FileNotFoundError:
        raise Invalid(
            "", f"{run.name} has no {PREPARATION}, because an earlier version trained it; train it again"
        ) from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("", f"{run / PREPARATION} cannot be read: {error}") from None


def load(run: Path, trusted_owner: str = "") -> TrainedModel:
    """The model of a run with its best weights, else its last, on the host. Raises Invalid.

    A custom task is executed from the run's stored copy, if it has one that only this user can have written.
    `trusted_owner` is another owner of the run whose task may be executed.
    """
    evaluated = weights(run)
    spec = read_record(run).spec
    if spec.task:
        check_code(run, spec.task, trusted_owner)
        record = stored_record(run)
        with working_folder(record):
            generators.seed(spec.seed)
            task = load_task(spec.task, record)
            example = task.batch()[0]
        changes = describe_changes(record, spec.task)
        return _filled(run, spec, task.model.cpu(), evaluated, example, None, task, changes)
    preparation = preparation_of(run)
    model = build_model(spec, preparation, preparation.outputs)
    return _filled(run, spec, model, evaluated, _example(spec, preparation), preparation)


def report_changes(trained: TrainedModel) -> None:
    """Write to standard error how the task's files differ from those of the run, if they do."""
    if trained.task_changes:
        write_error(f"epochtop: {trained.run.name}: {trained.task_changes}\n")


def _filled(
    run: Path,
    spec: RunSpec,
    model: nn.Module,
    evaluated: Weights,
    example: Any,
    preparation: Preparation | None,
    task: Task | None = None,
    task_changes: str = "",
) -> TrainedModel:
    try:
        model.load_state_dict(evaluated.tensors | evaluated.extras)
    except RuntimeError as error:
        cause = f"{spec.task} has changed since" if task else "the model has changed"
        first = str(error).splitlines()[-1].strip()
        raise Invalid("", f"the weights of {run.name} do not fit: {cause}: {first}") from None
    return TrainedModel(run, spec, model.eval(), evaluated, example, preparation, task, task_changes)


def _example(spec: RunSpec, preparation: Preparation) -> Tensor:
    if preparation.kind == "text":
        return torch.zeros(2, spec.context, dtype=torch.uint8 if len(preparation.vocabulary) <= 256 else torch.int32)
    if preparation.kind == "image":
        assert preparation.image is not None
        return torch.zeros(2, *preparation.image, dtype=torch.uint8 if preparation.pixel_max > 1 else torch.float32)
    if preparation.kind == "series":
        assert preparation.series is not None
        return torch.zeros(2, *preparation.series)
    if preparation.kind == "document":
        return torch.zeros(2, preparation.length, dtype=torch.int64)
    return torch.zeros(2, features_of(preparation))


def numbers_per_row(example: Tensor) -> int:
    """Numbers in a row of `example`."""
    return prod(example.shape[1:])
