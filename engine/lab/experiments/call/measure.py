"""Counts hooks, and measures calls of modules and steps of the job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.modules.module import register_module_forward_hook

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.call.schema import (
    CALL,
    FORWARD,
    FUNCTION,
    HOOKED,
    HOOKED_FORWARD,
    CallTime,
    HookCounts,
    ModuleCalls,
    StepTime,
)
from epochtop.engine.lab.instruments.clocks import repeated, undisturbed
from epochtop.engine.lab.instruments.jobs import PlainLoop, job_of, not_plain
from epochtop.engine.lab.instruments.sampling import Case, Run, interleave, restores_threads
from epochtop.engine.lab.measurements import Measurement
from epochtop.engine.step.fast_path import HOOKS

CALLS = 100
"""Calls in which hooks are counted."""

AnyCase = Case[CallTime | StepTime]


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `hooks` (counted), `modules` (calls per step, counted), `call` and `step` (timed)."""
    context.cannot_see += not_plain(context.spec)
    yield from _hook_counts()
    cases: list[AnyCase] = list(_calls())
    for device in context.devices:
        yield from _job(context, device, cases)
    context.note("calling modules")
    yield from interleave(context.after_setup(), cases)


class _Logging(nn.Module):
    """A module that logs its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        self.log.append("forward")
        return x


def _hook_counts() -> Iterator[HookCounts]:
    """The hooks of a module that run, and their order, by the way in which it is called."""
    model, x = _Logging(), torch.ones(1)
    model.register_forward_pre_hook(lambda *_: model.log.append("hook before"))
    model.register_forward_hook(lambda *_: model.log.append("hook after"))
    ways: dict[str, Callable[[Tensor], Tensor]] = {CALL: model, FORWARD: model.forward}
    for way, call in ways.items():
        model.log.clear()
        for _ in range(CALLS):
            call(x)
        yield HookCounts(
            way=way,
            calls=CALLS,
            order=", ".join(dict.fromkeys(model.log)),
            hook_before=model.log.count("hook before"),
            forward=model.log.count("forward"),
            hook_after=model.log.count("hook after"),
        )


def _calls() -> Iterator[AnyCase]:
    """On the host: a module that does nothing, with and without a hook, and one that multiplies 4 numbers."""
    x = torch.ones(1, 4)
    empty, hooked, layer = nn.Identity(), nn.Identity(), nn.Linear(4, 4)
    hooked.register_forward_hook(lambda *_: None)
    for name, way, run in (
        ("empty", CALL, _calling(empty, x)),
        ("empty", FORWARD, _forwarding(empty, x)),
        ("empty", HOOKED, _calling(hooked, x)),
        ("empty", HOOKED_FORWARD, _forwarding(hooked, x)),
        ("linear", CALL, _calling(layer, x)),
        ("linear", FORWARD, _forwarding(layer, x)),
        ("linear", FUNCTION, _function(layer, x)),
    ):
        yield Case(partial(CallTime, module=name, way=way), undisturbed(run))


def _calling(model: nn.Module, x: Tensor) -> Run:
    def run(times: int) -> float:
        start = perf_counter()
        for _ in range(times):
            model(x)
        return perf_counter() - start

    return run


def _forwarding(model: nn.Module, x: Tensor) -> Run:
    def run(times: int) -> float:
        start = perf_counter()
        for _ in range(times):
            model.forward(x)
        return perf_counter() - start

    return run


def _function(model: nn.Linear, x: Tensor) -> Run:
    weight, bias = model.weight, model.bias

    def run(times: int) -> float:
        start = perf_counter()
        for _ in range(times):
            linear(x, weight, bias)
        return perf_counter() - start

    return run


# --- of the job --------------------------------------------------------------------------------------------------


def _job(context: ExperimentContext, device: str, cases: list[AnyCase]) -> Iterator[ModuleCalls]:
    """Calls in a step of the plain loop and of the engine; adds the steps to be timed to `cases`."""
    context.note(f"building the job on {device}")
    job = job_of(context.spec, device)
    plain = PlainLoop(job)
    for loop, step in (("plain", plain.step), ("epochtop", job.step)):
        context.check()
        yield ModuleCalls(device=device, loop=loop, calls=called(step))
    cases.append(_steps(device, CALL, plain))
    if has_hooks(plain.model):
        context.cannot_see.append(f"the step on {device} without `__call__`: the job's model has hooks of its own")
    else:
        cases.append(_steps(device, FORWARD, plain))


def called(step: Callable[[], object]) -> int:
    """Modules that are called, through `__call__`, in one step."""
    count = 0

    def counting(*_: Any) -> None:
        nonlocal count
        count += 1

    handle = register_module_forward_hook(counting)
    try:
        step()
    finally:
        handle.remove()
    return count


def has_hooks(model: nn.Module) -> bool:
    """Whether any of its modules has a hook, which a direct call of `forward` would not run."""
    return any(getattr(part, name, None) for part in model.modules() for name in HOOKS)


def _steps(device: str, way: str, plain: PlainLoop) -> AnyCase:
    run = repeated(torch.device(device), plain.step)

    def directly(times: int) -> float:
        module: Any = nn.Module
        original = module.__call__
        module.__call__ = lambda self, *inputs, **named: self.forward(*inputs, **named)
        try:
            return run(times)
        finally:
            module.__call__ = original

    return Case(partial(StepTime, device=device, way=way), run if way == CALL else directly)
