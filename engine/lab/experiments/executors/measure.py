"""Measures the set-up and the steps of each executor on every device."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import msgspec
import torch

from epochtop.engine.execution.executor import Executor, Unsupported
from epochtop.engine.job.job import Job
from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.experiments.executors.schema import Fields, JobFacts, LeftOut, SetUpTime, StepTime
from epochtop.engine.lab.experiments.executors.subprocess import ExecutorProcess, NotReady, SetUpRequest
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.sampling import Case, interleave, restores_threads
from epochtop.engine.lab.instruments.stepping import Stepping, empty_cache, set_up
from epochtop.engine.lab.measurements import Measurement

FIRST_S = 7.0
"""Time for eager and graph before compile is tried: these steps are measured in any case."""
LAST_S = 5.0
"""Time that must be left when compile is ready, to measure it and the others in turn."""
PATIENCE_S = 180.0
"""Longest wait for compile if it was requested."""
LEAST_SHARE = 0.25
"""Part of the budget for eager and graph, even if setting them up took all of it."""
SET_UPS = 3
BUILD_S = 8.0
"""Time that a C compiler may take in any case."""
LATER_ROUNDS = 1000
"""Number of the first round after compile became ready."""


@restores_threads
def measure(context: ExperimentContext) -> Iterator[Measurement]:
    """Rows of the kinds `job`, `setup`, `step` and `left_out`."""
    # a request to wait for the compiler on one device leaves as much time for the next device
    least_s = context.left_s() / len(context.devices) if _compile_field(context) == "yes" else 0.0
    for device in context.devices:
        share_s = max(least_s, context.share_s(device))
        yield from _DeviceExecutors(context.with_time(share_s), device, perf_counter() + share_s).rows()


def _compile_field(context: ExperimentContext) -> str:
    assert isinstance(context.fields, Fields)
    return context.fields.compile


class _DeviceExecutors:
    """The executors on one device, measured until the time `end_s`."""

    def __init__(self, context: ExperimentContext, device: str, end_s: float) -> None:
        self._context, self._device, self._end_s = context, device, end_s
        self._cases: list[Case[StepTime]] = []
        self._first_setups: dict[str, float] = {}
        """Seconds of the first set-up, by executor."""

    def _left_s(self) -> float:
        return max(0.0, self._end_s - perf_counter())

    def rows(self) -> Iterator[Measurement]:
        self._context.note(f"building the job on {self._device}")
        job = job_of(self._context.spec, self._device)
        self._steps, self._spec = job.plan.steps, msgspec.structs.replace(job.spec, threads=torch.get_num_threads())
        yield JobFacts(device=self._device, steps=self._steps, threads=self._spec.threads)
        for name in ("eager", "graph"):
            yield from self._in_this_process(job_of(self._spec, self._device, job.workload), name)
        reason = self._no_compile_reason()
        if reason:
            yield LeftOut(device=self._device, executor="compile", why=reason)
            yield from self._step_rows(max(self._left_s(), self._context.budget_s * LEAST_SHARE))
            return
        yield from self._step_rows(min(FIRST_S, self._left_s() / 4))
        yield from self._compile_rows()

    # --- in this process -----------------------------------------------------------------------------------------

    def _in_this_process(self, job: Job, name: str) -> Iterator[Measurement]:
        self._context.note(f"setting up {name} on {self._device}")
        try:
            executor = yield from self._set_ups(job, name)
        except Unsupported as error:
            yield LeftOut(device=self._device, executor=name, why=str(error))
            return
        self._add_case(name, Stepping(job, executor))

    def _set_ups(self, job: Job, name: str) -> Generator[Measurement, None, Executor]:
        """Set it up several times, as for a first and for a later run; returns the last one. Raises Unsupported."""
        c_programs = name == "graph" and self._device == "cpu"
        end_s = perf_counter() + self._left_s() / 4
        turn = 0
        while c_programs and turn < SET_UPS and (turn == 0 or perf_counter() < end_s):
            self._context.check()
            with empty_cache(max(BUILD_S, self._left_s() / 2)):
                yield self._set_up_row(name, "new", turn, set_up(job, name)[1])
            turn += 1
        for again in range(SET_UPS):
            if again > int(c_programs) and perf_counter() > end_s:
                break
            self._context.check()
            executor, seconds = set_up(job, name)
            if not c_programs or again:  # the first one may have had to be built for the user's own cache
                yield self._set_up_row(name, "kept" if c_programs else "new", again, seconds)
        return executor

    def _set_up_row(self, name: str, cache: str, turn: int, seconds: float) -> SetUpTime:
        self._first_setups.setdefault(name, seconds)
        return SetUpTime(device=self._device, executor=name, cache=cache, round=turn, seconds=seconds)

    def _add_case(self, name: str, run: Any) -> None:
        self._cases.append(Case(partial(self._step_row, name), run))

    def _step_row(self, name: str, *, seconds: float, **turn: Any) -> StepTime:
        """The row of a step, with the job's whole run; `turn` has `round` and `repeats`."""
        run_s = self._first_setups[name] + self._steps * seconds
        return StepTime(
            device=self._device, executor=name, seconds=seconds, steps=self._steps, run_seconds=run_s, **turn
        )

    def _step_rows(self, seconds: float, first_round: int = 0) -> Iterator[StepTime]:
        """Steps of all executors in turn."""
        if not self._cases:
            return
        self._context.note(f"running steps on {self._device}")
        for row in interleave(self._context.with_time(seconds), self._cases, seconds):
            yield msgspec.structs.replace(row, round=first_round + row.round)

    # --- in another process --------------------------------------------------------------------------------------

    def _no_compile_reason(self) -> str:
        """Why compile is not tried; empty if it is."""
        field = _compile_field(self._context)
        if field == "no":
            return "as requested (compile=no)"
        if field == "auto" and self._context.quick:
            return "its compiler takes too long for a quick measurement; try without --quick, or with compile=yes"
        if field == "auto" and self._left_s() < 2 * LAST_S:
            return "no time was left; compile=yes waits for it"
        return ""

    def _compile_rows(self) -> Iterator[Measurement]:
        patient = _compile_field(self._context) == "yes"
        within_s = PATIENCE_S if patient else self._left_s() - LAST_S
        self._context.note(f"setting up compile on {self._device}, for at most {within_s:.0f} s")
        request = SetUpRequest(spec=self._spec, device=self._device, executor="compile")
        left_out = partial(LeftOut, device=self._device, executor="compile")
        try:
            with ExecutorProcess(self._context, request) as process:
                ready = process.ready(within_s)
                yield self._set_up_row("compile", ready.cache, 0, ready.seconds)
                self._add_case("compile", process)
                yield from self._step_rows(max(LAST_S, self._left_s()), LATER_ROUNDS)
        except NotReady:
            yield left_out(why=f"not ready within {within_s:.0f} s; compile=yes waits longer")
        except Unsupported as error:
            yield left_out(why=str(error))
