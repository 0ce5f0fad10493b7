"""What a run has learned: its weights, and its model with them, on the host.

The best checkpoint is taken where there is one, else the last. Must never write into the run.
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
from epochtop.engine.job.state import AVERAGE, MODEL
from epochtop.engine.models.build import build_model, features_of
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.paths import PREPARATION
from epochtop.engine.runs.reader import read_record
from epochtop.engine.tasks.loader import load_task
from epochtop.engine.tasks.task import Task
from epochtop.engine.training import checkpoint


@dataclass(frozen=True)
class Weights:
    """Weights and buffers by their names in the model, as they are evaluated: averaged where the run averages them."""

    tensors: dict[str, Tensor]
    kind: str
    """`best` or `last`."""
    step: int


@dataclass(frozen=True)
class Trained:
    """A model in evaluation mode with a run's weights."""

    run: Path
    spec: RunSpec
    model: nn.Module
    weights: Weights
    example: Any
    """Two rows as the model takes them: a tensor, or what an own task's rows are made of."""
    preparation: Preparation | None
    """How raw rows become the model's; None for an own task."""
    task: Task | None = None


def weights(run: Path) -> Weights:
    """The best weights of a run, else the last. Raises Invalid where there are none, or they are not finite."""
    read_record(run)
    kind = next((kind for kind in ("best", "last") if checkpoint.exists(run, kind)), None)
    if kind is None:
        raise Invalid("", f"{run.name} has no checkpoint yet; it saves one at its end, and on the way every save_every")
    info, tensors = checkpoint.read(run, kind)
    prefix = AVERAGE if any(name.startswith(AVERAGE) for name in tensors) else MODEL
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    broken = next((name for name, tensor in own.items() if not tensor.isfinite().all()), None)
    if broken is not None:
        raise Invalid(
            "", f"checkpoint {kind!r} of {run.name} has NaN or infinite weights in {broken}: the run diverged"
        )
    return Weights(own, kind, info.step)


def preparation_of(run: Path) -> Preparation:
    """How a run's rows were made ready. Raises Invalid where that is not recorded."""
    try:
        return msgspec.json.decode((run / PREPARATION).read_bytes(), type=Preparation)
    except FileNotFoundError:
        raise Invalid("", f"{run.name} has no {PREPARATION}: an earlier version trained it; train it again") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("", f"{run / PREPARATION} cannot be read: {error}") from None


def load(run: Path) -> Trained:
    """The model of a run with its best weights, else its last, on the host. Raises Invalid."""
    found = weights(run)
    spec = read_record(run).spec
    if spec.task:
        torch.manual_seed(spec.seed)
        task = load_task(spec.task)
        return _filled(run, spec, task.model.cpu(), found, task.batch()[0], None, task)
    preparation = preparation_of(run)
    model = build_model(spec, preparation, _outputs(preparation))
    return _filled(run, spec, model, found, _example(spec, preparation), preparation)


def _filled(
    run: Path,
    spec: RunSpec,
    model: nn.Module,
    found: Weights,
    example: Any,
    preparation: Preparation | None,
    task: Task | None = None,
) -> Trained:
    try:
        model.load_state_dict(found.tensors)
    except RuntimeError as error:
        what = f"{spec.task} has changed since" if task else "the model is another one"
        first = str(error).splitlines()[-1].strip()
        raise Invalid("", f"the weights of {run.name} do not fit: {what}: {first}") from None
    return Trained(run, spec, model.eval(), found, example, preparation, task)


def _outputs(preparation: Preparation) -> int:
    """Units of the last layer, as :class:`epochtop.engine.data.dataset.PreparedDataset` counts them."""
    counts = {"cross_entropy": len(preparation.classes), "next_character": len(preparation.vocabulary)}
    return counts.get(preparation.loss, 1)


def _example(spec: RunSpec, preparation: Preparation) -> Tensor:
    if preparation.kind == "text":
        return torch.zeros(2, spec.context, dtype=torch.uint8 if len(preparation.vocabulary) <= 256 else torch.int32)
    if preparation.kind == "image":
        assert preparation.image is not None
        return torch.zeros(2, *preparation.image, dtype=torch.uint8)
    return torch.zeros(2, features_of(preparation))


def numbers_of_a_row(example: Tensor) -> int:
    """How many numbers make a row."""
    return prod(example.shape[1:])
