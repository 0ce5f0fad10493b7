"""Ranks, each in a process of its own, that take a few steps of many jobs: with whole weights and with sharded ones.

`python -m tests.support.sharded RANK OF DEVICE PORT FOLDER` is one of them; tests/test_sharding.py compares what they leave.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import save_file
from torch import Tensor

from epochtop.engine.distributed.group import Group
from epochtop.engine.distributed.launcher import open_store, reach_store
from epochtop.engine.distributed.orders import Setup
from epochtop.engine.job import evaluate
from epochtop.engine.job import state as job_state
from epochtop.engine.job.job import Job, build
from epochtop.engine.job.plan import describe
from epochtop.engine.job.workload import load_workload
from epochtop.engine.models import fsdp_units
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.batches import DataShard
from epochtop.engine.step.window import LossWindow
from tests.architecture.test_no_reads import Operators
from tests.support.engines import HANGING_S
from tests.support.processes.prefork import ForkedProcess

STEPS = 6
AT = 3
"""Step at which a checkpoint is taken from which others go on."""

COMMON: dict[str, Any] = {"device": "cpu", "threads": 1, "seed": 3, "epochs": 10_000, "batch_size": 20}
MLP: dict[str, Any] = {"hidden": (17, 9)}
CNN: dict[str, Any] = {"dataset": "digits", "model": "cnn", "width": 3}
TRANSFORMER: dict[str, Any] = {"dataset": "text:{folder}/text.txt", "model": "transformer", "layers": 2, "width": 12}
TRANSFORMER |= {"heads": 2, "context": 8}
RULES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "learning_rate": 0.01},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
}
MODELS = {"mlp": MLP, "cnn": CNN, "transformer": TRANSFORMER}
CROSS = {f"{model} {rule}": MODELS[model] | RULES[rule] for model in MODELS for rule in RULES}
CHANNELS_LAST = "channels last"
OPTIONS: dict[str, dict[str, Any]] = {
    "nesterov": MLP | RULES["momentum"] | {"nesterov": True},
    "rmsprop": MLP | {"optimizer": "rmsprop", "learning_rate": 0.01, "momentum": 0.5},
    "adagrad": MLP | {"optimizer": "adagrad", "learning_rate": 0.05},
    "muon": CNN | {"optimizer": "muon", "learning_rate": 0.01, "weight_decay": 0.1},
    "accumulation": CNN | RULES["adam"] | {"accumulate": 3},
    "clipping": MLP | RULES["momentum"] | {"clip_norm": 0.1},
    "average": CNN | RULES["adam"] | {"ema": 0.8},
    "everything": MLP | RULES["adamw"] | {"accumulate": 2, "clip_norm": 0.2, "ema": 0.5, "label_smoothing": 0.1},
    "dropout": MLP | RULES["adam"] | {"dropout": 0.3},
    "bf16": CNN | RULES["adam"] | {"precision": "bf16"},
    "fp16": MLP | RULES["adam"] | {"precision": "fp16"},
    "recomputed": TRANSFORMER | RULES["adam"] | {"checkpoint_activations": True, "dropout": 0.1},
    "recomputed mlp": {"hidden": (9, 8, 7, 6)} | RULES["adam"] | {"checkpoint_activations": True},
    "batch norm": CNN | RULES["sgd"] | {"model": "resnet", "layers": 1},
    CHANNELS_LAST: CNN | RULES["sgd"] | {"channels_last": True},
    "odd": RULES["adam"] | {"task": "{folder}/odd.py:make_task"},
    "odd, clipped": RULES["momentum"] | {"task": "{folder}/odd.py:make_task", "clip_norm": 0.1, "ema": 0.8, "accumulate": 2},
}  # fmt: skip
CASES = CROSS | OPTIONS
if not hasattr(torch.optim, "Muon"):  # new in torch 2.9
    del CASES["muon"]
RESUMED = tuple(case for case in ("cnn adam", "adagrad", "muon", "everything", "odd, clipped") if case in CASES)
"""Cases of which others go on from a checkpoint."""
DDP, FSDP = "whole", "sharded"
THEN = {DDP: (FSDP,), FSDP: (DDP, FSDP)}

ODD = '''
import torch
from torch import nn
from torch.nn import functional
from epochtop import Task

class Odd(nn.Module):
    """Tied weights, single numbers, a row for one rank only, weights used from outside, some that are not trained."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 7)
        self.again = nn.Linear(7, 7)
        self.tied = nn.Linear(7, 7)
        self.tied.weight = self.again.weight
        self.gate = nn.Parameter(torch.ones(()))
        self.one = nn.Parameter(torch.ones(1))
        self.frozen = nn.Parameter(torch.randn(7), requires_grad=False)
        self.direct = nn.Linear(7, 3)
        self.register_buffer("seen", torch.zeros(7))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        x = torch.tanh(self.first(x)) * self.gate + self.frozen
        if self.training:  # what follows depends on a buffer that differs from rank to rank
            self.steps += 1
            self.seen.lerp_(x.detach().mean(0), 0.1)
        x = self.tied(torch.tanh(self.again(x - self.seen))) * self.one
        return functional.linear(x, self.direct.weight, self.direct.bias)

def make_task():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(90, 6, generator=draw)
    y = x[:, :3].argmax(1)
    return Task(model=Odd(), train=(x[:60], y[:60]), test=(x[60:], y[60:]))
'''


def spec_of(case: str, folder: Path, **more: Any) -> RunSpec:
    """The spec of one rank's job."""
    fields = COMMON | CASES[case] | more
    return RunSpec(**{k: v.format(folder=folder) if isinstance(v, str) else v for k, v in fields.items()})


def job_of(spec: RunSpec, share: DataShard = DataShard()) -> Job:  # noqa: B008 - frozen
    """As the engine builds it."""
    workload = load_workload(spec)
    made = describe(spec, workload)
    if made.device.startswith("cuda"):
        made = msgspec.structs.replace(made, device=f"cuda:{share.rank}")
    job = build(spec, workload, made, share)
    if share.rank:
        torch.manual_seed(spec.seed + share.rank)  # as epochtop.engine.distributed.rank has it
    return job


def take(job: Job, first: int, last: int, group: Group | None = None) -> Tensor:
    """The losses of these steps, those of all ranks averaged."""
    window = LossWindow(job.device, first, group.average if group else None)
    for step in range(first, last):
        job.update.learning_rate = job.spec.learning_rate * job.schedule.factor(step)
        window.record(job.step())
    reading = window.turn(0.0) or window.drain()
    assert reading is not None
    return reading.losses


class Rank:
    """One of `of`, on the CPU or each on a GPU of its own."""

    def __init__(self, rank: int, of: int, device: str, store: Any, folder: Path) -> None:
        fsdp_units.UNDIVIDED_WEIGHTS = 0  # small models in parts, too
        self.device = torch.device(device, rank if device == "cuda" else None)
        if device == "cuda":
            torch.cuda.set_device(self.device)
        self.group = Group(store, rank, of, self.device)
        self.rank, self.of, self.folder = rank, of, folder

    def joined(self, case: str, layout: str, checkpoint: tuple[dict[str, Tensor], Any] | None = None) -> Job:
        """A job that all ranks train; from step `AT` on where there is a checkpoint, which rank 0 has."""
        shard = layout == FSDP
        spec = spec_of(case, self.folder, processes=2, shard=shard, device=self.device.type)
        job = job_of(spec, DataShard(self.rank, self.of))
        step, values = (AT, checkpoint[1]) if checkpoint else (0, None)
        state = {name: tensor.clone() for name, tensor in checkpoint[0].items()} if checkpoint else {}
        if checkpoint and self.rank == 0:
            job_state.restore(job, state, checkpoint[1], AT)
        sent = {name: tensor for name, tensor in state.items() if not shard or job_state.is_progress(name)}
        setup = Setup(spec=job.spec, step=step, values=values) if self.rank == 0 else None
        setup, tensors = self.group.hand_out(setup, sent)
        if setup.values is not None and self.rank and shard:
            job_state.restore_progress(job, tensors, setup.values, self.rank)
        elif setup.values is not None and self.rank:
            job_state.restore(job, tensors, setup.values, AT, self.rank)
        return self.group.join(job, setup.step)

    def whole(self, job: Job) -> tuple[dict[str, Tensor], Any]:
        """A checkpoint on the host, as rank 0 would write it."""
        state, values = job_state.capture(job)
        state |= self.group.generators()
        self.wait()
        return {name: tensor.cpu() for name, tensor in state.items()}, values

    def wait(self) -> None:
        """Until everything is done that was enqueued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def leave(self, name: str, job: Job, losses: Tensor) -> None:
        """What the test compares, in a file of rank 0; what each rank holds, in one of each."""
        operators = Operators()
        self.wait()
        with operators if name.endswith(f" {FSDP}") and " then " not in name else nullcontext():
            figures, _ = evaluate.enqueue(job)
            again = take(job, STEPS, STEPS + 1, self.group)  # an evaluation must leave no trace
            state, _ = job_state.capture(job)
        self.wait()
        if self.rank == 0:
            state |= {"losses": torch.cat((losses, again)), "figures": figures}
            kept = {key: tensor.cpu().contiguous().clone() for key, tensor in state.items()}
            save_file(kept, self.folder / f"{name}.safetensors")
        if job.shards is not None:
            memory = sum(kept.numel() for kepts in job.update.state_dict().values() for kept in kepts.values())
            held = {"weights": {k: v.numel() for k, v in job.shards.local.items()}, "memory": memory}
            held |= {"reads": dict(operators.reads), "operators": operators.all.total()}
            (self.folder / f"{name}.{self.rank}.json").write_text(json.dumps(held))

    def train(self) -> None:
        """Every case both ways; and from the checkpoint of each way on, either way."""
        for case in CASES:
            for layout in (DDP, FSDP):
                job = self.joined(case, layout)
                before = take(job, 0, AT, self.group)
                kept = self.whole(job)
                after = take(job, AT, STEPS, self.group)
                self.leave(f"{case} {layout}", job, torch.cat((before, after)))
                for then in THEN[layout] if case in RESUMED else ():
                    job = self.joined(case, then, kept)
                    after = take(job, AT, STEPS, self.group)
                    self.leave(f"{case} {layout} then {then}", job, torch.cat((before, after)))


def train_all(of: int, device: str, folder: Path) -> None:
    """Every case by `of` ranks; what they leave lies in `folder`. Fails with what they said."""
    (folder / "odd.py").write_text(ODD)
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    store, port = open_store()
    environment = os.environ | {"LOCAL_WORLD_SIZE": str(of), "GLOO_SOCKET_IFNAME": "lo"}
    with ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(of)]
        ranks = [
            ForkedProcess(
                (str(rank), str(of), device, str(port), str(folder)),
                "tests.support.sharded",
                stdin=subprocess.DEVNULL,
                stdout=None,
                stderr=errors[rank],
                environment=environment,
            )
            for rank in range(of)
        ]
        ended = [rank.wait(4 * HANGING_S) for rank in ranks]
        for file in errors:
            file.seek(0)
        assert not any(ended), b"\n".join(file.read() for file in errors).decode()
    del store


if __name__ == "__main__":
    me = Rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], reach_store(int(sys.argv[4])), Path(sys.argv[5]))
    me.train()
    me.group.close()
