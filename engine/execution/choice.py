"""Which executor takes the steps of a run: the one that was asked for, or what `auto` finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from epochtop.engine.execution.auto import ExecutorSearch, difference
from epochtop.engine.execution.c.graph import CGraph
from epochtop.engine.execution.eager import Eager
from epochtop.engine.execution.executor import Executor, Rate, Unsupported
from epochtop.engine.job.job import Job
from epochtop.engine.protocol.codes import EAGER_FALLBACK, EXECUTOR_READY
from epochtop.engine.protocol.events import Noted, Switched


@dataclass(frozen=True)
class Executors:
    """How the steps of a run were executed until it ended: at first, and from which steps on otherwise."""

    first: str
    switched: Sequence[Switched] = ()

    def at(self, step: int) -> str:
        """The executor of the step after `step` steps."""
        return next((each.executor for each in reversed(self.switched) if each.step <= step), self.first)


class ExecutorChoice:
    """Of one run. A run that goes on takes every step as it was, or would have been, taken the first time."""

    def __init__(self, job: Job, before: Executors | None, rate: Rate) -> None:
        self._job, self._rate, self._before = job, rate, before
        self._planned: list[Switched] = []
        self._search: ExecutorSearch | None = None
        self.notes: list[Noted] = []

    def begin(self, step: int) -> Executor:
        """The executor for the next step. This is where a graph that was asked for is made."""
        asked: str = self._job.spec.executor
        if self._before is not None:
            asked = self._before.at(step)
            self._planned = [each for each in self._before.switched if each.step > step]
        if self._job.spec.executor == "auto" and asked in ("auto", "eager"):
            asked = "eager"
            if self._before is None or not self._before.switched:
                self._search = ExecutorSearch(self._job, step, self._rate)
                if self._search.why:
                    self._note(f"auto stays with eager: {self._search.why}", EAGER_FALLBACK)
        return self._made(asked)

    @property
    def due(self) -> int | None:
        """The step at which another executor is due; None if none is."""
        if self._planned:
            return self._planned[0].step
        return self._search.at if self._search else None

    def wait(self, seconds: float) -> bool:
        """What is due may not be ready yet: wait so long for it. Whether it is ready."""
        return self._search is None or bool(self._planned) or self._search.wait(seconds)

    def take_up(self, step: int) -> tuple[Executor | None, Switched | None]:
        """What is due, None for what there is already, and what to tell of it."""
        if self._planned:
            return self._made(self._planned.pop(0).executor), None
        assert self._search is not None
        found = self._search.result(step)
        if found is None:  # said so, that a run that goes on does not look again
            return None, Switched(step=step, executor="eager", why=f"auto stays with eager: {self._search.why}")
        return found.executor, Switched(step=step, executor=found.executor.name, why=found.why)

    def _made(self, name: str) -> Executor:
        """An executor by its name; eager, with a note, where it does not fit the job."""
        begun = perf_counter()
        try:
            made = make(self._job, name)
        except Unsupported as unfit:
            self._note(f"eager instead of {name}: {unfit}", EAGER_FALLBACK)
            return Eager(self._job)
        if name != "eager":
            self._note(f"{name} was ready after {perf_counter() - begun:.2g} s", EXECUTOR_READY)
        return made

    @property
    def fallback(self) -> str:
        """Why steps are eager although another executor was requested; empty otherwise."""
        return next((note.message for note in self.notes if note.code == EAGER_FALLBACK), "")

    def _note(self, message: str, code: str) -> None:
        self.notes.append(Noted(message=message, code=code))


def make(job: Job, name: str) -> Executor:
    """An executor by its name, ready. Raises Unfit."""
    cuda = job.device.type == "cuda"
    match name:
        case "eager":
            return Eager(job)
        case "compile":
            from epochtop.engine.execution.compiled import Compiled, CompiledSteps

            if not cuda:
                return Compiled(job)
            from epochtop.engine.execution.cuda_graph import captured

            return captured(job, make=CompiledSteps(job), name="compile")
        case _:
            if cuda:
                from epochtop.engine.execution.cuda_graph import captured

                return captured(job)
            graph = CGraph(job)
            graph.build()
            if wrong := difference(job, graph, 0, lambda _: job.update.learning_rate):
                raise Unsupported(wrong)
            return graph
