"""The thread that owns a standby engine and sends it requests; replies arrive as messages.

It starts an engine on the first request, and the next one only when that is needed: importing torch during a training
run would slow the run down.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from textual.message import Message

from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.requests import Accepted, Refused
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.client.messages import (
    EngineProgress,
    ExperimentRefused,
    ExperimentStarted,
    RunPlanned,
    RunRefused,
    RunStarted,
    StandbyDied,
    StandbyReady,
)
from epochtop.tui.client.standby import EngineDied, Standby

EXIT_S = 30.0
"""Longest wait for the exit status of an engine that has released its run."""


@dataclass(frozen=True)
class _Request:
    """Without fields: have an engine ready. Otherwise describe `spec`, start it in `home`, measure it, or resume `run`."""

    spec: RunSpec | None = None
    home: Path | None = None
    run: Path | None = None
    trusted_owner: str = ""
    experiment: ExperimentRequest | None = None

    @property
    def starts(self) -> bool:
        return self.home is not None or self.run is not None


class Starter:
    """Sends requests to a standby from its own thread. `post` accepts messages from any thread."""

    def __init__(self, post: Callable[[Message], object], make: Callable[[], Standby] | None = None) -> None:
        self._post = post
        self._make = make or (lambda: Standby(lambda message: post(EngineProgress(message))))
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._standby: Standby | None = None
        self._engines: dict[Path, Standby] = {}
        threading.Thread(target=self._work, name="starter", daemon=True).start()

    def warm(self) -> None:
        """Have a standby ready."""
        self._requests.put(_Request())

    def describe(self, spec: RunSpec) -> None:
        """Request the plan of a run; replaces an older request that is still waiting."""
        self._requests.put(_Request(spec))

    def begin(self, spec: RunSpec, home: Path) -> None:
        """Start a run."""
        self._requests.put(_Request(spec, home))

    def measure(self, experiment: ExperimentRequest, spec: RunSpec, home: Path) -> None:
        """Start an experiment."""
        self._requests.put(_Request(spec, home, experiment=experiment))

    def resume(self, run: Path, trusted_owner: str = "") -> None:
        """Resume a run that had ended. `trusted_owner` is another owner of the run whose task may be executed."""
        self._requests.put(_Request(run=run, trusted_owner=trusted_owner))

    def exit_code(self, run: Path) -> int | None:
        """Exit status of the dead engine of a run that was started here; None for other runs. Waits for it.

        An engine that dies releases the lock of its run a moment before its exit status is known.
        """
        engine = self._engines.get(run)
        if engine is None:
            return None
        try:
            return engine.process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End the standby; engines that have a run continue."""
        self._requests.put(None)
        if self._standby is not None:
            self._standby.close()

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            if not request.starts and not self._requests.empty():
                continue  # a newer request replaces this one
            try:
                self._serve(request)
            except EngineDied as error:
                self._standby = None
                self._report_death(str(error), request)
            except OSError as error:
                self._standby = None
                self._report_death(f"the engine could not be started: {error.strerror}", request)

    def _report_death(self, reason: str, request: _Request) -> None:
        self._post(ExperimentRefused(reason) if request.experiment else StandbyDied(reason, starting=request.starts))

    def _serve(self, request: _Request) -> None:
        standby = self._ready_standby()
        if request.run is not None:
            self._report_start(standby.resume(request.run, request.trusted_owner))
        elif request.experiment is not None and request.spec is not None and request.home is not None:
            self._report_start(standby.measure(request.experiment, request.spec, request.home), experiment=True)
        elif request.spec is not None and request.home is not None:
            self._report_start(standby.begin(request.spec, request.home))
        elif request.spec is not None:
            plan = standby.describe(request.spec)
            if isinstance(plan, Refused):
                self._post(RunRefused(plan, starting=False))
            else:
                self._post(RunPlanned(request.spec, plan))

    def _ready_standby(self) -> Standby:
        if self._standby is None:
            self._standby = self._make()
            self._post(StandbyReady(self._standby.ready()))
        return self._standby

    def _report_start(self, reply: Accepted | Refused, experiment: bool = False) -> None:
        if isinstance(reply, Refused):
            refusal = ExperimentRefused(reply.message, reply.field) if experiment else RunRefused(reply, starting=True)
            self._post(refusal)
            return
        assert self._standby is not None
        run = Path(reply.run)
        self._engines[run], self._standby = self._standby, None
        self._post(ExperimentStarted(run) if experiment else RunStarted(run))
