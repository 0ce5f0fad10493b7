"""What a step is made of, measured: its phases by the clock, its operators by doing them again without the rest.

Operators are replayed in their order, below autograd, with the tensors of a real step, and a second time with tensors of
one element: the second is what launching them takes, the difference what they compute. What is left of the step is
Python, autograd and the wrapping around the operators.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from epochtop.engine.job.job import Job
from epochtop.engine.lab.instruments.clocks import wait_for
from epochtop.engine.lab.instruments.reads import Reads
from epochtop.engine.step.batches import Batch, Batches
from epochtop.engine.step.step import Step, make_step
from epochtop.engine.step.window import LossWindow

# --- phases ------------------------------------------------------------------------------------------------------


class Marks:
    """Seconds spent in each phase of the steps taken: `input`, `work` and `read`. The clock's own cost is left out."""

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
        """What follows is in `phase`."""
        now = perf_counter()
        self._seconds[self.phase] += now - self._since
        self._times[self.phase] += 1
        self._since, self.phase = now, phase
        if self.on_phase is not None:
            self.on_phase(phase)

    def _calibrated(self, times: int = 2000, tries: int = 5) -> float:
        """Seconds that one mark takes."""
        took = []
        for _ in range(tries):
            begun = perf_counter()
            for _ in range(times):
                self.to("work")
            took.append((perf_counter() - begun) / times)
        return min(took)

    def measured(self, take: Callable[[], object]) -> dict[str, float]:
        """Seconds in each phase while `take` runs."""
        self._clear()
        take()
        self.to(self.phase)
        return {name: max(0.0, took - self._times[name] * self._cost_s) for name, took in self._seconds.items()}


class Watched(Batches):
    """Batches whose time is told apart from the rest."""

    def __init__(self, batches: Batches, marks: Marks) -> None:
        self._batches, self._marks = batches, marks
        self.per_epoch, self.position = batches.per_epoch, batches.position

    def __call__(self) -> tuple[Any, Any]:
        self._marks.to("input")
        batch = self._batches()
        self._marks.to("work")
        return batch

    def next_batches(self, count: int) -> list[Batch]:
        self._marks.to("input")
        batches = self._batches.next_batches(count)
        self._marks.to("work")
        return batches

    def state_dict(self) -> dict[str, Tensor]:
        return self._batches.state_dict()

    def load_state_dict(self, memory: dict[str, Tensor], position: int) -> None:
        self._batches.load_state_dict(memory, position)


class Steps:
    """Steps of a job as a run takes them: every loss kept in a window, which is read once a refresh."""

    def __init__(self, job: Job) -> None:
        self.job, self.marks = job, Marks()
        self._window = LossWindow(job.device)
        self._refresh_s = job.spec.refresh_ms / 1000
        self._due = perf_counter() + self._refresh_s
        self._watched = make_step(replace(job.parts, batches=Watched(job.batches, self.marks)))

    def plain(self, times: int) -> None:
        """Without any instrument."""
        step, record = self.job.step, self._window.record
        for _ in range(times):
            record(step())
            if perf_counter() >= self._due:
                self._turn()

    def watched(self, times: int) -> None:
        """The same with the marks set."""
        step, record, to = self._watched, self._window.record, self.marks.to
        for _ in range(times):
            loss = step()
            to("read")
            record(loss)
            if perf_counter() >= self._due:
                self._turn()
            to("work")

    @property
    def step(self) -> Step:
        """One step with the marks set, its loss not recorded."""
        return self._watched

    def _turn(self) -> None:
        self._window.turn(0.0)
        self._due = perf_counter() + self._refresh_s

    def seconds(self, times: int, take: Callable[[int], object] | None = None) -> float:
        """Of so many plain steps, or of `take`, the device waited for."""
        wait_for(self.job.device)
        begun = perf_counter()
        (take or self.plain)(times)
        wait_for(self.job.device)
        return perf_counter() - begun


# --- operators ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One operator of a step with tensors to call it again."""

    operator: Any
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    changes: bool
    """Whether it changes some of its tensors in place; these are copies."""

    def copied(self) -> Call:
        """With copies of what it changes."""
        if not self.changes:
            return self
        arguments, named = mapped((self.arguments, self.named), torch.clone)
        return replace(self, arguments=arguments, named=named)


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """`value` with every tensor in it, at any depth, changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(mapped(part, change) for part in value)
    if isinstance(value, dict):
        return {key: mapped(part, change) for key, part in value.items()}
    return value


class Operators(TorchDispatchMode):
    """Writes down the operators of the phase `work`, one set of tensors for those that are called alike."""

    def __init__(self, marks: Marks, reads: Reads) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._marks, self._reads = marks, reads
        self._kinds: dict[Any, Call] = {}
        self.calls: list[Call] = []
        self.reading: list[Call] = []
        """Those that read a value."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """As of :class:`epochtop.engine.execution.c.tape.record`: else the first operator imports torch's compilers."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._marks.phase == "work":
            call = self._call(func, args, kwargs)
            (self.reading if self._reads.operator(func, args) else self.calls).append(call)
        return func(*args, **kwargs)

    def _call(self, func: Any, args: Any, kwargs: Any) -> Call:
        kind = (func, repr(mapped((args, kwargs), _shape)))
        if kind not in self._kinds:
            arguments, named = mapped((tuple(args), dict(kwargs)), torch.Tensor.detach)
            self._kinds[kind] = Call(func, arguments, named, func._schema.is_mutable).copied()
        return self._kinds[kind]


def _shape(tensor: Tensor) -> Any:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype


def operators(steps: Steps, reads: Reads) -> Operators:
    """Those of one step, which is taken for real."""
    recorder = Operators(steps.marks, reads)
    steps.marks.phase = "work"
    with reads, recorder:
        steps.step()
    return recorder


def replayed(calls: list[Call], device: torch.device) -> Callable[[int], float]:
    """Seconds of calling all of them so many times, in order, below autograd."""

    def run(times: int) -> float:
        copies = {id(call): call.copied() for call in calls}
        todo = [(call.operator, call.arguments, call.named) for call in (copies[id(call)] for call in calls)]
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            for operator, arguments, named in todo * (times if times > 1 else 0):  # not slow for what was done before
                operator(*arguments, **named)
            wait_for(device)
            begun = perf_counter()
            for _ in range(times):
                for operator, arguments, named in todo:
                    operator(*arguments, **named)
            wait_for(device)
            return perf_counter() - begun

    return run


# --- with nothing to compute -------------------------------------------------------------------------------------

CHECKED = re.compile(
    r"_foreach_.*|addmm|mm|bmm|baddbmm|convolution(_backward)?|sum|mean|amax|amin|index_select|embedding|clone|_to_copy"
    r"|cat|stack|fill_|zero_|copy_|(zeros|ones|empty)_like|new_zeros|zeros|ones|_(log_)?softmax(_backward_data)?"
    r"|nll_loss_(forward|backward)|(mse|huber|smooth_l1)_loss(_backward)?|binary_cross_entropy_with_logits"
    r"|(threshold|tanh|sigmoid|gelu|silu)_backward|native_(layer_norm|batch_norm|dropout)(_backward)?|bernoulli_"
)
"""Operators, beside those on each element alone, that refuse tensors which do not fit together."""
SIZES = ("size", "normalized_shape")


def emptied(calls: list[Call], device: torch.device) -> list[Call]:
    """The same operators on one element each, where they take one; views as they are; else a product of two numbers."""
    kinds = {id(call): call for call in calls}
    with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
        small = {key: _emptied(call, device) for key, call in kinds.items()}
    return [small[id(call)] for call in calls]


def _emptied(call: Call, device: torch.device) -> Call:
    operator = call.operator
    if getattr(operator, "is_view", False) or not any(
        tensor.numel() > 1 for tensor in _all((call.arguments, call.named))
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
    return Call(torch.ops.aten.mul.Tensor, (one, one), {}, changes=False)


def _name(operator: Any) -> str:
    return str(operator).removeprefix("aten.").partition(".")[0]


def _sized(call: Call) -> tuple[Any, ...]:
    names = [argument.name for argument in call.operator._schema.arguments]
    return tuple(
        [1] * len(value) if name in SIZES and isinstance(value, list | tuple) else mapped(value, _one)
        for name, value in zip(names, call.arguments, strict=False)
    )


def _one(tensor: Tensor) -> Tensor:
    """One element of the same kind: 1, or the number 0, which is a row or a class wherever one is meant."""
    if tensor.numel() == 0:
        return tensor
    return (torch.ones if tensor.is_floating_point() else torch.zeros)(
        (1,) * tensor.ndim, dtype=tensor.dtype, device=tensor.device
    )


def _all(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _all(part)
    elif isinstance(value, dict):
        yield from _all(list(value.values()))
