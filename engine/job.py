"""A spec turned into something that can be trained: device, model, rows on the device, loss and metric.

Everything that can be wrong with a spec is found here, before a run directory exists.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine import devices, models
from engine.data import Split, csv_path, load
from engine.hardware import usable_cpus
from engine.protocol import Plan
from engine.spec import Invalid, RunSpec, check
from engine.step import Batches, Step, Update, eager_step, make_update

EVALUATION_ROWS = 8192
"""Rows evaluated at once, so that a large test set needs no more memory than a batch."""

CLEARLY_FASTER = 0.8
"""Share of one thread's time that all threads must stay below."""

Criterion = Callable[[Tensor, Tensor], Tensor]


def _binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits.squeeze(1), labels)


def _mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(output.squeeze(1), target)


CRITERIA: dict[str, Criterion] = {
    "cross_entropy": functional.cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "mean_squared_error": _mean_squared_error,
}


@dataclass
class Job:
    """What the loop trains. `x` is float32 (rows, features) and `y` (rows,), on `device`."""

    spec: RunSpec
    device: torch.device
    model: nn.Module
    criterion: Criterion
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    update: Update
    batches: Batches | None
    plan: Plan
    split: Split
    notes: list[str]

    @property
    def step(self) -> Step:
        """The step to take again and again."""
        whole = (self.x, self.y)
        return eager_step(self.model, self.criterion, self.update, self.batches or (lambda: whole))


# --- checking ----------------------------------------------------------------------------------------------


def choose_device(name: str) -> torch.device:
    """The device a spec names. Raises Invalid when this machine does not have it."""
    cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda:0" if cuda else "mps" if mps else "cpu")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if cuda else 0
        index = int(name.partition(":")[2] or 0)
        if index >= count:
            raise Invalid("device", f"{name} is not on this machine: {_why_no_cuda(count)}; use cpu or auto")
        return torch.device("cuda", index)
    if name == "mps" and not mps:
        raise Invalid("device", "mps is not on this machine; use cpu or auto")
    return torch.device(name)


def _why_no_cuda(count: int) -> str:
    if count:
        return f"torch sees {count} CUDA device{'s' * (count > 1)}, cuda:0" + (
            f" to cuda:{count - 1}" if count > 1 else ""
        )
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "torch sees no CUDA device"


def plan(spec: RunSpec, split: Split, device: torch.device) -> Plan:
    """What a run of `spec` would do, computed without building it."""
    rows, features = split.x.shape
    batch = min(spec.batch_size or rows, rows)
    steps_per_epoch = -(-rows // batch)
    needed = models.memory_bytes(spec, features, split.outputs, batch) + split.bytes
    return Plan(
        device=str(device),
        rows=rows,
        test_rows=len(split.x_test),
        features=features,
        outputs=split.outputs,
        parameters=models.parameter_count(features, spec.hidden, split.outputs),
        steps=spec.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        memory_bytes=needed,
        available_bytes=devices.available_bytes(device),
    )


def describe(spec: RunSpec, split: Split) -> Plan:
    """Check everything about a spec that can be checked without training. Raises Invalid."""
    check(spec)
    device = choose_device(spec.device)
    made = plan(spec, split, device)
    _check_memory(made.memory_bytes, made.available_bytes, made, spec)
    return made


def _check_memory(needed: int, available: int | None, made: Plan, spec: RunSpec) -> None:
    if available is None or needed <= available:
        return
    raise Invalid(
        "hidden",
        f"{', '.join(map(str, spec.hidden)) or 'none'}: {made.parameters:,} parameters and batches of "
        f"{spec.batch_size or made.rows:,} rows need about {_gib(needed)}, {made.device} has {_gib(available)} free; "
        "use smaller layers or a smaller batch",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


# --- building ----------------------------------------------------------------------------------------------


def build(spec: RunSpec, split: Split, made: Plan) -> Job:
    """Build the model and move the rows. On a GPU this creates its context. Raises Invalid."""
    device = torch.device(made.device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        _check_memory(made.memory_bytes, free, made, spec)
    if spec.threads:
        torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)  # nothing may draw from the default generator between here and the model
    model = models.mlp(made.features, spec.hidden, made.outputs, spec.activation).to(device)
    x, y = torch.from_numpy(split.x).to(device), torch.from_numpy(split.y).to(device)
    full_batch = spec.batch_size == 0 or spec.batch_size >= made.rows
    job = Job(
        spec=spec,
        device=device,
        model=model,
        criterion=CRITERIA[split.loss],
        x=x,
        y=y,
        x_test=torch.from_numpy(split.x_test).to(device),
        y_test=torch.from_numpy(split.y_test).to(device),
        update=make_update(spec, list(model.parameters())),
        batches=None if full_batch else Batches(x, y, spec.batch_size, spec.seed),
        plan=made,
        split=split,
        notes=[],
    )
    if not spec.threads and device.type == "cpu":
        _choose_threads(job)
    return job


def _choose_threads(job: Job) -> None:
    """Time a few steps of a copy with one thread and with all; all must be clearly faster to be taken.

    The stakes are not even: on a machine that gets busy later, many threads make tiny operators 30 times slower.
    """
    every = usable_cpus()
    torch.set_num_threads(1)
    if every < 2:
        return
    one_s = _step_seconds(job)
    torch.set_num_threads(every)
    all_s = _step_seconds(job)
    torch.set_num_threads(1)
    one_s = min(one_s, _step_seconds(job))
    threads = every if all_s < CLEARLY_FASTER * one_s else 1
    torch.set_num_threads(threads)
    job.notes.append(
        f"threads {threads}: a step takes {one_s * 1e3:.3g} ms with 1 thread, {all_s * 1e3:.3g} ms with {every}"
    )


def _step_seconds(job: Job, most_steps: int = 20, most_s: float = 0.05) -> float:
    """Median seconds of a step on a copy of the model; the job itself and its generators are left alone."""
    model = copy.deepcopy(job.model)
    rows = min(job.spec.batch_size or len(job.x), len(job.x))
    batch = (job.x[:rows], job.y[:rows])
    step = eager_step(model, job.criterion, make_update(job.spec, list(model.parameters())), lambda: batch)
    step()
    times: list[float] = []
    while len(times) < most_steps and sum(times) < most_s:
        begun = perf_counter()
        step()
        times.append(perf_counter() - begun)
    return sorted(times)[len(times) // 2]


def resolved(spec: RunSpec) -> RunSpec:
    """The spec with a file's path made absolute, so that it means the same from any folder."""
    path = csv_path(spec)
    return spec if path is None else msgspec.structs.replace(spec, dataset=f"csv:{path}")


def load_checked(spec: RunSpec) -> Split:
    """The rows of a spec. Raises Invalid."""
    check(spec)
    return load(spec)


# --- evaluation --------------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(job: Job, x: Tensor, y: Tensor) -> Tensor:
    """Loss and metric over all rows as a tensor (2,) on the device; enqueued, not read."""
    total = torch.zeros((), device=job.device)
    hits = torch.zeros((), device=job.device)
    for rows, labels in zip(torch.split(x, EVALUATION_ROWS), torch.split(y, EVALUATION_ROWS), strict=True):
        output = job.model(rows)
        total += job.criterion(output, labels) * len(rows)
        hits += _hits(output, labels, job.split.loss)
    if job.split.loss != "mean_squared_error":
        return torch.stack((total, hits)) / len(x)
    return torch.stack((total / len(x), 1 - hits / (y - y.mean()).square().sum()))


def _hits(output: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Right answers of a classifier; the squared error of a regression."""
    if loss == "cross_entropy":
        return (output.argmax(1) == labels).sum()
    if loss == "binary_cross_entropy":
        return ((output.squeeze(1) > 0) == (labels > 0.5)).sum()
    return (output.squeeze(1) - labels).square().sum()
