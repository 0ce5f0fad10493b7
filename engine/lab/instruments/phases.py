"""The parts of a step, measured: its phases by the clock, its operators by replaying them alone.

Operators are replayed in order, below autograd: once with the tensors of a real step, and once with tensors of one
element. The second time is the cost of launching them; the difference is the cost of computing. The rest of the step is
Python, autograd and the code around the operators.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from epochtop.engine.job.job import Job
from epochtop.engine.lab.instruments.clocks import wait_for
from epochtop.engine.lab.instruments.reads import Reads
from epochtop.engine.models.nested import mapped, tensors_of
from epochtop.engine.step.batches import Batch, Batches
from epochtop.engine.step.step import Step, make_step
from epochtop.engine.step.window import LossWindow

# --- phases ------------------------------------------------------------------------------------------------------


class PhaseClock:
    """Seconds of the steps in each phase: `input`, `work` and `read`. The cost of the clock itself is subtracted."""

    def __init__(self) -> None:
        self.phase = "work"
        self.on_phase: Callable[[str], object] | None = None
        self._clear()
        self._cost_s = self._calibrated()

    def _clear(self) -> None:
        self._seconds = {"input": 0.0, "work": 0.0, "read": 0.0}
        self._times = dict.fromkeys(self._seconds, 0)
        self._since = perf_counter()

    def to(self, phase: str) -> None:
        """Start `phase`."""
        now = perf_counter()
        self._seconds[self.phase] += now - self._since
        self._times[self.phase] += 1
        self._since, self.phase = now, phase
        if self.on_phase is not None:
            self.on_phase(phase)

    def _calibrated(self, times: int = 2000, tries: int = 5) -> float:
        """Seconds of one change of phase."""
        costs_s = []
        for _ in range(tries):
            start = perf_counter()
            for _ in range(times):
                self.to("work")
            costs_s.append((perf_counter() - start) / times)
        return min(costs_s)

    def measure(self, work: Callable[[], object]) -> dict[str, float]:
        """Seconds in each phase while `work` runs."""
        self._clear()
        work()
        self.to(self.phase)
        return {name: max(0.0, total - self._times[name] * self._cost_s) for name, total in self._seconds.items()}


class TimedBatches(Batches):
    """Batches that are a phase of their own."""

    def __init__(self, batches: Batches, clock: PhaseClock) -> None:
        self._batches, self._clock = batches, clock
        self.per_epoch, self.position = batches.per_epoch, batches.position

    def __call__(self) -> tuple[Any, Any]:
        self._clock.to("input")
        batch = self._batches()
        self._clock.to("work")
        return batch

    def next_batches(self, count: int) -> list[Batch]:
        self._clock.to("input")
        batches = self._batches.next_batches(count)
        self._clock.to("work")
        return batches

    def state_dict(self) -> dict[str, Tensor]:
        return self._batches.state_dict()

    def load_state_dict(self, memory: dict[str, Tensor], position: int) -> None:
        self._batches.load_state_dict(memory, position)


class Steps:
    """Steps of a job as in a run: a window records every loss and is read once per refresh."""

    def __init__(self, job: Job) -> None:
        self.job, self.clock = job, PhaseClock()
        self._window = LossWindow(job.device)
        self._refresh_s = job.spec.refresh_ms / 1000
        self._due = perf_counter() + self._refresh_s
        self._timed_step = make_step(replace(job.parts, batches=TimedBatches(job.batches, self.clock)))

    def run(self, times: int) -> None:
        """Run steps without any instrument."""
        step, record = self.job.step, self._window.record
        for _ in range(times):
            record(step())
            if perf_counter() >= self._due:
                self._turn()

    def run_timed(self, times: int) -> None:
        """Run steps with the clock of phases."""
        step, record, to = self._timed_step, self._window.record, self.clock.to
        for _ in range(times):
            loss = step()
            to("read")
            record(loss)
            if perf_counter() >= self._due:
                self._turn()
            to("work")

    @property
    def step(self) -> Step:
        """One step with the clock of phases; its loss is not recorded."""
        return self._timed_step

    def _turn(self) -> None:
        self._window.turn(0.0)
        self._due = perf_counter() + self._refresh_s

    def seconds(self, times: int) -> float:
        """Seconds of `times` steps without any instrument, device included."""
        wait_for(self.job.device)
        start = perf_counter()
        self.run(times)
        wait_for(self.job.device)
        return perf_counter() - start


# --- operators ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OperatorCall:
    """One operator of a step, with tensors to call it again."""

    operator: Any
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    changes: bool
    """Whether it changes some of its tensors in place; its tensors are copies then."""

    def copied(self) -> OperatorCall:
        """The call with copies of the tensors that it changes."""
        if not self.changes:
            return self
        arguments, named = mapped((self.arguments, self.named), torch.clone)
        return replace(self, arguments=arguments, named=named)


class Operators(TorchDispatchMode):
    """Records the operators of the phase `work`; calls with tensors of the same shapes share one set of tensors."""

    def __init__(self, clock: PhaseClock, reads: Reads) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock, self._reads = clock, reads
        self._kinds: dict[Any, OperatorCall] = {}
        self.calls: list[OperatorCall] = []
        self.reading: list[OperatorCall] = []
        """Calls that read a value."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """As in :class:`epochtop.engine.execution.c.tape.record`: otherwise the first operator imports torch's compilers."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._clock.phase == "work":
            call = self._call(func, args, kwargs)
            (self.reading if self._reads.operator(func, args) else self.calls).append(call)
        return func(*args, **kwargs)

    def _call(self, func: Any, args: Any, kwargs: Any) -> OperatorCall:
        kind = (func, repr(mapped((args, kwargs), _shape)))
        if kind not in self._kinds:
            arguments, named = mapped((tuple(args), dict(kwargs)), torch.Tensor.detach)
            self._kinds[kind] = OperatorCall(func, arguments, named, func._schema.is_mutable).copied()
        return self._kinds[kind]


def _shape(tensor: Tensor) -> Any:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype


def record_operators(steps: Steps, reads: Reads) -> Operators:
    """The operators of one real step."""
    recorder = Operators(steps.clock, reads)
    steps.clock.phase = "work"
    with reads, recorder:
        steps.step()
    return recorder


def replayed(calls: list[OperatorCall], device: torch.device) -> Callable[[int], float]:
    """A run that calls all of them N times, in order, below autograd."""

    def run(times: int) -> float:
        copies = {id(call): call.copied() for call in calls}
        todo = [(call.operator, call.arguments, call.named) for call in (copies[id(call)] for call in calls)]
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            for operator, arguments, named in todo * (times if times > 1 else 0):  # a warm-up
                operator(*arguments, **named)
            wait_for(device)
            start = perf_counter()
            for _ in range(times):
                for operator, arguments, named in todo:
                    operator(*arguments, **named)
            wait_for(device)
            return perf_counter() - start

    return run


# --- with nothing to compute -------------------------------------------------------------------------------------

CHECKED = re.compile(
    r"_foreach_.*|addmm|mm|bmm|baddbmm|convolution(_backward)?|sum|mean|amax|amin|index_select|embedding|clone|_to_copy"
    r"|cat|stack|fill_|zero_|copy_|(zeros|ones|empty)_like|new_zeros|zeros|ones|_(log_)?softmax(_backward_data)?"
    r"|nll_loss_(forward|backward)|(mse|huber|smooth_l1)_loss(_backward)?|binary_cross_entropy_with_logits"
    r"|(threshold|tanh|sigmoid|gelu|silu)_backward|native_(layer_norm|batch_norm|dropout)(_backward)?|bernoulli_"
)
"""Operators, besides the pointwise ones, that reject tensors with mismatched shapes."""
SIZES = ("size", "normalized_shape")


def on_one_element(calls: list[OperatorCall], device: torch.device) -> list[OperatorCall]:
    """The same operators on one element each if possible, else a product of two numbers; views stay as they are."""
    distinct = {id(call): call for call in calls}
    with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
        small = {key: _on_one_element(call, device) for key, call in distinct.items()}
    return [small[id(call)] for call in calls]


def _on_one_element(call: OperatorCall, device: torch.device) -> OperatorCall:
    operator = call.operator
    if getattr(operator, "is_view", False) or not any(
        tensor.numel() > 1 for tensor in tensors_of((call.arguments, call.named))
    ):
        return call
    if torch.Tag.pointwise in operator.tags or CHECKED.fullmatch(_name(operator)):
        try:
            small = replace(call, arguments=_sized(call), named=mapped(call.named, _one))
            copy = small.copied()
            copy.operator(*copy.arguments, **copy.named)
        except (RuntimeError, IndexError, ValueError, TypeError):
            pass
        else:
            return small
    one = torch.ones(1, device=device)
    return OperatorCall(torch.ops.aten.mul.Tensor, (one, one), {}, changes=False)


def _name(operator: Any) -> str:
    return str(operator).removeprefix("aten.").partition(".")[0]


def _sized(call: OperatorCall) -> tuple[Any, ...]:
    names = [argument.name for argument in call.operator._schema.arguments]
    return tuple(
        [1] * len(value) if name in SIZES and isinstance(value, list | tuple) else mapped(value, _one)
        for name, value in zip(names, call.arguments, strict=False)
    )


def _one(tensor: Tensor) -> Tensor:
    """One element of the same type: 1, or the integer 0, which is a valid row or class number."""
    if tensor.numel() == 0:
        return tensor
    return (torch.ones if tensor.is_floating_point() else torch.zeros)(
        (1,) * tensor.ndim, dtype=tensor.dtype, device=tensor.device
    )
