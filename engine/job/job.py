"""A job: everything that is trained for one spec. Device, model, rows on the device, loss, update rule, step.

Errors of a spec are raised here, before a run directory exists. Never imports execution, distributed or training.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from epochtop.engine.data.dataset import Rows
from epochtop.engine.device import generators
from epochtop.engine.device.row_types import on_device, rows_tensor
from epochtop.engine.device.select import free_bytes, why_not_accelerated
from epochtop.engine.device.tf32 import allow_tf32
from epochtop.engine.job import memory_estimate, threads
from epochtop.engine.job.decision_boundary import Boundary, boundary_of
from epochtop.engine.job.workload import Examples, Workload
from epochtop.engine.models.copies import deep_copy
from epochtop.engine.protocol.requests import Plan
from epochtop.engine.protocol.schedules import Schedule
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.step.batches import (
    Batches,
    DataShard,
    FullBatch,
    LoaderBatches,
    ResidentBatches,
    RowsChangedError,
    StreamedBatches,
)
from epochtop.engine.step.deferred_rule import DeferredRule
from epochtop.engine.step.ema import WeightAverage
from epochtop.engine.step.evaluation import EvalBatches, Evaluator, eval_batches
from epochtop.engine.step.step import Criterion, Step, StepParts, make_step
from epochtop.engine.step.torch_rules import make_update_rule
from epochtop.engine.step.update_rules import UpdateRule
from epochtop.engine.tasks import extra_state
from epochtop.engine.tasks.loss_module import PREFIX, LossModule, module_of

MOST_EVALUATED_TRAINING_ROWS = 8192
"""Training rows of an evaluation, at most, if no row is held out."""
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of 16 bits, by `precision`."""


class ShardedWeights(Protocol):
    """The weights of a model of which this rank has its rows (FSDP). All ranks must call every method."""

    local: dict[str, Tensor]
    """This rank's rows of the weights, and full buffers, by name."""

    def full(self, name: str, tensor: Tensor) -> Tensor:
        """A copy of all rows of `tensor`, which belongs to the weight `name`."""
        ...

    def assemble(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of all rows of the weights."""
        ...

    def evaluating(self, average: WeightAverage | None) -> AbstractContextManager[None]:
        """Use the moving average, if there is one, in place of the weights inside."""
        ...


@dataclass(frozen=True)
class Job:
    """Everything the loop trains, on `device`. Joining other processes gives a new job."""

    spec: RunSpec
    device: torch.device
    model: nn.Module
    names: Sequence[str]
    """Names of the trained parameters, in the order of the update rule."""
    update: UpdateRule
    batches: Batches
    average: WeightAverage | None
    schedule: Schedule
    parts: StepParts
    """The parts of the step."""
    step: Step
    """Takes one training step."""
    evaluator: Evaluator
    eval_batches: EvalBatches
    """Rows that select the best weights: validation rows, else test rows, else training rows."""
    eval_split: Literal["validation", "test", "train"]
    """Name of these rows."""
    test: EvalBatches
    plan: Plan
    workload: Workload
    boundary: Boundary | None = None
    """The decision boundary, for two features and a few classes."""
    shards: ShardedWeights | None = None
    """The sharded weights, once the ranks have joined; until then the model is on the host."""
    loss_module: LossModule | None = None
    """The module behind the loss of a task, if it is one."""
    notes: tuple[str, ...] = ()
    """Decisions made while the job was built, for people."""

    def with_parts(self, **changes: Any) -> Job:
        """This job with changed step parts, and the step they make."""
        parts = replace(self.parts, **changes)
        return replace(self, parts=parts, step=make_step(parts))


# --- building ----------------------------------------------------------------------------------------------


def build(
    spec: RunSpec,
    workload: Workload,
    plan: Plan,
    shard: DataShard = DataShard(),  # noqa: B008 - frozen
    checked: bool = True,
) -> Job:
    """Build the model and move the rows. On a GPU this creates its context. Raises Invalid.

    `checked` refuses a job that is estimated not to fit into memory.
    """
    device = torch.device(plan.device)
    _set_up(spec, device)
    if checked:
        memory_estimate.check(msgspec.structs.replace(plan, available_bytes=free_bytes(device, exact=True)), spec)
    generators.seed(spec.seed)  # nothing else may draw before the model does
    model = workload.model(spec)
    if not spec.shard:
        model = model.to(device)
    if spec.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    resident, placement_notes = memory_estimate.resident(spec, workload, device)
    job = _assemble(spec, workload, plan, model, resident, shard)
    if job.eval_split == "train" and len(job.eval_batches) < plan.rows:
        placement_notes = [
            *placement_notes,
            f"no test rows: {len(job.eval_batches):,} of the {plan.rows:,} training rows choose the best weights",
        ]
    try:
        with workload.untouched(device):
            thread_notes = threads.choose(spec, job.device, partial(copied_step, job))
    except RowsChangedError:  # the trial with two rows has not shown it
        return build(spec, workload.with_copied_rows(), plan, shard, checked)
    notes = (*workload.notes, *_last_batch_notes(job), *placement_notes, *thread_notes, *_device_notes(spec, device))
    return replace(job, notes=notes)


def _device_notes(spec: RunSpec, device: torch.device) -> list[str]:
    """Why `auto` did not choose an accelerator that torch finds."""
    reason = why_not_accelerated(device) if spec.device == "auto" else ""
    return [f"device auto is {device.type}: {reason}"] if reason else []


def copied_step(job: Job) -> Step:
    """A plain step on a copy of the model, for measuring: the job's weights do not change."""
    model, criterion = job.model, job.parts.criterion
    if job.loss_module is None:
        model = deep_copy(model, model)
    else:
        model, criterion = deep_copy((model, criterion), model, job.loss_module.module)
    parameters = list(_trained_parameters(job.spec, model, _loss_module(criterion, model)).values())
    return make_step(
        StepParts(
            model=model,
            criterion=criterion,
            update=make_update_rule(job.spec, parameters),
            batches=job.workload.first(job.spec.batch_size, job.device),
            parameters=parameters,
            optional_gradients=job.parts.optional_gradients,
            backward=job.workload.traits.needs_backward,
            autocast=job.evaluator.autocast,
        )
    )


def _set_up(spec: RunSpec, device: torch.device) -> None:
    torch.set_default_device(None)  # a task may have set it; tensors on the host are made without naming it
    if spec.threads:
        torch.set_num_threads(spec.threads)
    if spec.deterministic and device.type == "cuda":  # cuBLAS reads it when it is first used; older torch requires it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if spec.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(spec.deterministic)  # imports torch's compilers, 2 s and 100 MB
    if device.type == "cuda":
        torch.cuda.set_device(device)
        allow_tf32(spec.precision == "tf32")


def _assemble(spec: RunSpec, workload: Workload, plan: Plan, model: nn.Module, resident: bool, shard: DataShard) -> Job:
    device = torch.device(plan.device)
    criterion = workload.criterion(spec, device)
    loss_module = _loss_module(criterion, model)
    trained = _trained_parameters(spec, model, loss_module)
    _check_sparse(spec, workload.traits.sparse)
    update = DeferredRule(spec.learning_rate) if spec.shard else make_update_rule(spec, list(trained.values()))
    batches = _batches(spec, workload, device, resident, shard)
    average = WeightAverage(extra_state.weights_of(model, keep_vars=True), spec.ema) if spec.ema else None
    loss_average = None
    if spec.ema and loss_module is not None and loss_module.tensors:
        loss_average = WeightAverage(loss_module.tensors, spec.ema)
    parts = StepParts(
        model=model,
        criterion=criterion,
        update=update,
        batches=batches,
        parameters=list(trained.values()),
        accumulate=spec.accumulate,
        clip_norm=spec.clip_norm,
        autocast=AUTOCAST.get(spec.precision),
        average=average,
        loss_average=loss_average,
        processes=shard.world_size,
        optional_gradients=bool(spec.task),
        backward=workload.traits.needs_backward,
    )
    test, held_out, eval_split = _eval_rows(spec, workload, plan, resident)
    return Job(
        spec=spec,
        device=device,
        model=model,
        names=list(trained),
        update=update,
        batches=batches,
        average=average,
        schedule=Schedule(spec, plan.steps),
        parts=parts,
        step=make_step(parts),
        evaluator=Evaluator(
            workload.eval_loss,
            workload.metrics,
            device,
            parts.autocast,
            workload.eval_loss_weight,
            workload.traits.evaluates_with_gradients,
        ),
        eval_batches=held_out,
        eval_split=eval_split,
        test=test,
        plan=plan,
        workload=workload,
        loss_module=loss_module,
        boundary=boundary_of(workload, device),
    )


def _loss_module(criterion: Criterion, model: nn.Module) -> LossModule | None:
    """The module behind the loss, on its device already."""
    module = module_of(criterion, model)
    return LossModule(module, model) if module is not None else None


def _trained_parameters(spec: RunSpec, model: nn.Module, loss: LossModule | None) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name; those of the loss come last."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if loss is not None:
        if loss.trained and spec.shard:
            raise Invalid("shard", "the weights of a loss cannot be sharded; turn shard off")
        trained |= {f"{PREFIX}{name}": weight for name, weight in loss.trained.items()}
    if not trained:
        raise Invalid("task" if spec.task else "model", "has no trainable parameter")
    return trained


def _check_sparse(spec: RunSpec, sparse: Sequence[str]) -> None:
    """Raise Invalid if the update cannot use sparse gradients, which the weights named `sparse` have."""
    if not sparse:
        return
    unusable = [name for name in ("nesterov", "weight_decay", "clip_norm", "shard") if getattr(spec, name)]
    if spec.precision == "fp16":
        unusable.append("precision")
    field = unusable[0] if spec.optimizer == "sgd" and unusable else "optimizer"
    if spec.optimizer != "sgd" or unusable:
        value = spec.optimizer if field == "optimizer" else field
        raise Invalid(
            field,
            f"{value} does not support sparse gradients, which {sparse[0]} has; use optimizer sgd without nesterov, "
            "weight_decay, clip_norm, shard and fp16, or nn.Embedding(sparse=False)",
        )


def _last_batch_notes(job: Job) -> list[str]:
    rest = job.plan.rows - job.workload.rows_per_epoch(job.spec)
    if not rest or job.spec.last_batch != "auto":
        return []
    few = "1 row" if rest == 1 else f"{rest:,} rows"
    note = f"the model cannot train on the last batch of an epoch ({few}): every epoch leaves out {few}, a different choice each time"
    return [note]


def _eval_rows(
    spec: RunSpec, workload: Workload, plan: Plan, resident: bool
) -> tuple[EvalBatches, EvalBatches, Literal["validation", "test", "train"]]:
    """Test rows, the rows that select the best weights, and the name of the latter."""

    def batches(examples: Examples) -> EvalBatches:
        rows = min(spec.batch_size or plan.rows, plan.rows)
        careful = bool(spec.task) or spec.oom_retry
        device = torch.device(plan.device)
        while 2 < rows < len(examples) and len(examples) % rows == 1 and not workload.evaluates(1):  # type: ignore[arg-type]
            rows -= 1
        return eval_batches(examples, device, resident, rows, careful, workload.traits.changes_rows)

    test = batches(workload.test)
    if plan.validation_rows:
        return test, batches(workload.validation), "validation"
    if not plan.test_rows:
        return test, batches(_sample(workload.train)), "train"
    return test, test, "test"


def _sample(examples: Examples) -> Examples:
    """At most MOST_EVALUATED_TRAINING_ROWS of the examples, the same in every run, in their order."""
    count = len(examples)  # type: ignore[arg-type]
    if count <= MOST_EVALUATED_TRAINING_ROWS:
        return examples
    # drawn, because evenly spaced rows of a table may all be of one class
    rows = np.sort(np.random.default_rng(0).choice(count, MOST_EVALUATED_TRAINING_ROWS, replace=False))
    return (
        Rows(x=examples.x[rows], y=examples.y[rows]) if isinstance(examples, Rows) else Subset(examples, rows.tolist())
    )


def _batches(spec: RunSpec, workload: Workload, device: torch.device, resident: bool, shard: DataShard) -> Batches:
    train, per_epoch = workload.train, workload.rows_per_epoch(spec)
    if not isinstance(train, Rows):
        rows = spec.batch_size or len(train)  # type: ignore[arg-type]
        return LoaderBatches(train, rows, spec.seed, shard, device, spec.workers, per_epoch)
    one_batch = spec.batch_size == 0 or spec.batch_size * shard.world_size >= len(train)
    if not resident and not one_batch:
        return StreamedBatches(train, spec.batch_size, spec.seed, shard, device, per_epoch)
    x, y = on_device(rows_tensor(train.x), device), on_device(rows_tensor(train.y), device)
    if spec.channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    if one_batch:
        return FullBatch(x, y, len(train), shard, workload.traits.changes_rows, stored=True)
    return ResidentBatches(x, y, spec.batch_size, spec.seed, shard, per_epoch)
