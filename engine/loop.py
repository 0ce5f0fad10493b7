"""The hot loop, and what happens between two windows.

:meth:`Loop._train` takes steps and looks at the clock; that is all. Reading losses, commands, evaluation and
checkpoints happen at the boundary, once per refresh. Nothing on the step path may read the device.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from engine.job import Job, evaluate
from engine.protocol import (
    AnyCommand,
    Changed,
    Evaluated,
    Finished,
    Losses,
    Outcome,
    Pause,
    Paused,
    Resume,
    Resumed,
    Set,
    Stop,
    Warned,
)
from engine.protocol import Save as SaveNow
from engine.recorder import Recorder, Save
from engine.spec import Invalid, parse
from engine.tally import Best, Clock, Totals
from engine.window import LossWindow, Reading

FIRST_WINDOW_S = 0.02
"""The first window is short, so that a curve is on the screen at once."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation under way, and a copy of the weights it was made with."""

    step: int
    seconds: float
    weights: dict[str, Tensor]


class Loop:
    """Trains one job to its end. All state that changes while training is here."""

    def __init__(self, job: Job, recorder: Recorder) -> None:
        self.job, self.recorder, self.spec = job, recorder, job.spec
        self.step = 0
        self.deadline = 0.0
        self.window = LossWindow(job.device)
        self.refresh_s = job.spec.refresh_ms / 1000
        self.commands: SimpleQueue[AnyCommand] = recorder.commands
        self.ending: tuple[Outcome, str] | None = None
        self.clock = Clock()
        self.best = Best()
        self.totals = Totals()
        self._next_evaluation = self._next_save = math.inf

    def run(self) -> Finished:
        """Take every step; returns the summary. The last events before it are already handed over."""
        self.clock.start()
        self._next_evaluation = self.spec.eval_every or math.inf
        self._next_save = self.spec.save_every or math.inf
        self.deadline = perf_counter() + min(FIRST_WINDOW_S, self.refresh_s)
        self._train()
        self._read_all()
        self.clock.stop()
        return self._finish()

    def _train(self) -> None:
        total, take_step, record = self.job.plan.steps, self.job.step, self.window.record
        while self.step < total:
            record(take_step())
            self.step += 1
            if perf_counter() >= self.deadline:
                self._boundary()
                if self.ending:
                    return

    def rescue(self) -> None:
        """After an exception: read the losses of the steps before it, if the device still answers."""
        with contextlib.suppress(Exception):
            self._read_all()

    def wake(self) -> None:
        """Let the next step be followed by a boundary; may be called from another thread."""
        self.deadline = 0.0

    # --- once per refresh ------------------------------------------------------------------------------

    def _boundary(self) -> None:
        self._publish(self.window.turn(self.clock.seconds()))
        self._obey()
        seconds = self.clock.seconds()
        if seconds >= self._next_evaluation:
            self._evaluate(seconds)
            self._next_evaluation = self.clock.seconds() + self.spec.eval_every
        if seconds >= self._next_save:
            self._save()
            self._next_save = self.clock.seconds() + self.spec.save_every
        self.deadline = perf_counter() + self.refresh_s

    def _read_all(self) -> None:
        """Read everything that was enqueued; the device is idle afterwards."""
        self._publish(self.window.turn(self.clock.seconds()))
        self._publish(self.window.drain())

    def _publish(self, reading: Reading | None) -> None:
        if reading is None:
            return
        values = reading.losses.numpy()
        if len(values):
            self.recorder.put(
                Losses(
                    first_step=reading.first_step,
                    seconds=round(reading.seconds, 6),
                    values=values.astype("<f4", copy=False).tobytes(),
                    reads=self.window.reads,
                    waited=round(self.window.waited_s, 6),
                )
            )
        if self.totals.add(reading.first_step, values):
            self.ending = ("diverged", f"the loss became {self.totals.bad_value} at step {self.totals.bad_step:,}")
        for label, tensors in reading.attached:
            self._arrived(label, tensors)

    def _arrived(self, label: Any, tensors: tuple[Tensor, ...]) -> None:
        match label:
            case Evaluation():
                loss, metric = (_finite(value) for value in tensors[0].tolist())  # on the host already
                self.best.judge(label.step, label.weights, loss, metric)
                if len(self.job.x_test):
                    self.recorder.put(Evaluated(step=label.step, seconds=label.seconds, loss=loss, metric=metric))
            case Save():
                names = label.tensors
                self.recorder.put(Save(label.kind, label.step, dict(zip(names, tensors, strict=True)), label.values))

    # --- commands --------------------------------------------------------------------------------------

    def _obey(self) -> None:
        while self.ending is None:
            try:
                command = self.commands.get_nowait()
            except Empty:
                return
            self._answer(command)

    def _answer(self, command: AnyCommand) -> None:
        match command:
            case Stop():
                self.ending = ("stopped", f"stopped by {command.by or 'a command'}")
            case SaveNow():
                self._save()
            case Set():
                self._set(command)
            case Pause():
                self._pause(command.by)
            case Resume():
                pass  # nothing is paused

    def _set(self, command: Set) -> None:
        try:
            parse(command.field, repr(command.value))
        except Invalid as error:
            self.recorder.put(Warned(message=f"not changed: {error}"))
            return
        if command.field == "learning_rate":
            self.job.update.learning_rate = command.value
        else:
            self.refresh_s = command.value / 1000
        self.recorder.put(Changed(step=self.step, field=command.field, value=command.value, by=command.by))

    def _pause(self, by: str) -> None:
        self._read_all()
        self.clock.stop()
        self.recorder.put(Paused(step=self.step, by=by))
        while self.ending is None:
            command = self.commands.get()
            if isinstance(command, SaveNow):
                self._save()
                self._read_all()
            elif not isinstance(command, Pause | Resume):
                self._answer(command)
            if isinstance(command, Resume | Stop):
                self.clock.start()
                if isinstance(command, Resume):
                    self.recorder.put(Resumed(step=self.step, by=command.by))
                return

    # --- evaluation and checkpoints --------------------------------------------------------------------

    def _evaluate(self, seconds: float) -> None:
        """Enqueue an evaluation and a copy of the weights; the numbers come with the next window."""
        tested = len(self.job.x_test) > 0
        rows = (self.job.x_test, self.job.y_test) if tested else (self.job.x, self.job.y)
        label = Evaluation(self.step, round(seconds, 6), self._weights())
        self.window.attach(label, (evaluate(self.job, *rows),))

    def _save(self) -> None:
        """Enqueue copies of the state; they are written when they have reached the host."""
        self._save_last()
        self._save_best()

    def _save_last(self) -> None:
        values: dict[str, float | int | None]
        values = {"learning_rate": self.job.update.learning_rate, "test_loss": self.best.newest_loss}
        if self.job.batches is not None:
            values["rows_taken_of_epoch"] = self.job.batches.position
        self._attach_save(Save("last", self.step, self._state(), values))

    def _save_best(self) -> None:
        if self.best.weights is not None and self.best.unsaved:
            self.best.unsaved = False
            values: dict[str, float | int | None] = {"test_loss": self.best.loss, "test_metric": self.best.metric}
            self._attach_save(Save("best", self.best.step, self.best.weights, values))

    def _attach_save(self, save: Save) -> None:
        self.window.attach(save, tuple(save.tensors.values()))

    def _weights(self) -> dict[str, Tensor]:
        return {f"model.{name}": tensor.detach().clone() for name, tensor in self.job.model.state_dict().items()}

    def _state(self) -> dict[str, Tensor]:
        state = self._weights()
        names = [name for name, _ in self.job.model.named_parameters()]
        for key, tensors in self.job.update.state().items():
            state |= {f"optimizer.{key}.{name}": tensor.clone() for name, tensor in zip(names, tensors, strict=True)}
        if self.job.batches is not None:
            state |= {f"batches.{key}": tensor.clone() for key, tensor in self.job.batches.state().items()}
        state["rng.cpu"] = torch.get_rng_state()
        return state

    # --- the end ---------------------------------------------------------------------------------------

    def _finish(self) -> Finished:
        outcome, reason = self.ending or ("finished", f"all {self.job.plan.steps:,} steps are done")
        seconds, reads, waited = self.clock.seconds(), self.window.reads, self.window.waited_s
        if outcome != "diverged":
            self._evaluate(seconds)
            self._read_all()  # so that the best weights are known before they are saved
            self._save_last()
        self._save_best()
        self._read_all()
        tested = len(self.job.x_test) > 0
        rate = self.step / seconds if seconds > 0 else 0.0
        return Finished(
            time=time.time(),
            outcome=outcome,
            reason=reason,
            advice=_advice(self.job.update.learning_rate) if outcome == "diverged" else "",
            steps=self.step,
            epochs=self.step / self.job.plan.steps_per_epoch,
            seconds=round(seconds, 6),
            steps_per_second=round(rate, 3),
            final_loss=self.totals.final,
            best_loss=_finite(self.totals.best),
            best_step=self.totals.best_step,
            diverged_step=self.totals.bad_step,
            test_loss=self.best.newest_loss if tested else None,
            test_metric=self.best.newest_metric if tested else None,
            best_test_loss=self.best.loss if tested else None,
            device_reads=reads,
            waited_seconds=round(waited, 6),
        )


def _advice(learning_rate: float) -> str:
    return f"lower the learning rate: {learning_rate:g} is too high, try {learning_rate / 10:g}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
