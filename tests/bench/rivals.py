"""The Iris job (4-10-3, SGD 0.01, full batch, every loss losses) as other trainers run it, each in a separate process.

`python -m tests.bench.rivals NAME` reads one number of epochs per line and answers with one JSON object: the seconds of the
training, the seconds of its loop, and its last loss. The first answer includes one-time costs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

DEVICE = os.environ.get("EPOCHTOP_BENCH_DEVICE", "cpu")
"""Device of torch and the engine; the other trainers choose their own."""

Answer = tuple[float, float, float]
"""Seconds in total, seconds in the loop, last loss."""
Train = Callable[[int], Answer]


def _plain(every: int) -> Train:
    """The usual training loop. It reads the loss every `every` epochs; 0 never reads it."""
    import torch
    from torch import nn

    from tests.support.plain_loop import rows

    torch.set_num_threads(1)
    data = rows("iris")
    x, y = data.x.to(DEVICE), data.y.to(DEVICE)

    def train(epochs: int) -> Answer:
        start = perf_counter()
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3)).to(DEVICE)
        criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.01)
        losses = []
        loop_start = perf_counter()
        for epoch in range(epochs):
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if every and epoch % every == 0:
                losses.append(loss.item())
        last = float(loss)  # waits for the last epoch
        end_s = perf_counter()
        return end_s - start, end_s - loop_start, last

    return train


def _epochtop(executor: str, fresh: bool = False) -> Train:
    """A whole run of the engine: rows, model, losses recorded on disk, evaluation, checkpoints."""
    import torch

    from epochtop.engine.protocol.spec import RunSpec
    from tests.support.engines import finished, train_here

    torch.set_num_threads(1)

    def train(epochs: int) -> Answer:
        with tempfile.TemporaryDirectory() as folder:
            if fresh:
                os.environ["EPOCHTOP_CACHE"] = f"{folder}/cache"
            spec = RunSpec(threads=1, device=DEVICE, epochs=epochs, executor=executor)  # type: ignore[arg-type]
            start = perf_counter()
            run = train_here(spec, Path(folder))
            elapsed_s = perf_counter() - start
            end = finished(run)
        return elapsed_s, end.seconds, float(end.final_loss or 0)

    return train


def _scikit_learn() -> Train:
    """`MLPClassifier`, which keeps its loss curve too."""
    from sklearn.neural_network import MLPClassifier

    from tests.support.plain_loop import rows

    data = rows("iris")
    x, y = data.x.numpy(), data.y.numpy()

    def train(epochs: int) -> Answer:
        model = MLPClassifier(
            (10,), solver="sgd", learning_rate_init=0.01, momentum=0, nesterovs_momentum=False, alpha=0,
            batch_size=len(x), max_iter=epochs, n_iter_no_change=epochs + 1, tol=0, shuffle=False, random_state=1,
        )  # fmt: skip
        start = perf_counter()
        model.fit(x, y)
        elapsed_s = perf_counter() - start
        return elapsed_s, elapsed_s, model.loss_curve_[-1]

    return train


def _jax() -> Train:
    """`lax.scan` over the epochs: one program that returns all losses."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from tests.support.plain_loop import rows

    data = rows("iris")
    x, y = jnp.asarray(data.x.numpy()), jnp.asarray(data.y.numpy())
    chance = np.random.default_rng(1)

    def layer(wide: int, narrow: int) -> Any:
        bound = wide**-0.5
        return (
            jnp.asarray(chance.uniform(-bound, bound, (wide, narrow)), jnp.float32),
            jnp.asarray(chance.uniform(-bound, bound, narrow), jnp.float32),
        )

    def loss(weights: Any) -> Any:
        (w1, b1), (w2, b2) = weights
        output = jax.nn.relu(x @ w1 + b1) @ w2 + b2
        return -jnp.mean(jax.nn.log_softmax(output)[jnp.arange(len(y)), y])

    def step(weights: Any, _: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(weights)
        return jax.tree.map(lambda w, g: w - 0.01 * g, weights, gradients), value

    programs: dict[int, Any] = {}

    def train(epochs: int) -> Answer:
        start = perf_counter()
        weights = (layer(4, 10), layer(10, 3))
        if epochs not in programs:
            programs[epochs] = jax.jit(lambda w: jax.lax.scan(step, w, None, epochs)).lower(weights).compile()
        loop_start = perf_counter()
        _, losses = programs[epochs](weights)
        losses = np.asarray(losses)
        end_s = perf_counter()
        return end_s - start, end_s - loop_start, float(losses[-1])

    return train


def _keras() -> Train:
    """`fit` with the torch backend."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch

    from tests.support.plain_loop import rows

    torch.set_num_threads(1)
    data = rows("iris")

    def train(epochs: int) -> Answer:
        start = perf_counter()
        model = keras.Sequential([keras.layers.Dense(10, activation="relu"), keras.layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01), loss)
        loop_start = perf_counter()
        history = model.fit(data.x.numpy(), data.y.numpy(), batch_size=120, epochs=epochs, shuffle=False, verbose=0)
        end_s = perf_counter()
        return end_s - start, end_s - loop_start, history.history["loss"][-1]

    return train


def _lightning() -> Train:
    """`Trainer.fit` without progress bar, logger and checkpoints."""
    import logging

    import lightning
    import torch
    from torch import nn

    from tests.support.plain_loop import rows

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    data = rows("iris")

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
            self.losses: list[torch.Tensor] = []

        def training_step(self, batch: Any, _: int) -> Any:
            loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
            self.losses.append(loss.detach())
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    def train(epochs: int) -> Answer:
        start = perf_counter()
        model = Net()
        loader = torch.utils.data.DataLoader([(data.x, data.y)], batch_size=None)
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, logger=False,
            enable_checkpointing=False, enable_model_summary=False,
        )  # fmt: skip
        loop_start = perf_counter()
        trainer.fit(model, loader)
        end_s = perf_counter()
        return end_s - start, end_s - loop_start, float(model.losses[-1])

    return train


def _skorch() -> Train:
    """`NeuralNetClassifier.fit`, silent and without validation."""
    import skorch
    import torch
    from torch import nn

    from tests.support.plain_loop import rows

    torch.set_num_threads(1)
    data = rows("iris")

    def train(epochs: int) -> Answer:
        start = perf_counter()
        net = skorch.NeuralNetClassifier(
            nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3)), criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD, lr=0.01, batch_size=-1, max_epochs=epochs, train_split=None, verbose=0,
        )  # fmt: skip
        loop_start = perf_counter()
        net.fit(data.x.numpy(), data.y.numpy())
        end_s = perf_counter()
        return end_s - start, end_s - loop_start, net.history[-1, "train_loss"]

    return train


def _c() -> Train:
    """The same arithmetic as a plain C loop, for comparison."""
    from tests.bench import floor

    return floor.train


RIVALS: dict[str, Callable[[], Train]] = {
    "epochtop eager": lambda: _epochtop("eager"),
    "epochtop graph": lambda: _epochtop("graph"),
    "epochtop compile": lambda: _epochtop("compile"),
    "epochtop auto": lambda: _epochtop("auto"),
    "epochtop auto, empty cache": lambda: _epochtop("auto", fresh=True),
    "plain loop, .item() each epoch": lambda: _plain(1),
    "plain loop, .item() every 100": lambda: _plain(100),
    "plain loop, no read": lambda: _plain(0),
    "scikit-learn MLPClassifier": _scikit_learn,
    "JAX lax.scan": _jax,
    "Keras on torch": _keras,
    "Lightning": _lightning,
    "skorch": _skorch,
    "C loop": _c,
}


def main(name: str) -> None:
    """Answer requests for the trainer called `name`."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        train = RIVALS[name]()
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        total, loop, loss = train(int(line))
        print(json.dumps({"total": total, "loop": loop, "loss": loss}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
