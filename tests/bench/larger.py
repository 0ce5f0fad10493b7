"""Larger jobs: steps per second against the usual training loop, and against it with torch.compile.

Alternating blocks of steps in one process with the same threads, rows and sizes, without evaluation. The plain loop compiles
its model and uses torch's optimizer. Ratios compare blocks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from epochtop.engine.execution.choice import make
from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.job.job import Job
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.window import LossWindow
from tests.bench.tables import Figure, show, spread

BLOCK_S, PAIRS = 0.4, 9
Block = Callable[[int], None]
"""Takes a number of steps."""


@dataclass(frozen=True)
class Large:
    """A job, and its model as plain PyTorch."""

    name: str
    spec: RunSpec
    model: Callable[[], nn.Module]
    optimizer: Callable[[Any], torch.optim.Optimizer]


def cifar(folder: Path, images: int = 2048) -> Path:
    """Random pictures of CIFAR-10's shape."""
    path, chance = folder / "pictures.npz", np.random.default_rng(0)
    if not path.exists():
        x, y = chance.integers(0, 256, (images, 3, 32, 32), dtype=np.uint8), chance.integers(0, 10, images)
        np.savez(path, x_train=x, y_train=y, x_test=x[:64], y_test=y[:64])
    return path


def characters(folder: Path) -> Path:
    """A text with 65 different characters, like Shakespeare's works."""
    path, chance = folder / "text.txt", np.random.default_rng(0)
    if not path.exists():
        alphabet = np.array([chr(33 + number) for number in range(65)])
        path.write_text("".join(alphabet[chance.integers(0, 65, 200_000)]), encoding="utf-8")
    return path


def jobs(folder: Path) -> list[Large]:
    """All measured jobs."""

    def spec_of(**fields: Any) -> RunSpec:
        return RunSpec(**{"threads": 1, "device": "cpu", "epochs": 10**6, **fields})

    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.01)

    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.01)

    pictures, text = f"npz:{cifar(folder)}", f"text:{characters(folder)}"
    return [
        Large("CIFAR-10 CNN, batch 64", spec_of(dataset=pictures, model="cnn", batch_size=64), plain_cnn, sgd),
        Large("CIFAR-10 CNN, batch 1024", spec_of(dataset=pictures, model="cnn", batch_size=1024), plain_cnn, sgd),
        Large(
            "digits MLP 64-64-10, batch 64",
            spec_of(dataset="digits", hidden=(64,), batch_size=64, optimizer="adam"),
            lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
            adam,
        ),
        Large(
            "transformer 2 × 64, context 64, batch 16",
            spec_of(dataset=text, model="transformer", width=64, batch_size=16, optimizer="adam"),
            Characters,
            adam,
        ),
    ]


def plain_cnn() -> nn.Module:
    """The textbook network for CIFAR-10."""
    pool, relu = nn.MaxPool2d(2), nn.ReLU()
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), relu, pool, nn.Conv2d(32, 32, 5, padding=2), relu, pool),
        *(nn.Conv2d(32, 64, 5, padding=2), relu, pool, nn.Flatten(), nn.Linear(1024, 64), relu, nn.Linear(64, 10)),
    )


class Characters(nn.Module):
    """A small causal transformer of torch's own blocks: pre-norm, learned positions."""

    def __init__(self, width: int = 64, context: int = 64, vocabulary: int = 65) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(context, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, x: Tensor) -> Tensor:
        x = self.token(x) + self.place[: x.shape[1]]
        return self.head(self.norm(self.blocks(x, mask=self.mask, is_causal=True)))


def ours(large: Large, executor: str) -> tuple[Block, Job]:
    """The engine's steps, recorded in a window. Raises Unsupported."""
    training = prepare_job(large.spec)
    runner, window, rate = make(training, executor), LossWindow(training.device), large.spec.learning_rate

    def block(steps: int) -> None:
        step_count = 0
        while step_count < steps:
            step_count += runner.run(window, step_count, steps - step_count, lambda _: rate)
        window.turn(0.0)

    return block, training


def plain(large: Large, training: Job, compiled: bool) -> Block:
    """The plain loop on the same resident rows, in a random order; it reads the loss every 100 steps."""
    torch.manual_seed(1)
    x, y = training.batches.x, training.batches.y  # type: ignore[attr-defined]
    model = large.model()
    if large.spec.model == "cnn":
        x = x.float() / 255
        x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    elif large.spec.model == "transformer":
        x, y = x.long()[:, :64], y.long()
    optimizer, criterion = large.optimizer(model.parameters()), nn.CrossEntropyLoss()
    called: Any = torch.compile(model) if compiled else model
    size, order, step_count = large.spec.batch_size, torch.randperm(len(x)), 0

    def block(steps: int) -> None:
        nonlocal step_count
        for _ in range(steps):
            chosen = order[step_count * size % (len(x) - size) :][:size]
            optimizer.zero_grad()
            loss = criterion(called(x[chosen]).flatten(0, -2), y[chosen].flatten())
            loss.backward()
            optimizer.step()
            step_count += 1
            if step_count % 100 == 0:
                loss.item()

    return block


def seconds(block: Block, steps: int) -> float:
    """Seconds of one step."""
    start = perf_counter()
    block(steps)
    return (perf_counter() - start) / steps


def compared(large: Large, pairs: int) -> list[Figure]:
    """One row per executor."""
    eager, training = ours(large, "eager")
    blocks = {"plain": plain(large, training, compiled=False), "eager": eager}
    unsupported = {}
    for name, build in (
        ("plain compiled", lambda: plain(large, training, compiled=True)),
        ("compile", lambda: ours(large, "compile")[0]),
        ("graph", lambda: ours(large, "graph")[0]),
    ):
        try:
            blocks[name] = build()
        except Unsupported as error:
            unsupported[name] = str(error)
    start = perf_counter()
    steps = {name: max(1, int(BLOCK_S / seconds(block, 4))) for name, block in blocks.items()}
    print(f"  ({large.name}: the first steps took {perf_counter() - start:.0f} s, compilers included)", flush=True)
    steps = {name: max(1, int(BLOCK_S / seconds(block, steps[name]))) for name, block in blocks.items()}
    rounds = []
    for turn in range(pairs):
        names = list(blocks) if turn % 2 else list(reversed(blocks))
        rounds.append({name: seconds(blocks[name], steps[name]) for name in names})
    rows = []
    for name, other, target in (
        ("eager", "plain", "≥ 1.00"),
        ("compile", "plain compiled", "≥ 1.00"),
        ("compile", "plain", ""),
        ("graph", "plain", ""),
    ):
        what = f"{large.name}: {name} against {other}"
        if name in unsupported:
            rows.append(Figure(what, f"not executed: {unsupported[name]}"))
        else:
            value = spread([times[other] / times[name] for times in rounds])
            rows.append(
                Figure(what, f"{value} at {spread([1e3 * times[name] for times in rounds], '{:.2f}')} ms", target)
            )
    return rows


def main(pairs: int = PAIRS) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for large in jobs(Path(folder)):
            show(f"Steps/s, one thread: {large.name}", compared(large, pairs))


if __name__ == "__main__":
    main()
