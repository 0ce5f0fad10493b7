"""The hot loop, and what happens between two windows.

:meth:`Loop._run_to` takes steps and looks at the clock; that is all. Losses are read, commands obeyed, weights evaluated
and checkpoints saved at the boundary, once per refresh. Nothing on the step path may read the device.
"""

from __future__ import annotations

import contextlib
import math
from queue import SimpleQueue
from time import perf_counter, sleep

from torch import Tensor

from epochtop.engine.device.pace import DevicePace
from epochtop.engine.distributed.group import run_steps
from epochtop.engine.distributed.leader import Pace, RankGroupLeader
from epochtop.engine.execution.choice import ExecutorChoice
from epochtop.engine.execution.executor import Executor
from epochtop.engine.job import state as job_state
from epochtop.engine.job.failures import divergence_advice
from epochtop.engine.job.job import Job
from epochtop.engine.protocol.commands import AnyCommand, Pause, Stop
from epochtop.engine.protocol.events import EVALUATION_CUT, RATE_LOWERED, Finished, Warned
from epochtop.engine.step.window import LossWindow, Reading
from epochtop.engine.training import checkpoint
from epochtop.engine.training.clock import Clock
from epochtop.engine.training.controls import Controls
from epochtop.engine.training.evaluations import Evaluations
from epochtop.engine.training.outcome import Ending, LoopProgress, summary
from epochtop.engine.training.publisher import LastRate, Publisher
from epochtop.engine.training.recorder import PendingSave, PendingSaves, Recorder
from epochtop.engine.training.resume import Origin

FIRST_WINDOW_S = 0.02
"""The first window is short, so that a curve is on the screen at once."""
POLL_S = 0.01
STOPPED_EVALUATION_S = 5.0
"""How long the evaluation after a stop may take; a longer one is interrupted."""


class Loop:
    """Trains one job to its end. All state that changes while training is here."""

    def __init__(
        self, job: Job, recorder: Recorder, origin: Origin | None = None, leader: RankGroupLeader | None = None
    ) -> None:
        """`leader` leads the other ranks if several processes train the job; the group must be gathered."""
        self.job, self.recorder, self.spec = job, recorder, job.spec
        origin = origin or Origin()
        self.step = origin.step
        self.deadline = 0.0
        """When the next boundary is due, by `perf_counter`."""
        self.leader, self._pace = leader, Pace()
        self.window = LossWindow(job.device, origin.step, leader.average if leader else None)
        self.refresh_s = job.spec.refresh_ms / 1000
        self.commands: SimpleQueue[AnyCommand] = recorder.commands
        self.ending: Ending | None = None
        self.clock = Clock(origin.seconds, recorder.suspension)
        self.rate = origin.learning_rate or job.spec.learning_rate
        """Learning rate before the schedule."""
        self.evaluations = Evaluations(job, self.window, leader, origin.seconds)
        self.publisher = Publisher(job, recorder, self.window, self.evaluations, origin)
        self.controls = Controls(self, self.commands, recorder)
        self._changes = list(origin.changes)
        self.choice = ExecutorChoice(job, origin.executors, self._rate_at)
        self.executor: Executor | None = None
        self._device_pace = DevicePace(job.device)
        self._enqueue_limit: float = math.inf
        """Step at which enough is enqueued for a refresh, whatever the clock says."""
        self._next_evaluation = self._next_save = math.inf
        self._pending_saves = PendingSaves()
        if origin.values is not None:
            self.evaluations.load_state_dict(origin.values, origin.best, origin.best_step)

    def prepare(self) -> Executor:
        """The executor, ready for the next step. A program that must be compiled may take a minute."""
        if self.executor is None:
            self.apply_rate()
            self.executor = self.choice.begin(self.step)
        return self.executor

    def run(self) -> Finished:
        """Take every step; returns the summary. All events before it are handed over already."""
        self._use(self.prepare())
        self.clock.start()
        now = self.clock.seconds()
        eval_every = 0.0 if self.spec.eval_epochs else self.spec.eval_every
        self._next_evaluation = now + eval_every if eval_every else math.inf
        self._next_save = now + self.spec.save_every if self.spec.save_every else math.inf
        self.deadline = perf_counter() + min(FIRST_WINDOW_S, self.refresh_s)
        self._train()
        self.read_all()
        self.clock.stop()
        return self._finish()

    def _train(self) -> None:
        self.apply_rate()
        while self.ending is None:
            self._arrive()
            if self.ending or self.step >= self.job.plan.steps:
                return
            if self.leader is None:
                self._run_to(self._milestone())
            else:
                self._run_together(self.leader, self._milestone())

    def _run_to(self, milestone: int) -> None:
        window, rate, executor = self.window, self._rate_at, self.prepare()
        while self.step < milestone:
            self.step += executor.run(window, self.step, milestone - self.step, rate)
            if perf_counter() >= self.deadline or self.step >= self._enqueue_limit:
                self._boundary()
                executor = self.prepare()
                if self.ending:
                    return

    def _run_together(self, leader: RankGroupLeader, milestone: int) -> None:
        """Like :meth:`_run_to`, but looks at the clock only after the steps that all ranks were ordered to take."""
        while self.step < milestone and self.ending is None:
            started_at = perf_counter()
            count = int(min(self._pace.steps, milestone - self.step, self._enqueue_limit - self.step))
            leader.take_steps(count, self.rate, self.job.schedule.state_dict())
            run_steps(self.job, self.window, self.step, count, self.rate)
            self.step += count
            now = perf_counter()
            self._pace.update(count, now - started_at, self.refresh_s)
            if now >= self.deadline or self.step >= self._enqueue_limit:
                self._boundary()

    def _rate_at(self, step: int) -> float:
        return self.rate * self.job.schedule.factor(step)

    def apply_rate(self) -> None:
        """Give the update rule the learning rate of the next step."""
        self.job.update.learning_rate = self._rate_at(self.step)

    def rescue(self) -> None:
        """After an exception: read the losses of the steps before it, if the device still answers."""
        with contextlib.suppress(Exception):
            if self.leader is None:
                self.read_all()
            elif self.window.is_ready:  # a lost rank may have left an exchange that never ends
                self._publish(self.window.drain())  # the losses of the last steps may lack those of other ranks

    def wake(self) -> None:
        """Make the next step end in a boundary. May be called from another thread."""
        self.deadline = 0.0

    # --- at steps that are known beforehand -------------------------------------------------------------

    def _milestone(self) -> int:
        """The next step at which something is due, whatever the clock says."""
        milestones = [self.job.plan.steps, *(change.step for change in self._changes[:1])]
        if self.choice.due is not None and self.leader is None:
            milestones.append(self.choice.due)
        for epochs in (self.spec.eval_epochs, self.spec.keep_epochs):
            if epochs:
                interval = epochs * self.job.plan.steps_per_epoch
                milestones.append((self.step // interval + 1) * interval)
        return min(milestones)

    def _arrive(self) -> None:
        while self._changes and self._changes[0].step <= self.step:
            self.rate = self._changes.pop(0).value
            self.apply_rate()
        while self.ending is None and self.choice.due is not None and self.choice.due <= self.step:
            self._switch()
        if self.step and self._due(self.spec.eval_epochs):
            self._evaluate_due()
            if self.evaluations.decides and self.ending is None:
                self.read_all()  # the one wait that an evaluation may cost: the next step depends on it
                self._decide()
        if self.step and self._due(self.spec.keep_epochs):
            self._wait_for_saves()
            kind = f"epoch-{self.step // self.job.plan.steps_per_epoch}"
            self._attach_save(PendingSave(kind, self.step, self._unsharded(job_state.weights(self.job)), {}))

    def _due(self, epochs: int) -> bool:
        return epochs > 0 and self.step % (epochs * self.job.plan.steps_per_epoch) == 0

    def _decide(self) -> None:
        if self.evaluations.lowered:
            self.apply_rate()
            message = f"loss stopped improving; learning rate lowered to {self.job.update.learning_rate:g}"
            self.publisher.warn(message, RATE_LOWERED, self.step)
        if self.evaluations.patience.over:
            self.ending = Ending("finished", f"no better loss in {self.spec.patience} evaluations")

    def _switch(self) -> None:
        """Let another executor take over. Commands are obeyed while it is being built."""
        while self.ending is None and not self.choice.wait(POLL_S):
            if perf_counter() >= self.deadline:
                self._boundary()
        if self.ending is not None:
            return
        executor, event = self.choice.switch(self.step)
        self._use(executor or self.prepare())
        if event is not None:
            self.recorder.put(event)

    def _use(self, executor: Executor) -> None:
        self.executor = executor
        self._enqueue_limit = self.step + self._device_pace.steps_within(self.refresh_s)

    # --- once per refresh ------------------------------------------------------------------------------

    def _boundary(self) -> None:
        self._publish(self._turn())
        self.controls.obey()
        if self.recorder.congested:
            self._wait_for_disk()
        seconds = self.clock.seconds()
        if seconds >= self._next_evaluation and self.ending is None and self.evaluations.budget.allows(seconds):
            self._evaluate_within_budget(seconds)
        if self._pending_saves.requested:
            self.save()
        if seconds >= self._next_save:
            self.save()
            self._next_save = self.clock.seconds() + self.spec.save_every
        if self.spec.max_seconds and seconds >= self.spec.max_seconds and not self.ending:
            self.ending = Ending("finished", f"the training time of {self.spec.max_seconds:g} s is over")
        self.deadline = perf_counter() + self.refresh_s
        self._use(self.prepare())

    def _wait_for_disk(self) -> None:
        """Take no step while memory holds as many unwritten losses as it may. Commands are obeyed."""
        self.clock.stop()
        while self.recorder.congested and self.ending is None:
            sleep(POLL_S)
            self.controls.obey()
        self.clock.start()

    def _wait_for_saves(self) -> None:
        """Take no step while the disk is slower than the epochs whose checkpoints are kept. Commands are obeyed."""
        if not self._pending_saves.full:
            return
        self.read_all()
        self.clock.stop()
        while self._pending_saves.full and self.ending is None:
            sleep(POLL_S)
            self.controls.obey()
        self.clock.start()

    def read_all(self) -> None:
        """Read and publish everything that is enqueued; the device is idle afterwards."""
        self._publish(self._turn())
        self._publish(self.window.drain())

    def _turn(self) -> Reading | None:
        """Send the window to the host; returns the one before it, on the CPU itself."""
        self.window.attach(LastRate(self.job.update.learning_rate), ())
        return self.window.turn(self.clock.seconds())

    def _publish(self, reading: Reading | None) -> None:
        if reading is not None:
            self._device_pace.update(len(reading.losses), reading.device_s, reading.waited)
            self.ending = self.publisher.publish(reading) or self.ending

    # --- evaluation, checkpoints, the end --------------------------------------------------------------

    def _evaluate_due(self) -> None:
        """Evaluate at this step. A stop or a pause interrupts it; after a pause it is repeated."""
        while self.ending is None:
            if self.evaluations.enqueue(self.step, self.clock.seconds(), lambda _: self.controls.waits(Stop, Pause)):
                return
            self.controls.obey()

    def _evaluate_within_budget(self, seconds: float) -> None:
        """Evaluate, unless a command interrupts it, or it takes too much of the training time so far."""

        def interrupt(spent_s: float) -> bool:
            return self.controls.waits(Stop, Pause) or self.evaluations.over_budget(seconds, spent_s)

        self.evaluations.enqueue(self.step, seconds, interrupt)
        self._next_evaluation = self.clock.seconds() + self.spec.eval_every
        self.controls.obey()

    def _evaluate_last(self, seconds: float, stopped: bool) -> None:
        """Evaluate the last weights. After a stop that may take some seconds only; another stop interrupts it at once."""

        def interrupt(spent_s: float) -> bool:
            return self.controls.waits(Stop) or (stopped and spent_s > STOPPED_EVALUATION_S)

        self.evaluations.enqueue_last(self.step, seconds, interrupt)
        if self.evaluations.cut and self.job.eval_split != "train":
            message = f"the run was stopped before step {self.step:,} was evaluated; earlier evaluations are in the log"
            self.recorder.put(Warned(message=message, code=EVALUATION_CUT))

    def save(self) -> bool:
        """Enqueue copies of the state; they are written, the best first, when they have reached the host.

        While an earlier state waits for the disk, requests are merged. False if a request for this state has to wait.
        """
        if self._pending_saves.defers(self.step):
            return not self._pending_saves.requested
        self._save_best()
        self._save_last()
        return True

    def _save_last(self, final: bool = False) -> None:
        state, values = job_state.capture(self.job) if self.leader is None else self.leader.state(self.job)
        values |= self.evaluations.state_dict()
        values |= {
            "learning_rate": self.rate,
            "test_loss": self.evaluations.best.newest_loss,
            "seconds": round(self.clock.seconds(), 6),
        }
        save = PendingSave("last", self.step, state, values, final)
        self._pending_saves.newest = save.step, save.processed
        self._attach_save(save)

    def _save_best(self, final: bool = False) -> None:
        best = self.evaluations.best
        if best.weights is not None and best.unsaved:
            best.unsaved = False
            values: job_state.Values = {"test_loss": best.loss, "test_metric": best.metric}
            self._attach_save(PendingSave("best", best.step, self._unsharded(best.weights, best.step), values, final))

    def _unsharded(self, weights: dict[str, Tensor], step: int | None = None) -> dict[str, Tensor]:
        """Copies of all rows of the weights that were evaluated before `step`, or of the current ones."""
        return weights if self.leader is None else self.leader.unsharded(self.job, weights, step)

    def _attach_save(self, save: PendingSave) -> None:
        self._pending_saves.add(save.processed)
        self.window.attach(save, tuple(save.tensors.values()), stay=True)

    def _finish(self) -> Finished:
        ending = self.ending or Ending("finished", f"all {self.job.plan.steps:,} steps are done")
        diverged = ending.outcome == "diverged"
        seconds = self.clock.seconds()
        progress = LoopProgress(
            self.step, self.job.plan.steps_per_epoch, seconds, self.window.reads, self.window.waited_s
        )
        if not diverged:
            self._evaluate_last(seconds, stopped=ending.outcome == "stopped")
            self.read_all()  # the best weights must be known before they are saved
        self._save_best(final=True)
        if not diverged:
            self._save_last(final=True)
        self.read_all()
        return summary(
            ending,
            progress,
            self.publisher.totals,
            self.evaluations.results(),
            self.publisher.range_test,
            self._advice() if diverged else "",
        )

    def _advice(self) -> str:
        """What helps a run that diverged."""
        bad_step = self.publisher.totals.bad_step or 0
        newest = checkpoint.newest(self.recorder.run, (checkpoint.LAST, checkpoint.PREVIOUS), bad_step)
        values, step = (newest.info.values, newest.info.step) if newest.info else ({}, 0)
        return divergence_advice(self.job, bad_step, self._rate_at, newest.tensors, values, step)
