"""Every optimizer, precision and model: one line per job, `ok`, `FAIL` or why it needs a GPU.

`python -m tests.gpu.matrix [--device cuda:0] [--only WORD ...] [--seconds S]` never stops at a failure. If a failure leaves
the device unusable, another process continues with the next job. For each job: steps, an evaluation and a checkpoint without
a wait for the device; the weights are the same before and after a graph is made; a graph takes the steps of eager ones. On
the CPU, a graph is the same function called again, and waits cannot be seen. `--singles` are the jobs of
:mod:`tests.gpu.singles` instead.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from epochtop.engine.execution.choice import make
from epochtop.engine.execution.eager import Eager
from epochtop.engine.execution.executor import Executor, Unsupported
from epochtop.engine.execution.inputs import untouched
from epochtop.engine.job import state
from epochtop.engine.job.job import Job
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.step.window import LossWindow
from tests.gpu import singles
from tests.gpu.waits import waiting_forbidden
from tests.support.executors import again_and_again

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.05},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.9},
    "adam": {"optimizer": "adam", "learning_rate": 0.003},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 0.1},
    "rmsprop": {"optimizer": "rmsprop", "learning_rate": 0.003},
    "adagrad": {"optimizer": "adagrad", "learning_rate": 0.02},
    "muon": {"optimizer": "muon", "learning_rate": 0.01},
}
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"dataset": "digits", "hidden": (32,)},
    "cnn": {"dataset": "digits", "model": "cnn", "width": 4},
    "resnet": {"dataset": "digits", "model": "resnet", "width": 4, "layers": 1},
    "transformer": {"model": "transformer", "layers": 2, "width": 16, "heads": 2, "context": 16},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "channels_last": MODELS["cnn"] | {"channels_last": True},
    "ema and clip_norm": MODELS["mlp"] | {"ema": 0.9, "clip_norm": 1.0},
    "accumulate 3": MODELS["mlp"] | {"accumulate": 3},
    "dropout": MODELS["mlp"] | {"dropout": 0.2},
    "dropout and checkpoint_activations": MODELS["mlp"]
    | {"hidden": (16, 16), "dropout": 0.2, "checkpoint_activations": True},
    "placement=stream": MODELS["mlp"] | {"placement": "stream"},
    **{f"deterministic {model}": MODELS[model] | {"deterministic": True} for model in ("cnn", "resnet", "transformer")},
}
FREE_STEPS, STEPS, COMPARED = 10, 50, 8
TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 1e-2, "fp16": 1e-2}
"""Relative difference between the losses of graph and eager steps."""


def main(arguments: list[str] | None = None) -> int:
    """Print a line per job. Returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", default=[], help="jobs whose names contain all of these words")
    parser.add_argument("--singles", action="store_true", help="the four risky jobs")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no other job after this time")
    parser.add_argument("--skip", type=int, default=0, help="leave out this many jobs, which are done")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts = dict.fromkeys(("ok", "FAIL", "needs a GPU", "no time left"), 0)
    started_at = monotonic()
    with tempfile.TemporaryDirectory() as folder:
        every = singles.checks(options.device, Path(folder)) if options.singles else jobs(options.device, Path(folder))
        for number, (name, check) in enumerate(every):
            if number < options.skip or not all(word in name for word in options.only):
                continue
            left_s = options.seconds - (monotonic() - started_at)
            line = _line(check) if left_s > 0 else "no time left"
            counts[next(kind for kind in counts if line.startswith(kind))] += 1
            print(f"{name}: {line}", flush=True)
            if line.startswith("FAIL") and not _usable(options.device):
                print(f"{_totals(counts)}; the device is unusable now, another process continues", flush=True)
                _continue(options, number + 1, left_s)
                return 1
    print(_totals(counts), flush=True)
    return 1 if counts["FAIL"] else 0


def _totals(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _usable(device: str) -> bool:
    """Whether work can still be done on the device. An error of a kernel ends its context, and every later job would fail."""
    try:
        torch.ones(1, device=device).item()
    except RuntimeError:
        return False
    return True


def _continue(options: argparse.Namespace, skip: int, seconds: float) -> None:
    """Do the rest of the jobs in a new process, whose context works."""
    command = [sys.executable, "-m", "tests.gpu.matrix", "--device", options.device, "--skip", str(skip)]
    command += ["--seconds", f"{seconds:.0f}", *(["--singles"] if options.singles else [])]
    subprocess.run([*command, *(["--only", *options.only] if options.only else [])], check=False)


def jobs(device: str, folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Names and checks. The first quarter of the products has every pair of optimizer, precision and model."""
    for name, fields in OPTIONS.items():
        yield name, _check_of(device, folder, fields)
    product = itertools.product(enumerate(PRECISIONS), enumerate(MODELS), enumerate(OPTIMIZERS))
    for (_, precision), (_, model), (_, optimizer) in sorted(product, key=lambda job: sum(n for n, _ in job) % 4):
        fields = MODELS[model] | OPTIMIZERS[optimizer] | {"precision": precision}
        yield f"{model} {optimizer} {precision}", _check_of(device, folder, fields)


def _line(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as error:
        if "-v" in sys.argv:
            traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        return f"FAIL {type(error).__name__}: {first[:300]}"


def spec_of(device: str, folder: Path, fields: dict[str, Any]) -> RunSpec:
    """A long run of small batches."""
    common: dict[str, Any] = {"device": device, "threads": 1, "seed": 3, "epochs": 10**4, "batch_size": 64}
    if fields.get("model") == "transformer":
        text = folder / "text.txt"
        text.write_text("the quick brown fox jumps over the lazy dog. " * 60)
        common["dataset"] = f"text:{text}"
    return RunSpec(**(common | fields))


def _check_of(device: str, folder: Path, fields: dict[str, Any]) -> Callable[[], str]:
    def check() -> str:
        try:
            job = prepare_job(spec_of(device, folder, fields))
        except Invalid as error:
            if not device.startswith("cuda"):
                return f"needs a GPU: {error}"
            raise
        return checked(job)

    return check


def checked(job: Job) -> str:
    """Steps, evaluation and checkpoint without a wait, then graph against eager. Raises AssertionError."""
    cuda = job.device.type == "cuda"
    window = LossWindow(job.device)
    for _ in range(FREE_STEPS):  # the first steps load kernels and reserve memory
        window.record(job.step())
    job.evaluator.evaluate(job.model, job.test)
    with waiting_forbidden() if cuda else nullcontext():
        for _ in range(STEPS):
            window.record(job.step())
        job.evaluator.evaluate(job.model, job.test)
        state.capture(job)
    window.turn(0.0)
    reading = window.drain() if cuda else None
    assert reading is None or bool(torch.isfinite(reading.losses).all()), "a loss is not finite"
    before = fingerprint(job)
    try:
        graph = make(job, "graph") if cuda else again_and_again(job)
    except Unsupported as reason:
        assert fingerprint(job) == before, "the weights changed while a graph was tried"
        return f"ok, eager only: {reason}"
    assert fingerprint(job) == before, "the weights changed while the graph was made"
    eager, replayed = losses_of(job, Eager(job)), losses_of(job, graph)
    difference = float(((eager - replayed).abs() / eager.abs().clamp(min=1e-3)).max())
    if not job.spec.dropout:
        assert difference < TOLERANCE[job.spec.precision], f"graph and eager losses differ by {difference:.2g}"
    return f"ok, graph and eager differ by {difference:.1e}"


def losses_of(job: Job, executor: Executor) -> torch.Tensor:
    """Losses of some steps, on the host; the steps are undone."""
    with untouched(job):
        window, step = LossWindow(job.device), 0
        while step < COMPARED:
            step += executor.run(window, step, COMPARED - step, lambda _: job.spec.learning_rate)
        reading = window.turn(0.0) or window.drain()
    assert reading is not None
    return reading.losses[:COMPARED].cpu().double()


def fingerprint(job: Job) -> str:
    """A checksum of the weights and the optimizer's state."""
    digest = hashlib.sha256()
    tensors = [*job.model.state_dict().values()]
    tensors += [tensor for slot in job.update.state_dict().values() for tensor in slot.values()]
    for tensor in tensors:
        digest.update(
            tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if tensor.ndim
            else str(float(tensor)).encode()
        )
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
