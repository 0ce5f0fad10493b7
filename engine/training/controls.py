"""Commands to a run that trains: stop, pause, save, change a setting. They are obeyed between two windows.

Must never import the loop: it acts on any :class:`Controlled`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from queue import Empty, SimpleQueue
from typing import Protocol

from epochtop.engine.protocol.commands import Analyze, AnyCommand, Pause, Resume, Save, Set, Stop
from epochtop.engine.protocol.events import SETTING_REJECTED, Changed, Paused, Resumed, Warned
from epochtop.engine.protocol.fields import parse
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.training.clock import Clock
from epochtop.engine.training.outcome import Ending
from epochtop.engine.training.recorder import Recorder

LIVE_SETTINGS = ("learning_rate", "refresh_ms")
"""Settings that can change while a run trains."""


SAVE_POLL_S = 0.05
"""Interval at which a paused run looks whether a save that waits for the disk can begin."""


class Controlled(Protocol):
    """What commands act on."""

    spec: RunSpec
    step: int
    rate: float
    """Learning rate before the schedule."""
    refresh_s: float
    ending: Ending | None
    clock: Clock

    def apply_rate(self) -> None:
        """Give the update rule the learning rate of the next step."""
        ...

    def save(self) -> bool:
        """Enqueue copies of the state, to be written as checkpoints. False if that must wait for an earlier state."""
        ...

    def read_all(self) -> None:
        """Read and publish everything that is enqueued."""
        ...


class Controls:
    """Obeys the commands in a queue."""

    def __init__(self, loop: Controlled, commands: SimpleQueue[AnyCommand], recorder: Recorder) -> None:
        self._loop, self._commands, self._recorder = loop, commands, recorder
        self._waiting: deque[AnyCommand] = deque()
        """Commands that :meth:`waits` has looked at."""

    def waits(self, *kinds: type[AnyCommand]) -> bool:
        """Whether a command of one of these types has arrived and is not obeyed yet."""
        with contextlib.suppress(Empty):
            while True:
                self._waiting.append(self._commands.get_nowait())
        return any(isinstance(command, kinds) for command in self._waiting)

    def obey(self) -> None:
        """Obey all commands that have arrived. A pause lasts until a command ends it."""
        while self._loop.ending is None:
            try:
                command = self._next(block=False)
            except Empty:
                return
            self._obey(command)

    def _next(self, block: bool, timeout_s: float | None = None) -> AnyCommand:
        """The next command. Raises Empty if there is none and `block` is False, or none after `timeout_s`."""
        return self._waiting.popleft() if self._waiting else self._commands.get(block, timeout_s)

    def _obey(self, command: AnyCommand) -> None:
        match command:
            case Stop():
                self._loop.ending = Ending("stopped", f"stopped by {command.by or 'a command'}")
            case Save():
                self._loop.save()
            case Set():
                self._set(command)
            case Pause():
                self._pause(command.by)
            case Resume():
                pass  # the run is not paused
            case Analyze():
                self._reject("only a script that `epochtop run` started can be analyzed while it runs")

    def _set(self, command: Set) -> None:
        loop = self._loop
        if command.field not in LIVE_SETTINGS:
            self._reject(f"{command.field} cannot change while a run trains")
            return
        try:
            parse(command.field, repr(command.value))
        except Invalid as error:
            self._reject(str(error))
            return
        if command.field == "learning_rate" and loop.spec.schedule == "range_test":
            self._reject("range_test sets the learning rate itself")
            return
        if command.field == "learning_rate":
            loop.rate = command.value
            loop.apply_rate()
        else:
            loop.refresh_s = command.value / 1000
        self._recorder.put(Changed(step=loop.step, field=command.field, value=command.value, by=command.by))

    def _reject(self, reason: str) -> None:
        self._recorder.put(Warned(message=f"not changed: {reason}", code=SETTING_REJECTED))

    def _pause(self, by: str) -> None:
        loop = self._loop
        loop.read_all()
        loop.clock.stop()
        self._recorder.put(Paused(step=loop.step, by=by))
        save_waits = False
        while loop.ending is None:
            try:
                command = self._next(block=True, timeout_s=SAVE_POLL_S if save_waits else None)
            except Empty:
                command = Save()
            if isinstance(command, Save):
                save_waits = not loop.save()
                loop.read_all()
            elif not isinstance(command, Pause | Resume):
                self._obey(command)
            if isinstance(command, Resume | Stop):
                loop.clock.start()
                if isinstance(command, Resume):
                    self._recorder.put(Resumed(step=loop.step, by=command.by))
                return
