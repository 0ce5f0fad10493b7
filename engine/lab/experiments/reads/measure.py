"""Measures runs of a plain loop that reads the loss at several intervals, and of a loop with epochtop's loss window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.reads.schema import EVERY, Fields, LaunchTime, Operators, RunTime
from epochtop.engine.lab.instruments.clocks import repeated
from epochtop.engine.lab.instruments.jobs import PlainLoop, job_of, not_plain
from epochtop.engine.lab.instruments.sampling import Case, interleave, restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.step.window import LossWindow

ROUNDS = 4
"""Rounds of every interval; for slow steps the block of a measurement is shorter, and so are the intervals."""

ReadsCase = Case[RunTime | LaunchTime]


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `operators`, `run` (a whole run, by reading interval) and `launch` (one small operator)."""
    context.cannot_see += not_plain(context.spec)
    cases: list[ReadsCase] = []
    for device in context.devices:
        context.note(f"building the job on {device}")
        plain = PlainLoop(job_of(context.spec, device))
        yield Operators(device=device, operators=_operators(plain))
        block = _block(context, device, plain)
        cases += [_plain(context, device, plain, every, block) for every in EVERY if every <= block]
        windowed = PlainLoop(job_of(context.spec, device))
        cases += [_windowed(context, device, windowed, block), _launch(device)]
    yield from interleave(context, cases, rounds=ROUNDS)


def _block(context: ExperimentContext, device: str, loop: PlainLoop) -> int:
    """Steps of one measurement: as many as the longest interval, if there is time for them."""
    run = repeated(torch.device(device), loop.step)
    run(1)
    step_s = run(5) / 5
    block_s = context.budget_s * 0.95 / (len(context.devices) * (len(EVERY) + 1) * (ROUNDS + 0.5))
    return max(1, min(max(EVERY), round(block_s / step_s)))


def _plain(context: ExperimentContext, device: str, loop: PlainLoop, every: int, block: int) -> ReadsCase:
    """The plain loop with `.item()` every `every` steps."""
    return _case(context, device, "plain", every, _reading(loop.step, every), block)


def _reading(step: Callable[[], torch.Tensor], every: int) -> Callable[[], object]:
    count = 0

    def stepped() -> None:
        nonlocal count
        loss = step()
        count += 1
        if every and count % every == 0:
            loss.item()

    return stepped


def _windowed(context: ExperimentContext, device: str, loop: PlainLoop, block: int) -> ReadsCase:
    """The same loop with every loss recorded in epochtop's window, which is read once per refresh."""
    window, step = LossWindow(torch.device(device)), loop.step
    refresh_s = context.spec.refresh_ms / 1000
    due = perf_counter() + refresh_s

    def stepped() -> None:
        nonlocal due
        window.record(step())
        if perf_counter() >= due:
            window.turn(0.0)
            due = perf_counter() + refresh_s

    return _case(context, device, "epochtop", 0, stepped, block)


def _case(
    context: ExperimentContext, device: str, loop: str, every: int, stepped: Callable[[], object], block: int
) -> ReadsCase:
    assert isinstance(context.fields, Fields)
    record = partial(_run_time, device, loop, every, context.fields.steps)
    return Case(record, repeated(torch.device(device), stepped), most=block, least=block)


def _run_time(device: str, loop: str, every: int, steps: int, *, seconds: float, **turn: Any) -> RunTime:
    """The row of a whole run, from the seconds of a step; `turn` has `round` and `repeats`."""
    return RunTime(
        device=device,
        loop=loop,
        every=every,
        seconds=seconds * steps,
        steps=steps,
        reads=steps // every if every else 0,
        **turn,
    )


def _launch(device: str) -> ReadsCase:
    """One operator with nothing to compute, enqueued without a wait: the cost of a launch."""
    one = torch.ones(1, device=device)
    return Case(partial(LaunchTime, device=device), repeated(one.device, lambda: one.mul_(1.0)), 2000)


class _Counter(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def _operators(loop: PlainLoop) -> int:
    """Operators that a step of the plain loop calls, forward, backward and update."""
    counter = _Counter()  # type: ignore[no-untyped-call]
    with counter:
        loop.step()
    return counter.count
