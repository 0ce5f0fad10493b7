"""What calling a module does beside its `forward`: `model(x)` against `model.forward(x)`.

`nn.Module.__call__` looks for hooks, runs those it finds, and calls `forward` between them. Which hooks ran is counted;
what that costs is timed on modules that do almost nothing, and laid beside a whole step of the job. All of it is work of
the host, in Python, whatever the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, too_few
from epochtop.engine.lab.instruments.sampling import Case, interleave, threads_kept
from epochtop.engine.lab.statistics import (
    Difference,
    Figure,
    difference,
    gap,
    grouped,
    quantity,
    quartiles_apart,
    select,
    values,
    with_spread,
)
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from epochtop.engine.lab.instruments.jobs import PlainLoop

CALLS = 100
"""Calls in which hooks are counted."""
CALL, FORWARD, FUNCTION, HOOKED, HOOKED_FORWARD = (
    "model(x)",
    "model.forward(x)",
    "function(x)",
    "model(x) + hook",
    "model.forward(x) + hook",
)
MUCH = 0.05
"""Share of a step from which calls are worth a thought."""


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` hooks (counted), modules (calls a step, counted), call and step (timed)."""
    from epochtop.engine.lab.instruments.jobs import not_plain

    bench.cannot_see += not_plain(bench.spec)
    yield from _hooks()
    cases = list(_calls())
    for device in bench.devices:
        yield from _job(bench, device, cases)
    bench.say("calling modules")
    yield from interleave(bench, cases)


def _hooks() -> Iterator[Row]:
    """Which of a module's hooks run, and in which order, by the way in which it is called."""
    import torch
    from torch import nn

    seen: list[str] = []

    class Noting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append("forward")
            return x

    model, x = Noting(), torch.ones(1)
    model.register_forward_pre_hook(lambda *_: seen.append("hook before"))
    model.register_forward_hook(lambda *_: seen.append("hook after"))
    ways: dict[str, Callable[[Tensor], Tensor]] = {CALL: model, FORWARD: model.forward}
    for way, call in ways.items():
        seen.clear()
        for _ in range(CALLS):
            call(x)
        ran = {name: seen.count(name) for name in ("hook before", "forward", "hook after")}
        order = ", ".join(dict.fromkeys(seen))
        yield {"kind": "hooks", "way": way, "calls": CALLS, "order": order, **_columns(ran)}


def _columns(ran: dict[str, int]) -> Row:
    return {name.replace(" ", "_"): count for name, count in ran.items()}


def _calls() -> Iterator[Case]:
    """A module that does nothing, without and with a hook, and one that multiplies 4 numbers, on the host."""
    import torch
    from torch import nn

    x = torch.ones(1, 4)
    empty, hooked, linear = nn.Identity(), nn.Identity(), nn.Linear(4, 4)
    hooked.register_forward_hook(lambda *_: None)
    for name, way, run in (
        ("empty", CALL, _calling(empty, x)),
        ("empty", FORWARD, _forwarding(empty, x)),
        ("empty", HOOKED, _calling(hooked, x)),
        ("empty", HOOKED_FORWARD, _forwarding(hooked, x)),
        ("linear", CALL, _calling(linear, x)),
        ("linear", FORWARD, _forwarding(linear, x)),
        ("linear", FUNCTION, _function(linear, x)),
    ):
        yield Case({"kind": "call", "module": name, "way": way}, run)


def _calling(model: nn.Module, x: Tensor) -> Callable[[int], float]:
    def run(times: int) -> float:
        begun = perf_counter()
        for _ in range(times):
            model(x)
        return perf_counter() - begun

    return run


def _forwarding(model: nn.Module, x: Tensor) -> Callable[[int], float]:
    def run(times: int) -> float:
        begun = perf_counter()
        for _ in range(times):
            model.forward(x)
        return perf_counter() - begun

    return run


def _function(model: nn.Linear, x: Tensor) -> Callable[[int], float]:
    from torch.nn.functional import linear

    weight, bias = model.weight, model.bias

    def run(times: int) -> float:
        begun = perf_counter()
        for _ in range(times):
            linear(x, weight, bias)
        return perf_counter() - begun

    return run


# --- of the job --------------------------------------------------------------------------------------------------


def _job(bench: ExperimentContext, device: str, cases: list[Case]) -> Iterator[Row]:
    """Counts calls in its step, by the plain loop and by the engine's; adds what is to be timed to `cases`."""
    from epochtop.engine.lab.instruments.jobs import PlainLoop, job_of

    bench.say(f"building the job on {device}")
    job = job_of(bench.spec, device)
    plain = PlainLoop(job)
    for loop, step in (("plain", plain.step), ("epochtop", job.step)):
        bench.check()
        yield {"kind": "modules", "device": device, "loop": loop, "calls": called(step)}
    cases.append(_stepping(device, CALL, plain))
    if hooked(plain.model):
        bench.cannot_see.append(
            f"the job's model has hooks of its own, so that its step on {device} was not timed without"
        )
    else:
        cases.append(_stepping(device, FORWARD, plain))


def called(step: Callable[[], object]) -> int:
    """Modules that are called, by `__call__`, in one step."""
    from torch.nn.modules.module import register_module_forward_hook

    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1

    handle = register_module_forward_hook(note)
    try:
        step()
    finally:
        handle.remove()
    return count


def hooked(model: nn.Module) -> bool:
    """Whether any of its modules has a hook, which a direct call of `forward` would leave out."""
    from epochtop.engine.step.fast_path import HOOKS

    return any(getattr(part, name, None) for part in model.modules() for name in HOOKS)


def _stepping(device: str, way: str, plain: PlainLoop) -> Case:
    import torch
    from torch import nn

    from epochtop.engine.lab.instruments.clocks import repeated

    run = repeated(torch.device(device), plain.step)

    def directly(times: int) -> float:
        module: Any = nn.Module
        before = module.__call__
        module.__call__ = lambda self, *inputs, **named: self.forward(*inputs, **named)
        try:
            return run(times)
        finally:
            module.__call__ = before

    return Case({"kind": "step", "device": device, "way": way}, run if way == CALL else directly)


# --- concluding --------------------------------------------------------------------------------------------------


def conclude(found: Findings) -> Verdict:
    """What a call does and costs beside forward, and how much of the job's step that is."""
    calls = _Calls(found.rows)
    if calls.against is None or calls.more is None:
        return too_few(f"{CALL} and {FORWARD} in the same round")
    shares = [share for device in found.devices if (share := _Share.of(found.rows, device, calls)) is not None]
    much = bool(shares) and shares[-1].share >= MUCH
    return Verdict(
        finding=calls.finding() + (shares[-1].finding() if shares else ""),
        evidence=(*calls.evidence(), *(line for share in shares for line in share.evidence())),
        next_step=_next_step(calls, much),
        uncertainty=calls.uncertainty(),
    )


class _Calls:
    """What the ways of calling take, and which hooks they run."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._calls = select(rows, kind="call")
        self._hooks = {str(row.get("way")): row for row in select(rows, kind="hooks")}
        self.against: Difference | None = difference(self._of("empty", CALL), self._of("empty", FORWARD))
        self.more: Figure | None = gap(self._of("empty", CALL), self._of("empty", FORWARD))

    def _of(self, module: str, way: str) -> list[Row]:
        return select(self._calls, module=module, way=way)

    @property
    def distinct(self) -> bool:
        return self.against is not None and self.against.distinct

    def finding(self) -> str:
        assert self.more is not None
        ran = self._hooks.get(CALL), self._hooks.get(FORWARD)
        counted = ""
        if ran[0] and ran[1]:
            counted = (
                f"; hooks ran in {ran[0]['hook_after']} of {ran[0]['calls']} calls of {CALL} and in "
                f"{ran[1]['hook_after']} of {ran[1]['calls']} of {FORWARD}"
            )
        if not self.distinct:
            return f"no difference in time between {CALL} and {FORWARD}{counted}"
        longer = "longer" if self.more.median > 0 else "less long"
        return f"{CALL} takes {quantity(abs(self.more.median), 's')} {longer} than {FORWARD}{counted}"

    def evidence(self) -> list[str]:
        lines = [f"{way} runs, in this order: {row.get('order')}" for way, row in self._hooks.items()]
        for module in ("empty", "linear"):
            times = grouped(select(self._calls, module=module), ("way",), "seconds")
            told = [f"{way} {with_spread(taken)}" for (way,), taken in times.items()]
            if told:
                lines.append(f"{_MODULES[module]}: {', '.join(told)}")
            lines += [
                f"{_MODULES[module]}: {found.words(first, second)}"
                for first, second in ((CALL, FORWARD), (HOOKED, CALL), (HOOKED_FORWARD, FORWARD), (FORWARD, FUNCTION))
                if (found := difference(self._of(module, first), self._of(module, second))) is not None
            ]
        return lines

    def uncertainty(self) -> str:
        times = grouped(self._calls, ("module", "way"), "seconds").values()
        return (
            f"{quartiles_apart('times of one way', times)}; the cost is Python's, so that another version of it or of torch "
            "has another one; within a step a call may take longer than in a loop of nothing else, and what a hook itself "
            "does comes on top"
        )


class _Share:
    """Of one device: the part of a step of the plain loop that calls of modules make up."""

    def __init__(self, rows: Sequence[Row], device: str, calls: int, step: Figure, more: Figure) -> None:
        self._rows, self._device, self._calls, self._step, self._more = rows, device, calls, step, more
        steps = select(rows, kind="step")
        self._without = difference(select(steps, way=FORWARD), select(steps, way=CALL))

    @classmethod
    def of(cls, rows: Sequence[Row], device: str, calls: _Calls) -> _Share | None:
        mine = select(rows, device=device)
        counted = values(select(mine, kind="modules", loop="plain"), "calls")
        step = grouped(select(mine, kind="step", way=CALL), ("way",), "seconds").get((CALL,))
        if not counted or step is None or not step.median or calls.more is None or not calls.distinct:
            return None
        return cls(mine, device, int(counted[0]), step, calls.more)

    @property
    def counted(self) -> float:
        """Number of calls × what one takes on a module that does nothing."""
        return max(0.0, self._calls * self._more.median / self._step.median)

    @property
    def share(self) -> float:
        """What is saved by leaving calls out where that can be seen, else what counting them gives."""
        seen = self._without is not None and self._without.distinct and self._without.ratio.median < 1
        return 1 - self._without.ratio.median if seen and self._without is not None else self.counted

    def finding(self) -> str:
        how = "by count" if self.share == self.counted else "measured by leaving them out"
        return f"; the {self._calls:,} calls in a step of this job on {self._device} are {self.share:.2%} of its time, {how}"

    def evidence(self) -> list[str]:
        each, all_of_them = quantity(self._more.median, "s"), quantity(self._calls * self._more.median, "s")
        step = f"a plain step calls {self._calls:,} modules and takes {with_spread(self._step)}"
        lines = [f"{self._device}: {step}; {self._calls:,} × {each} = {all_of_them}, {self.counted:.2%}"]
        if self._without is not None:
            words = self._without.words("a plain step with every call a forward", "one as it is")
            lines.append(f"{self._device}: {words}")
        ours = values(select(self._rows, kind="modules", loop="epochtop"), "calls")
        if ours:
            lines.append(
                f"{self._device}: epochtop's own step calls {int(ours[0]):,} modules that way; layers of a plain sequence "
                "without hooks it calls directly"
            )
        return lines


def _next_step(calls: _Calls, much: bool) -> str:
    if not calls.distinct:
        return f"write {CALL}: {FORWARD} leaves hooks out and gains nothing that can be seen"
    if much:
        return (
            f"write {CALL} all the same, since {FORWARD} leaves hooks out; where so many small modules are called, a "
            "recorded step calls none: `epochtop lab executors` measures that"
        )
    return f"write {CALL}: {FORWARD} leaves hooks out, and what it would gain is next to nothing of a step"


_MODULES = {"empty": "a module that does nothing", "linear": "a linear layer of 4 numbers"}

EXPERIMENT = Experiment(
    name="call",
    title="What model(x) does beside model.forward(x)",
    measures="which hooks run by `model(x)` and by `model.forward(x)`, counted; the time of both, with and without a hook, "
    "and of the function beneath, on modules that do almost nothing; a step of the job with and without `__call__`",
    why="`model(x)` goes through `nn.Module.__call__`, which runs hooks around `forward`; any object with `__call__` can be "
    "called like a function. `model.forward(x)` is a little faster, and whatever relies on hooks silently does not happen",
    reading="the distance between a bar of `model(x)` and its `model.forward(x)` is what `__call__` takes; a hook adds to "
    "the first and not to the second, which leaves it out",
    pictures=(
        Picture(
            title="Time of a call",
            kind="bars",
            y="seconds",
            series=("module", "way"),
            unit="s",
            where={"kind": "call"},
        ),
        Picture(
            title="Time of a step of the job, by how modules are called",
            kind="bars",
            y="seconds",
            series=("device", "way"),
            unit="s",
            where={"kind": "step"},
        ),
    ),
    measure=measure,
    conclude=conclude,
    job=RunSpec(),
)
