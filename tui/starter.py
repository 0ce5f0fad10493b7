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

from engine.protocol import Accepted, Plan, Ready, Refused
from engine.spec import RunSpec
from tui.standby import EngineDied, Standby


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
    """`spec` cannot be trained here; `begun` tells whether it was meant to start."""

    spec: RunSpec
    refused: Refused
    begun: bool


@dataclass
class Begun(Message):
    """A run directory exists and training begins."""

    run: Path


@dataclass
class StandbyDied(Message):
    """The engine ended before it had a run."""

    reason: str
    begun: bool


@dataclass(frozen=True)
class _Wish:
    spec: RunSpec | None
    home: Path | None = None


class Starter:
    """Asks a standby from a thread of its own. `post` takes messages from any thread."""

    def __init__(self, post: Callable[[Message], object], make: Callable[[], Standby] = Standby) -> None:
        self._post, self._make = post, make
        self._wishes: SimpleQueue[_Wish | None] = SimpleQueue()
        self._standby: Standby | None = None
        self._engines: dict[Path, Standby] = {}
        threading.Thread(target=self._work, name="starter", daemon=True).start()

    def warm(self) -> None:
        """Have a standby ready."""
        self._wishes.put(_Wish(None))

    def describe(self, spec: RunSpec) -> None:
        """Ask what a run would do; an older question that still waits is dropped."""
        self._wishes.put(_Wish(spec))

    def begin(self, spec: RunSpec, home: Path) -> None:
        """Start a run."""
        self._wishes.put(_Wish(spec, home))

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
            if wish.home is None and not self._wishes.empty():
                continue  # a newer wish makes this one stale
            try:
                self._grant(wish)
            except EngineDied as error:
                self._standby = None
                self._post(StandbyDied(str(error), begun=wish.home is not None))
            except OSError as error:
                self._standby = None
                self._post(StandbyDied(f"no engine could be started: {error.strerror}", begun=wish.home is not None))

    def _grant(self, wish: _Wish) -> None:
        standby = self._fresh()
        if wish.spec is None:
            return
        if wish.home is None:
            reply: Plan | Accepted | Refused = standby.describe(wish.spec)
        else:
            reply = standby.begin(wish.spec, wish.home)
        self._answer(wish, wish.spec, reply)

    def _fresh(self) -> Standby:
        if self._standby is None:
            self._standby = self._make()
            self._post(StandbyReady(self._standby.ready()))
        return self._standby

    def _answer(self, wish: _Wish, spec: RunSpec, reply: Plan | Accepted | Refused) -> None:
        match reply:
            case Plan():
                self._post(Planned(spec, reply))
            case Refused():
                self._post(Rejected(spec, reply, begun=wish.home is not None))
            case Accepted():
                assert self._standby is not None
                self._engines[Path(reply.run)], self._standby = self._standby, None
                self._post(Begun(Path(reply.run)))
