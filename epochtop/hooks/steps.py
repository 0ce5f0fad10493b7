"""Figures of a script's optimizer steps: loss, learning rate, time, and the share of it spent waiting for data.

Called from the script's loop, so one step costs about a microsecond. A loss on the CPU is read at once; one on a device
stays there. Never imports torch.
"""

from __future__ import annotations

import sys
import weakref
from time import perf_counter

from epochtop.hooks.fast_path import FastPath
from epochtop.recording.values.usual_steps import UsualSteps, milliseconds
from epochtop.recording.writer import QUEUE_ENTRIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from epochtop.recording.run import Run

    Loss = Any
    """A number, or a detached tensor on a device."""
    Emit = Callable[[int, dict[str, Any]], None]
    """Records values of a step."""

UNDECIDED_STEPS = 16
"""Steps after which optimizers that have not stepped yet no longer delay the name of the first one's series."""
UNSEEN_STEPS, UNSEEN_COMPILED_STEPS = 64, 8
"""Backward passes without any optimizer step after which each one counts as a step: the steps are written by hand; or, if
torch.compile is used, compiled."""
COMPILER = "torch._dynamo"
"""Module that is loaded if the script uses torch.compile."""
LOSS, STEP_MS, DATA_WAIT, RATE = "train/loss", "time/step_ms", "time/data_wait_percent", "optimizer/learning_rate"
"""Series of the only optimizer. Times are multiples of 1/1024 ms and 1/64 %, so that four bytes hold them. With
several, the name of the optimizer is the second part of loss and learning rate, as in `train/generator/loss`; times are
those of the first one."""


class OptimizerSteps:
    """The steps of one optimizer."""

    __slots__ = (
        "has_loss",
        "is_timed",
        "loss_name",
        "name",
        "only_rate",
        "previous",
        "rate_name",
        "rates",
        "reference",
        "step",
        "undecided",
    )

    def __init__(self, optimizer: Any, name: str) -> None:
        self.reference: Callable[[], Any] = weakref.ref(optimizer)
        self.name = name
        """Name of the optimizer in the script; empty if unknown."""
        self.step = 0
        """Number of the next step."""
        self.previous = 0.0
        """Time of the previous step; 0 before the first one."""
        self.has_loss = False
        """Whether any loss was its own: computed since the step of another optimizer."""
        self.rates: tuple[float | None, ...] = ()
        self.only_rate: Any = None
        """The learning rate as the optimizer has it, if there is one parameter group."""
        self.undecided: list[tuple[int, dict[str, Any]]] | None = []
        """Steps and values that wait for the names of their series; None as soon as these are known."""
        self.loss_name, self.rate_name = LOSS, RATE
        self.is_timed = True
        """Whether times are recorded: those of one optimizer are enough."""

    def decide(self, prefix: str, is_timed: bool) -> list[tuple[int, dict[str, Any]]]:
        """Name the series. Returns the steps that waited for it."""
        waiting, self.undecided = self.undecided or [], None
        self.is_timed = is_timed
        if prefix:
            self.loss_name = _prefixed(LOSS, prefix)
            self.rate_name = _prefixed(RATE, prefix)
            waiting = [
                (step, {name: value for old, value in values.items() if (name := self._rename(old, prefix))})
                for step, values in waiting
            ]
        return waiting if self.has_loss else []

    def _rename(self, name: str, prefix: str) -> str:
        """The final name of a series; empty if it is not recorded."""
        if name.startswith("time/"):
            return name if self.is_timed else ""
        return _prefixed(name, prefix)


def _prefixed(name: str, prefix: str) -> str:
    group, _, rest = name.partition("/")
    return f"{group}/{prefix}/{rest}"


class StepMeter:
    """Follows losses and steps of all optimizers of this process."""

    def __init__(
        self,
        emit: Emit,
        report: Callable[[str], None],
        find_name: Callable[[Any], str],
        count_optimizers: Callable[[], int],
    ) -> None:
        """`emit` records values; `report` tells the user about a problem; `find_name` tells an optimizer's name;
        `count_optimizers` how many exist.
        """
        self.emit, self._report = emit, report
        self.fast = FastPath()
        """The way of usual steps; they go to the run without a call, as long as :meth:`Run.log` would not wait."""
        self._run: Run | None = None
        self._first_step_of_run = 0
        self._find_name, self._count_optimizers = find_name, count_optimizers
        self._tracks: dict[int, OptimizerSteps] = {}
        self._current: OptimizerSteps | None = None
        self.waiting: list[Loss] = []
        """Losses of backward passes since the previous step; always this list."""
        self.many = UNSEEN_COMPILED_STEPS
        """Number of waiting losses from which on :meth:`look` is due."""
        self.data_wait_s = 0.0
        """Time inside the data loader's `__next__` since the previous step."""
        self._loads_data = False
        """Whether the script has used a data loader; without one, there is nothing to wait for."""
        self._on_boundary: Callable[[int], None] | None = None
        self._first_step = 0
        """First step of the optimizers that exist: the last one of those that no longer exist."""
        self._counts_backward = False
        """Whether steps cannot be seen, and backward passes count instead."""

    @property
    def on_boundary(self) -> Callable[[int], None] | None:
        """Called after every step, with the number of steps, while it is set. Another thread may set it."""
        return self._on_boundary

    @on_boundary.setter
    def on_boundary(self, function: Callable[[int], None] | None) -> None:
        self._on_boundary = function
        self.fast.close()

    def look(self) -> None:
        """Let every backward pass count as a step if no optimizer is seen to take one."""
        if self._counts_backward or (len(self.waiting) >= _most_unseen() and not self._live_tracks()):
            self._count_losses()

    def _live_tracks(self) -> list[OptimizerSteps]:
        """Steps of the optimizers that still exist."""
        return [track for track in self._tracks.values() if track.reference() is not None]

    def _count_losses(self) -> None:
        """Every loss that waits belongs to a step."""
        self._counts_backward, self.many = True, 1
        self.fast.leave(self.waiting)
        losses = self.waiting.copy()
        self.waiting.clear()
        for loss in losses:
            self.waiting.append(loss)
            self.stepped(self)

    def record_into(self, run: Run | None, first_step: int) -> None:
        """Record into this run, which has `first_step` steps from earlier processes."""
        self._run, self._first_step_of_run = run, first_step
        self.fast.leave(self.waiting)

    def stepped(self, optimizer: Any) -> None:
        """An optimizer has taken a step."""
        try:
            now = perf_counter()
            self.fast.leave(self.waiting)
            track = self._current
            if track is None or track.reference() is not optimizer:
                track = self._track(optimizer)
            values: dict[str, Any] = {}
            losses = self.waiting
            has_one_loss = len(losses) == 1
            if losses:
                values[track.loss_name] = losses[0] if len(losses) == 1 else mean(losses)
                losses.clear()
                track.has_loss = True
            wait_s, self.data_wait_s = self.data_wait_s, 0.0
            if wait_s:
                self._loads_data = True
            if track.previous and track.is_timed:
                elapsed_s = now - track.previous
                values[STEP_MS] = milliseconds(elapsed_s)
                if self._loads_data:
                    values[DATA_WAIT] = int(wait_s / elapsed_s * 6400.0) / 64 if elapsed_s else 0.0
            track.previous = now
            groups: Sequence[Any] = getattr(optimizer, "param_groups", ())
            if len(groups) != 1 or groups[0].get("lr") is not track.only_rate:
                self._read_rates(groups, track, values)
            step = track.step
            track.step = step + 1
            if track.undecided is not None:
                track.undecided.append((step, values))
                self._decide(len(track.undecided) >= UNDECIDED_STEPS)
            elif track.has_loss:
                self.emit(step, values)
            if self._on_boundary is not None:
                self._on_boundary(step + 1)
            if has_one_loss and len(values) == 2:
                self._expect_usual_steps(track, values)
        except Exception as error:  # a fault of ours must not end the script
            self._report(f"an optimizer step was not recorded: {type(error).__name__}: {error}")

    def _expect_usual_steps(self, track: OptimizerSteps, values: Mapping[str, Any]) -> None:
        """Let the next step take the fast path if this one, with these values, was usual."""
        run, is_decided = self._run, track.undecided is None and track.only_rate is not None
        if run is None or not is_decided or self._counts_backward or type(values.get(track.loss_name)) is not float:
            return
        if STEP_MS not in values or run._gate is not None or len(run._entries) >= QUEUE_ENTRIES:
            return
        step = track.step + self._first_step_of_run
        run._entries.append(UsualSteps(track.loss_name, STEP_MS, step, track.previous))
        self.fast.enter(track, run)
        if self._on_boundary is not None:  # another thread may have set it meanwhile
            self.fast.close()

    @staticmethod
    def _read_rates(groups: Sequence[Mapping[str, Any]], track: OptimizerSteps, values: dict[str, Any]) -> None:
        """Add the learning rates that changed."""
        objects = [group.get("lr") for group in groups]
        track.only_rate = objects[0] if len(objects) == 1 else None
        rates = tuple(map(number_or_none, objects))
        if rates != track.rates:
            _add_rates(values, track.rate_name, rates, track.rates)
            track.rates = rates

    def _track(self, optimizer: Any) -> OptimizerSteps:
        track = self._tracks.get(id(optimizer))
        if track is None or track.reference() is not optimizer:
            track = OptimizerSteps(optimizer, "" if optimizer is self else self._find_name(optimizer))
            track.step = self._forget_gone()
            self._counts_backward = optimizer is self
            self.many = 1 if self._counts_backward else UNSEEN_COMPILED_STEPS
            self._tracks[id(optimizer)] = track
        self._current = track
        return track

    def _forget_gone(self) -> int:
        """Forget the optimizers that no longer exist if all of them are gone. Returns the step at which others continue."""
        if any(track.reference() not in (None, self) for track in self._tracks.values()):
            return self._first_step
        self._first_step = max((track.step for track in self._tracks.values()), default=0)
        self._tracks.clear()
        return self._first_step

    def _decide(self, now: bool) -> None:
        """Name the series of all optimizers, once each has taken a step, or `now`."""
        tracks = list(self._tracks.values())
        if not now and len(tracks) < self._count_optimizers():
            return
        several = sum(track.has_loss for track in tracks) > 1
        for number, track in enumerate(tracks):
            if track.undecided is not None:
                prefix = (track.name or str(number)) if several else ""
                for step, values in track.decide(prefix, is_timed=number == 0):
                    self.emit(step, values)

    def measures(self, name: str) -> bool:
        """Whether a series of this name is measured."""
        own = (each for track in self._tracks.values() for each in (track.loss_name, track.rate_name))
        return name in (LOSS, STEP_MS, DATA_WAIT, RATE) or name in own

    def finish(self) -> None:
        """Record the last steps: no more will come."""
        self.fast.leave(self.waiting)
        if len(self.waiting) > 1 and not self._live_tracks():
            self._count_losses()
        self._decide(now=True)

    def discard(self) -> None:
        """Forget everything, in a forked process, and record nothing any more."""
        self.fast.leave(self.waiting)
        self.waiting.clear()
        self.emit, self._run = _ignore, None
        self.on_boundary = None


def _most_unseen() -> int:
    return UNSEEN_COMPILED_STEPS if COMPILER in sys.modules else UNSEEN_STEPS


def _ignore(_step: int, _values: dict[str, Any]) -> None:
    """Record nothing."""


def number_or_none(value: Any) -> float | None:
    """A number as it is; None for a tensor, whose comparison would read the device."""
    return value if isinstance(value, (float, int)) else None


def _add_rates(
    values: dict[str, Any], name: str, rates: tuple[float | None, ...], previous: tuple[float | None, ...]
) -> None:
    """Add the learning rates that changed; those of further parameter groups only where they differ from the first."""
    for number, rate in enumerate(rates):
        changed = number >= len(previous) or rate != previous[number]
        differs = number == 0 or rate != rates[0] or (number < len(previous) and previous[number] != previous[0])
        if rate is not None and changed and differs:
            values[f"{name}/{number}" if number else name] = float(rate)


def mean(losses: list[Loss]) -> Loss:
    """Mean of numbers or of tensors on one device; tensors stay there."""
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return total / len(losses)
