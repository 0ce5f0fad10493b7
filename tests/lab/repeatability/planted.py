"""One quick experiment with a planted truth: `python -m tests.lab.repeatability.planted reads` prints it as JSON.

reads: every `loss.item()` takes 5 µs, by a busy wait. loader: rows on the device take 200 µs more per batch. threads: a step
on the last number of threads takes 10 % longer than on one thread, and both run on one thread.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import msgspec
import torch

from epochtop.engine.lab.catalog import find
from epochtop.engine.lab.experiment import ExperimentContext, Findings
from epochtop.engine.lab.experiments import measurement_of
from epochtop.engine.lab.experiments.loader import sources
from epochtop.engine.lab.experiments.threads import measure as threads
from epochtop.engine.lab.instruments.sampling import Run
from epochtop.engine.process.experiment import QUICK_S
from epochtop.engine.protocol.spec import RunSpec

READ_S, BATCH_S, SLOWDOWN = 5e-6, 200e-6, 1.10
CALL_S = 0.7e-6
"""The most that calling the planted read and its clock adds to a read."""

Truth = dict[str, tuple[float, float]]


def wait_until(end: float) -> None:
    """Keep the CPU busy until then."""
    while perf_counter() < end:
        pass


@contextmanager
def slow_reads() -> Iterator[Truth]:
    """Reads that take READ_S in all."""
    original = torch.Tensor.item

    def item(self: torch.Tensor) -> Any:
        end = perf_counter() + READ_S
        value = original(self)
        wait_until(end)
        return value

    torch.Tensor.item = item  # type: ignore[assignment, method-assign]
    try:
        yield {"cost of a read": (READ_S, READ_S + CALL_S)}
    finally:
        torch.Tensor.item = original  # type: ignore[method-assign]


@contextmanager
def slow_batches() -> Iterator[Truth]:
    """Resident rows that are one batch, BATCH_S later."""
    original = sources.engine_sources

    def engine_sources(job: Any) -> list[sources.Source]:
        first = sources.same_batch(job)

        def opened() -> AbstractContextManager[Any]:
            return _delayed(first.open())

        return [sources.Source("resident", opened), *(one for one in original(job) if one.name != "resident")]

    sources.engine_sources = engine_sources
    try:
        yield {"wait for rows": (BATCH_S, BATCH_S * 1.02)}
    finally:
        sources.engine_sources = original


@contextmanager
def _delayed(source: AbstractContextManager[Any]) -> Iterator[Callable[[], Any]]:
    with source as next_batch:

        def late() -> Any:
            end = perf_counter() + BATCH_S
            batch = next_batch()
            wait_until(end)
            return batch

        yield late


@contextmanager
def slow_threads() -> Iterator[Truth]:
    """Steps on one thread whatever is asked for; with more than one asked for, SLOWDOWN times as long."""
    original = threads.on_threads
    last = threads.counts(threads.usable_cpus())[-1]

    def on_threads(number: int, run: Run) -> Run:
        def slowed(times: int) -> float:
            return run(times) * SLOWDOWN

        return original(1, run if number == 1 else slowed)

    threads.on_threads = on_threads
    try:
        yield {f"time on {last} threads relative to 1": (SLOWDOWN, SLOWDOWN)}
    finally:
        threads.on_threads = original


PLANTED: dict[str, Callable[[], AbstractContextManager[Truth]]] = {
    "reads": slow_reads,
    "loader": slow_batches,
    "threads": slow_threads,
}


def main(name: str) -> None:
    """Run the experiment and print its verdict and the truth."""
    experiment = find(name)
    with TemporaryDirectory() as folder, PLANTED[name]() as truth:
        context = ExperimentContext(
            fields=experiment.fields(),
            spec=msgspec.structs.replace(experiment.job or RunSpec(), device="cpu"),
            devices=("cpu",),
            budget_s=QUICK_S,
            folder=Path(folder),
            quick=True,
        )
        rows = list(measurement_of(name)(context))
        verdict = experiment.conclude(Findings(rows, context.fields, context.spec, context.devices))
    print(json.dumps({"verdict": msgspec.to_builtins(verdict), "truth": truth}))


if __name__ == "__main__":
    main(sys.argv[1])
