"""The thread that keeps a standby engine and asks it; answers arrive as messages.

A standby is started when somebody first needs one, and the next only when it is needed again: importing torch
beside a running training would slow it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from textual.message import Message

from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.requests import Accepted, Plan, Ready, Refused
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.client.standby import EngineDied, Standby


@dataclass
class StandbyReady(Message):
    """The engine has imported torch."""

    ready: Ready


@dataclass
class Planned(Message):
    """What a run of `spec` would do."""

    spec: RunSpec
    plan: Plan


@dataclass
class Rejected(Message):
    """What was asked for cannot be trained here; `begun` tells whether it was meant to start."""

    refused: Refused
    begun: bool


@dataclass
class Begun(Message):
    """A run directory exists and training begins, or goes on."""

    run: Path


@dataclass
class Measuring(Message):
    """The run directory of an experiment exists and it measures."""

    run: Path


@dataclass
class NotMeasured(Message):
    """An experiment was asked for and has not begun; `field` is what was wrong, if it was one."""

    reason: str
    field: str = ""


@dataclass
class Said(Message):
    """What a request that takes long is doing."""

    message: str


@dataclass
class StandbyDied(Message):
    """The engine ended before it had a run."""

    reason: str
    begun: bool


@dataclass(frozen=True)
class _Wish:
    """Have an engine ready; describe `spec`; begin it under `home`, or measure it; or go on with `run`."""

    spec: RunSpec | None = None
    home: Path | None = None
    run: Path | None = None
    experiment: ExperimentRequest | None = None

    @property
    def begins(self) -> bool:
        return self.home is not None or self.run is not None


class Starter:
    """Asks a standby from a thread of its own. `post` takes messages from any thread."""

    def __init__(self, post: Callable[[Message], object], make: Callable[[], Standby] | None = None) -> None:
        self._post = post
        self._make = make or (lambda: Standby(lambda message: post(Said(message))))
        self._wishes: SimpleQueue[_Wish | None] = SimpleQueue()
        self._standby: Standby | None = None
        self._engines: dict[Path, Standby] = {}
        threading.Thread(target=self._work, name="starter", daemon=True).start()

    def warm(self) -> None:
        """Have a standby ready."""
        self._wishes.put(_Wish())

    def describe(self, spec: RunSpec) -> None:
        """Ask what a run would do; an older question that still waits is dropped."""
        self._wishes.put(_Wish(spec))

    def begin(self, spec: RunSpec, home: Path) -> None:
        """Start a run."""
        self._wishes.put(_Wish(spec, home))

    def measure(self, experiment: ExperimentRequest, spec: RunSpec, home: Path) -> None:
        """Start an experiment."""
        self._wishes.put(_Wish(spec, home, experiment=experiment))

    def resume(self, run: Path) -> None:
        """Go on with a run that had ended."""
        self._wishes.put(_Wish(run=run))

    def exit_code(self, run: Path) -> int | None:
        """How the engine of a run that was started here ended; None if it lives or is not ours."""
        engine = self._engines.get(run)
        return engine.process.poll() if engine else None

    def close(self) -> None:
        """Let the standby end; engines that have a run are left alone."""
        self._wishes.put(None)
        if self._standby is not None:
            self._standby.close()

    def _work(self) -> None:
        while (wish := self._wishes.get()) is not None:
            if not wish.begins and not self._wishes.empty():
                continue  # a newer wish makes this one stale
            try:
                self._grant(wish)
            except EngineDied as error:
                self._standby = None
                self._lament(str(error), wish)
            except OSError as error:
                self._standby = None
                self._lament(f"no engine could be started: {error.strerror}", wish)

    def _lament(self, reason: str, wish: _Wish) -> None:
        self._post(NotMeasured(reason) if wish.experiment else StandbyDied(reason, begun=wish.begins))

    def _grant(self, wish: _Wish) -> None:
        standby = self._fresh()
        if wish.run is not None:
            self._answer_begin(standby.resume(wish.run))
        elif wish.experiment is not None and wish.spec is not None and wish.home is not None:
            self._answer_begin(standby.measure(wish.experiment, wish.spec, wish.home), experiment=True)
        elif wish.spec is not None and wish.home is not None:
            self._answer_begin(standby.begin(wish.spec, wish.home))
        elif wish.spec is not None:
            plan = standby.describe(wish.spec)
            self._post(Rejected(plan, False) if isinstance(plan, Refused) else Planned(wish.spec, plan))

    def _fresh(self) -> Standby:
        if self._standby is None:
            self._standby = self._make()
            self._post(StandbyReady(self._standby.ready()))
        return self._standby

    def _answer_begin(self, reply: Accepted | Refused, experiment: bool = False) -> None:
        if isinstance(reply, Refused):
            self._post(NotMeasured(reply.message, reply.field) if experiment else Rejected(reply, begun=True))
            return
        assert self._standby is not None
        run = Path(reply.run)
        self._engines[run], self._standby = self._standby, None
        self._post(Measuring(run) if experiment else Begun(run))
