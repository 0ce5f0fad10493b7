"""Which executor takes the steps of a run: the requested one, or the one that `auto` finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from epochtop.engine.execution.auto import ExecutorSearch, difference
from epochtop.engine.execution.c.graph import CGraph
from epochtop.engine.execution.eager import Eager
from epochtop.engine.execution.executor import Executor, Rate, Unsupported
from epochtop.engine.job.job import Job
from epochtop.engine.protocol.events import EAGER_FALLBACK, EXECUTOR_READY, Noted, Switched


@dataclass(frozen=True)
class Executors:
    """The executors of a run so far: the first one, and every switch."""

    first: str
    switched: Sequence[Switched] = ()

    def at(self, step: int) -> str:
        """The executor of the step after `step` steps."""
        return next((switch.executor for switch in reversed(self.switched) if switch.step <= step), self.first)


class ExecutorChoice:
    """The choice for one run. A run that continues executes every step as it would have without the interruption."""

    def __init__(self, job: Job, earlier: Executors | None, rate: Rate) -> None:
        """`earlier` are the executors until the run was interrupted; None for a new run."""
        self._job, self._rate, self._earlier = job, rate, earlier
        self._planned: list[Switched] = []
        self._search: ExecutorSearch | None = None
        self.notes: list[Noted] = []
        """Decisions, for people."""

    def begin(self, step: int) -> Executor:
        """The executor for the next step; builds a requested graph."""
        name: str = self._job.spec.executor
        if self._earlier is not None:
            name = self._earlier.at(step)
            self._planned = [switch for switch in self._earlier.switched if switch.step > step]
        if self._job.spec.executor == "auto" and name in ("auto", "eager"):
            name = "eager"
            if self._earlier is None or not self._earlier.switched:
                self._search = ExecutorSearch(self._job, step, self._rate)
                if self._search.why:
                    self._note(f"auto stays with eager: {self._search.why}", EAGER_FALLBACK)
        return self._make(name)

    @property
    def due(self) -> int | None:
        """The step at which another executor takes over; None if none does."""
        if self._planned:
            return self._planned[0].step
        return self._search.at if self._search else None

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the executor that is due. Whether it is ready."""
        return self._search is None or bool(self._planned) or self._search.wait(seconds)

    def switch(self, step: int) -> tuple[Executor | None, Switched | None]:
        """The executor that is due, None to keep the current one, and the event to record."""
        if self._planned:
            return self._make(self._planned.pop(0).executor), None
        assert self._search is not None
        faster = self._search.result(step)
        if faster is None:  # recorded, so that a run that continues does not search again
            return None, Switched(step=step, executor="eager", why=f"auto stays with eager: {self._search.why}")
        why = "; ".join(filter(None, (faster.why, faster.executor.note)))
        return faster.executor, Switched(step=step, executor=faster.executor.name, why=why)

    def _make(self, name: str) -> Executor:
        """An executor by name; eager, with a note, if it does not support the job."""
        started_at = perf_counter()
        try:
            executor = make(self._job, name)
        except Unsupported as reason:
            self._note(f"eager instead of {name}: {reason}", EAGER_FALLBACK)
            return Eager(self._job)
        if name != "eager":
            self._note(f"{name} was ready after {perf_counter() - started_at:.2g} s", EXECUTOR_READY)
        if executor.note:
            self._note(executor.note, "")
        return executor

    @property
    def fallback(self) -> str:
        """Why steps are eager although another executor was requested; empty otherwise."""
        return next((note.message for note in self.notes if note.code == EAGER_FALLBACK), "")

    def _note(self, message: str, code: str) -> None:
        self.notes.append(Noted(message=message, code=code))


def make(job: Job, name: str) -> Executor:
    """An executor by name, ready to run. Raises Unsupported."""
    cuda = job.device.type == "cuda"
    match name:
        case "eager":
            return Eager(job)
        case "compile":
            from epochtop.engine.execution.compiled import Compiled, CompiledSteps

            if not cuda:
                return Compiled(job)
            from epochtop.engine.execution.cuda_graph import captured

            steps = CompiledSteps(job)
            executor: Executor = captured(job, make=steps, name="compile")
            executor.note = steps.note
            return executor
        case _:
            if cuda:
                from epochtop.engine.execution.cuda_graph import captured

                return captured(job)
            graph = CGraph(job)
            graph.build()
            if wrong := difference(job, graph, 0, lambda _: job.update.learning_rate):
                raise Unsupported(wrong)
            return graph
