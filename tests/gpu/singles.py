"""Four jobs of the matrix that once failed on paper: a race, foreign strides, a host far ahead, and a broken capture."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from epochtop.engine.execution import capture
from epochtop.engine.execution.cuda_graph import captured
from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.writer import create, send
from epochtop.engine.training import loop, recorder

NEEDS_A_GPU = "needs a GPU"
REFRESH_S = 0.1

TASK = '''
import torch
from torch import nn
from epochtop import Task


def rows():
    x = torch.randn(256, 64, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long())


class Waits(nn.Module):
    """Large layers, and a read of the device in every step."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, {wide}), *(nn.Linear({wide}, {wide}) for _ in range(6)), nn.Linear({wide}, 2))

    def forward(self, x):
        output = self.layers(x)
        output.sum().item()
        return output


class Strides(nn.Module):
    """Gradients with other strides than their parameters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8, 2) / 8)

    def forward(self, x):
        return torch.einsum("bhi,hio->bho", x.view(-1, 8, 8), self.weight).mean(1)


class Synchronizes(nn.Module):
    """Waits for its stream in a way that a capture forbids and torch does not notice."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.2), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x):
        torch.cuda.current_stream().synchronize()
        return self.layers(x)


def make(model):
    data = rows()
    return Task(model=model, loss=nn.functional.cross_entropy, train=data, test=data)


def waits():
    return make(Waits())


def strides():
    return make(Strides())


def synchronizes():
    return make(Synchronizes())
'''


def checks(device: str, folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Names and checks."""
    cuda = device.startswith("cuda")
    file = folder / "singles.py"
    file.write_text(TASK.replace("{wide}", "4096" if cuda else "64"))

    def spec(function: str, **fields: object) -> RunSpec:
        common = {"device": device, "threads": 1, "seed": 3, "epochs": 10**4, "batch_size": 64}
        return RunSpec(task=f"{file}:{function}", **(common | fields))  # type: ignore[arg-type]

    yield "race", lambda: _race(spec("waits", optimizer="sgd")) if cuda else NEEDS_A_GPU
    yield "strides", lambda: _strides(spec("strides", optimizer="adam"))
    yield "ahead", lambda: _ahead(device, folder)
    yield "capture broken", lambda: _capture_broken(spec("synchronizes")) if cuda else NEEDS_A_GPU


def _race(spec: RunSpec) -> str:
    """A capture that is given up changes no weight."""
    for _ in range(5):
        job = prepare_job(spec)
        before = _weights(job.model)
        try:
            captured(job)
        except Unsupported:
            pass
        else:
            raise AssertionError("a step that reads the device was captured")
        assert _weights(job.model) == before, "the weights changed while a graph was tried"
    return "ok, five times the same weights"


def _strides(spec: RunSpec) -> str:
    """Fused kernels take gradients in any layout."""
    job = prepare_job(spec)
    losses = [float(job.step()) for _ in range(5)]
    assert losses[-1] < losses[0], losses
    return f"ok, five steps with adam, loss {losses[0]:.3f} to {losses[-1]:.3f}"


def _ahead(device: str, folder: Path) -> str:
    """Large steps of few kernels keep the refresh, and Stop is quick."""
    cuda = device.startswith("cuda")
    hidden = (8192,) * 6 if cuda else (64,) * 2
    spec = RunSpec(
        dataset="digits", hidden=hidden, batch_size=0, device=device, threads=1, executor="eager", epochs=10**9,
        refresh_ms=int(REFRESH_S * 1000), eval_every=0, save_every=0,
    )  # fmt: skip
    run, lock = create(folder / "runs", spec, {}, time.time())
    arrivals: list[float] = []
    stopped_at = [0.0]
    with lock, pytest.MonkeyPatch.context() as patch:
        writing = recorder.Recorder(run, spec)
        training = loop.Loop(prepare_job(spec), writing)
        publish, began_at = training.publisher.publish, time.perf_counter()

        def noted(reading):  # type: ignore[no-untyped-def]
            now = time.perf_counter()
            arrivals.append(now)
            if now - began_at > 4.0 and not stopped_at[0]:
                stopped_at[0] = now
                send(run, Stop())
            return publish(reading)

        patch.setattr(training.publisher, "publish", noted)
        writing.start(on_command=training.wake)
        writing.put(training.run())
        ended_at = time.perf_counter()
        assert writing.close()
    settled = [at for at in arrivals if at - began_at > 1.0]  # kernels are loaded with the first steps
    gap_s, stop_s = max(later - earlier for earlier, later in pairwise(settled)), ended_at - stopped_at[0]
    text = f"largest gap {gap_s:.2f} s, Stop after {stop_s:.2f} s"
    if cuda:
        assert gap_s < 3 * REFRESH_S, text
        assert stop_s < 0.5, text
    return f"ok, {text}"


def _capture_broken(spec: RunSpec) -> str:
    """After a capture that fails in the middle, eager steps continue, or the run ends with advice."""
    job = prepare_job(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture, "_waiting_forbidden", nullcontext)
        try:
            captured(job)
        except Unsupported:
            losses = [float(job.step()) for _ in range(5)]
            return f"ok, eager steps continue, loss {losses[-1]:.3f}"
        except capture.CaptureError as error:
            return f"ok, the run ends with advice: {error}"
    raise AssertionError("a step that waits for its stream was captured")


def _weights(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
