"""Measures steps of one run with a read, without one, and with epochtop's loss window, and the parts of a read."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.reads.blocks import Alternation, TimedReads, item, nothing
from epochtop.engine.lab.experiments.reads.schema import Fields, LaunchTime, Operators, ReadTime, RunTime
from epochtop.engine.lab.instruments.clocks import elapsed, repeated, wait_for
from epochtop.engine.lab.instruments.jobs import PlainLoop, job_of, not_plain
from epochtop.engine.lab.instruments.sampling import restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.step.window import LossWindow

BLOCK_S, LONGEST_BLOCK_S = 0.02, 0.1
"""Length of a block. Longer ones resolve more, and are used if there is time for ROUNDS of them."""
ROUNDS = 60
CALLS, TIMES = 25, 9
"""Reads of a ready loss in a row, and launches of an operator; a block has the median of several such rows."""

KINDS = {"none": ("plain", 0), "read": ("plain", 1), "window": ("epochtop", 0)}
"""Kinds of steps whose times are rows: the loop, and the steps from one read to the next."""


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `operators`, `run` (a whole run, from a block), `read` (parts of a read) and `launch`."""
    context.cannot_see += not_plain(context.spec)
    for device in context.devices:
        context.note(f"building the job on {device}")
        loop = PlainLoop(job_of(context.spec, device))
        yield Operators(device=device, operators=_operators(loop))
        context.note(f"alternating steps with and without reads on {device}")
        yield from _blocks(context.after_setup(), torch.device(device), loop)


def _blocks(context: ExperimentContext, device: torch.device, loop: PlainLoop) -> Iterator[Measurement]:
    assert isinstance(context.fields, Fields)
    total, name = context.fields.steps, str(device)
    reads = TimedReads(None if device.type == "cpu" else partial(wait_for, device))
    step_s = _step_s(device, loop.step)
    steps = 1 if reads.wait is None else max(1, min(1000, round(BLOCK_S / step_s)))
    alternation = Alternation(_kinds(context, device, loop, reads), partial(wait_for, device), steps)
    alone, launch = _alone(device), _launch(device)
    alternation.block(0.0)
    reads.medians()
    seconds = context.share_s(name)
    end = perf_counter() + seconds
    block_s = min(LONGEST_BLOCK_S, max(BLOCK_S, seconds / ROUNDS))
    for turn in range(ROUNDS):
        context.check()
        if turn and perf_counter() > end:
            return
        times = alternation.block(block_s)
        for kind, (loop_name, every) in KINDS.items():
            once_s, repeats = times[kind]
            yield RunTime(
                device=name, loop=loop_name, every=every, round=turn, repeats=repeats,
                seconds=once_s * total, steps=total, reads=total if every else 0,
            )  # fmt: skip
        for part, (once_s, repeats) in reads.medians().items():
            if part in ("call", "wait", "clock"):
                yield ReadTime(device=name, part=part, round=turn, repeats=repeats, seconds=once_s)
        yield ReadTime(device=name, part="alone", round=turn, repeats=CALLS * TIMES, seconds=_median_s(alone))
        yield LaunchTime(device=name, round=turn, repeats=CALLS * TIMES, seconds=_median_s(launch))


def _kinds(
    context: ExperimentContext, device: torch.device, loop: PlainLoop, reads: TimedReads
) -> dict[str, Callable[[], object]]:
    """The kinds of steps. All but `apart`, which separates waiting from the call, are timed in the same way."""
    read = "call" if reads.wait is None else "read"
    kinds = {
        "none": reads.after(loop.step, "clock", nothing),
        "read": reads.after(loop.step, read, item),
        "window": reads.after(loop.step, "window", _recording(context, device)),
    }
    return kinds if reads.wait is None else {**kinds, "apart": reads.apart(loop.step)}


def _recording(context: ExperimentContext, device: torch.device) -> Callable[[torch.Tensor], object]:
    """Records a loss in epochtop's window, which is read once per refresh."""
    window, refresh_s = LossWindow(device), context.spec.refresh_ms / 1000
    due = perf_counter() + refresh_s

    def record(loss: torch.Tensor) -> None:
        nonlocal due
        window.record(loss)
        if perf_counter() >= due:
            window.turn(0.0)
            due = perf_counter() + refresh_s

    return record


def _step_s(device: torch.device, step: Callable[[], object]) -> float:
    run = repeated(device, step)
    run(2)
    return run(5) / 5


def _alone(device: torch.device) -> Callable[[int], float]:
    """Reads of a loss that is ready, one after the other."""
    loss = torch.ones((), device=device)
    return elapsed(device, lambda: loss.item())


def _launch(device: torch.device) -> Callable[[int], float]:
    """Operators with nothing to compute, enqueued without a wait: the cost of a launch."""
    one = torch.ones(1, device=device)
    return elapsed(device, lambda: one.mul_(1.0))


def _median_s(run: Callable[[int], float]) -> float:
    """Seconds of one repetition."""
    return statistics.median(run(CALLS) for _ in range(TIMES)) / CALLS


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
