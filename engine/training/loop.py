"""The hot loop, and what happens between two windows.

:meth:`Loop._run_to` takes steps and looks at the clock; that is all. Reading losses, commands, evaluation and
checkpoints happen at the boundary, once per refresh. Nothing on the step path may read the device.
"""

from __future__ import annotations

import contextlib
import math
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

from torch import Tensor

from epochtop.engine.distributed.group import run_steps
from epochtop.engine.distributed.leader import Pace, RankGroupLeader
from epochtop.engine.execution.choice import ExecutorChoice
from epochtop.engine.execution.executor import Executor
from epochtop.engine.job import state as job_state
from epochtop.engine.job.decision_boundary import MapLabel
from epochtop.engine.job.job import Job
from epochtop.engine.protocol.codes import RATE_LOWERED, SETTING_REJECTED
from epochtop.engine.protocol.events import (
    AnyCommand,
    Changed,
    Finished,
    Outcome,
    Pause,
    Paused,
    Resume,
    Resumed,
    Set,
    Stop,
    Warned,
)
from epochtop.engine.protocol.events import Save as SaveNow
from epochtop.engine.protocol.fields import parse
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.step.window import LossWindow, Reading
from epochtop.engine.training.evaluations import Evaluation, Evaluations
from epochtop.engine.training.outcome import summary
from epochtop.engine.training.publisher import Publisher
from epochtop.engine.training.recorder import Recorder, Save
from epochtop.engine.training.resume import Origin

FIRST_WINDOW_S = 0.02
"""The first window is short, so that a curve is on the screen at once."""
POLL_S = 0.01


class Loop:
    """Trains one job to its end. All state that changes while training is here."""

    def __init__(
        self, job: Job, recorder: Recorder, origin: Origin | None = None, team: RankGroupLeader | None = None
    ) -> None:
        """`team` is for a job that several processes train together; this one leads."""
        self.job, self.recorder, self.spec = job, recorder, job.spec
        origin = origin or Origin()
        self.step = origin.step
        self.deadline = 0.0
        self.team, self._pace = team, Pace()
        self.window = LossWindow(job.device, origin.step, team.average if team else None)
        self.refresh_s = job.spec.refresh_ms / 1000
        self.commands: SimpleQueue[AnyCommand] = recorder.commands
        self.ending: tuple[Outcome, str] | None = None
        self.clock = Clock(origin.seconds)
        self.rate = origin.learning_rate or job.spec.learning_rate
        self.publisher = Publisher(job, recorder, self.window, origin)
        self.appraisal = Evaluations(job, self.window, team)
        self._changes = list(origin.changes)
        self.choice = ExecutorChoice(job, origin.executors, self._rate_at)
        self.executor: Executor | None = None
        self._budget: float = math.inf
        """Step at which enough is enqueued for a refresh, whatever the clock says."""
        self._next_evaluation = self._next_save = math.inf
        if origin.values is not None:
            self.appraisal.load_state_dict(origin.values, origin.best, origin.best_step)

    def prepare(self) -> Executor:
        """Make ready what the first step needs; a program that is compiled may take a minute."""
        if self.executor is None:
            self._set_rate()
            self.executor = self.choice.begin(self.step)
        return self.executor

    def run(self) -> Finished:
        """Take every step; returns the summary. The last events before it are already handed over."""
        self._fit(self.prepare())
        self.clock.start()
        now = self.clock.seconds()
        by_clock = 0.0 if self.spec.eval_epochs else self.spec.eval_every
        self._next_evaluation = now + by_clock if by_clock else math.inf
        self._next_save = now + self.spec.save_every if self.spec.save_every else math.inf
        self.deadline = perf_counter() + min(FIRST_WINDOW_S, self.refresh_s)
        self._train()
        self._read_all()
        self.clock.stop()
        return self._finish()

    def _train(self) -> None:
        self._set_rate()
        while self.ending is None:
            self._arrive()
            if self.ending or self.step >= self.job.plan.steps:
                return
            if self.team is None:
                self._run_to(self._milestone())
            else:
                self._run_together(self.team, self._milestone())

    def _run_to(self, milestone: int) -> None:
        window, rate, executor = self.window, self._rate_at, self.prepare()
        while self.step < milestone:
            self.step += executor.take(window, self.step, milestone - self.step, rate)
            if perf_counter() >= self.deadline or self.step >= self._budget:
                self._boundary()
                executor = self.prepare()
                if self.ending:
                    return

    def _run_together(self, team: RankGroupLeader, milestone: int) -> None:
        """Like :meth:`_run_to`, but the clock is asked only after as many steps as all ranks were told to take."""
        while self.step < milestone and self.ending is None:
            begun, count = perf_counter(), min(self._pace.steps, milestone - self.step)
            team.take_steps(count, self.rate, self.job.schedule.state_dict())
            run_steps(self.job, self.window, self.step, count, self.rate)
            self.step += count
            now = perf_counter()
            self._pace.took(count, now - begun, self.refresh_s)
            if now >= self.deadline:
                self._boundary()

    def _rate_at(self, step: int) -> float:
        return self.rate * self.job.schedule.factor(step)

    def _set_rate(self) -> None:
        self.job.update.learning_rate = self._rate_at(self.step)

    def rescue(self) -> None:
        """After an exception: read the losses of the steps before it, if the device still answers."""
        with contextlib.suppress(Exception):
            if self.team is None:
                self._read_all()
            else:  # what the other ranks made of the last steps is not known any more
                self._publish(self.window.drain())

    def wake(self) -> None:
        """Let the next step be followed by a boundary; may be called from another thread."""
        self.deadline = 0.0

    # --- at steps that were fixed beforehand ------------------------------------------------------------

    def _milestone(self) -> int:
        """The next step at which something is due, whatever the clock says."""
        ends = [self.job.plan.steps, *(change.step for change in self._changes[:1])]
        if self.choice.due is not None and self.team is None:
            ends.append(self.choice.due)
        for epochs in (self.spec.eval_epochs, self.spec.keep_epochs):
            if epochs:
                every = epochs * self.job.plan.steps_per_epoch
                ends.append((self.step // every + 1) * every)
        return min(ends)

    def _arrive(self) -> None:
        while self._changes and self._changes[0].step <= self.step:
            self.rate = self._changes.pop(0).value
            self._set_rate()
        while self.ending is None and self.choice.due is not None and self.choice.due <= self.step:
            self._switch()
        if self.step and self._due(self.spec.eval_epochs):
            self._evaluate()
            if self.appraisal.decides:
                self._read_all()  # the one wait that an evaluation may cost: the next step depends on it
                self._decide()
        if self.step and self._due(self.spec.keep_epochs):
            kind = f"epoch-{self.step // self.job.plan.steps_per_epoch}"
            self._attach_save(Save(kind, self.step, self._whole(job_state.weights(self.job)), {}))

    def _due(self, epochs: int) -> bool:
        return epochs > 0 and self.step % (epochs * self.job.plan.steps_per_epoch) == 0

    def _decide(self) -> None:
        if self.appraisal.lowered:
            self._set_rate()
            message = f"loss stopped improving; learning rate lowered to {self.job.update.learning_rate:g}"
            self.publisher.warn(message, RATE_LOWERED, self.step)
        if self.appraisal.patience.over:
            self.ending = ("finished", f"no better loss in {self.spec.patience} evaluations")

    # --- once per refresh ------------------------------------------------------------------------------

    def _boundary(self) -> None:
        self._publish(self.window.turn(self.clock.seconds()))
        self._obey()
        seconds = self.clock.seconds()
        if seconds >= self._next_evaluation:
            self._evaluate()
            self._next_evaluation = self.clock.seconds() + self.spec.eval_every
        if seconds >= self._next_save:
            self._save()
            self._next_save = self.clock.seconds() + self.spec.save_every
        if self.spec.max_seconds and seconds >= self.spec.max_seconds and not self.ending:
            self.ending = ("finished", f"the {self.spec.max_seconds:g} s of training time are over")
        self.deadline = perf_counter() + self.refresh_s
        self._fit(self.prepare())

    def _switch(self) -> None:
        """Let another executor take over; where it is being built, commands are heard meanwhile."""
        while self.ending is None and not self.choice.wait(POLL_S):
            if perf_counter() >= self.deadline:
                self._boundary()
        if self.ending is not None:
            return
        executor, told = self.choice.take_up(self.step)
        self._fit(executor or self.prepare())
        if told is not None:
            self.recorder.put(told)

    def _fit(self, executor: Executor) -> None:
        self.executor = executor
        self._budget = self.step + executor.fitting(self.refresh_s)

    def _read_all(self) -> None:
        """Read everything that was enqueued; the device is idle afterwards."""
        self._publish(self.window.turn(self.clock.seconds()))
        self._publish(self.window.drain())

    def _publish(self, reading: Reading | None) -> None:
        if reading is None:
            return
        if not self.job.schedule.constant:
            self.publisher.learning_rate = self.job.update.learning_rate
        self.ending = self.publisher.losses(reading) or self.ending
        for label, tensors in reading.attached:
            self._arrived(label, tensors)

    def _arrived(self, label: Any, tensors: tuple[Tensor, ...]) -> None:
        match label:
            case Evaluation():
                self.publisher.evaluated(self.appraisal.arrived(label, tensors[0]))
            case MapLabel():
                self.publisher.evaluated(self.appraisal.mapped(label, tensors[0]))
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
            self.recorder.put(Warned(message=f"not changed: {error}", code=SETTING_REJECTED))
            return
        if command.field == "learning_rate" and self.spec.schedule == "range_test":
            message = "not changed: range_test sets the learning rate itself"
            self.recorder.put(Warned(message=message, code=SETTING_REJECTED))
            return
        if command.field == "learning_rate":
            self.rate = command.value
            self._set_rate()
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

    # --- evaluation, checkpoints, the end --------------------------------------------------------------

    def _evaluate(self) -> None:
        self.appraisal.enqueue(self.step, self.clock.seconds())

    def _save(self) -> None:
        """Enqueue copies of the state; they are written, the best first, when they have reached the host."""
        self._save_best()
        self._save_last()

    def _save_last(self) -> None:
        state, values = job_state.capture(self.job) if self.team is None else self.team.state(self.job)
        values |= self.appraisal.state_dict()
        values |= {
            "learning_rate": self.rate,
            "test_loss": self.appraisal.best.newest_loss,
            "seconds": round(self.clock.seconds(), 6),
        }
        self._attach_save(Save("last", self.step, state, values))

    def _save_best(self) -> None:
        best = self.appraisal.best
        if best.weights is not None and best.unsaved:
            best.unsaved = False
            values: job_state.Values = {"test_loss": best.loss, "test_metric": best.metric}
            self._attach_save(Save("best", best.step, self._whole(best.weights, best.step), values))

    def _whole(self, weights: dict[str, Tensor], step: int | None = None) -> dict[str, Tensor]:
        """Copies of the weights, of the evaluation before `step` or of now: of shards, those of all ranks together."""
        return weights if self.team is None else self.team.whole(self.job, weights, step)

    def _attach_save(self, save: Save) -> None:
        self.window.attach(save, tuple(save.tensors.values()))

    def _finish(self) -> Finished:
        outcome, reason = self.ending or ("finished", f"all {self.job.plan.steps:,} steps are done")
        seconds, reads, waited = self.clock.seconds(), self.window.reads, self.window.waited_s
        if outcome != "diverged":
            if self.appraisal.newest_step != self.step:
                self._evaluate()
            self.appraisal.enqueue_test(self.step, seconds)
            self._read_all()  # so that the best weights are known before they are saved
        self._save_best()
        if outcome != "diverged":
            self._save_last()
        self._read_all()
        return summary(self.job, self.publisher, self.appraisal, (outcome, reason), self.step, seconds, reads, waited)


class Clock:
    """Seconds of training: runs between `start` and `stop`, so that a pause does not count."""

    def __init__(self, before_s: float = 0.0) -> None:
        self._before = before_s
        self._since: float | None = None

    def start(self) -> None:
        """Go on."""
        self._since = perf_counter()

    def stop(self) -> None:
        """Stand still."""
        self._before, self._since = self.seconds(), None

    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + (perf_counter() - self._since if self._since is not None else 0.0)
