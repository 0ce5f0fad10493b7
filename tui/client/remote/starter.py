"""Starts and resumes runs of another machine with the epochtop that is installed there.

It takes the place of :class:`~epochtop.tui.client.starter.Starter`, whose engines run on this machine. Replies arrive as
messages. No plan is described before the start: each would take an engine there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from textual.message import Message

from epochtop.engine.protocol.experiments import ExperimentRequest
from epochtop.engine.protocol.fields import fields, show
from epochtop.engine.protocol.presets import CHOOSERS, preset
from epochtop.engine.protocol.requests import Refused
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.tui.client.messages import ExperimentRefused, RunRefused, RunStarted


class RemoteProgram(Protocol):
    """What starts runs on another machine."""

    @property
    def name(self) -> str:
        """The machine, as the user writes it."""

    def start(self, arguments: Sequence[str]) -> Path:
        """Have a run started or resumed, and wait for it. Raises Invalid."""

    def run_program(self, arguments: Sequence[str]) -> str:
        """Have a command run, and wait for it. Returns the first word it prints. Raises Invalid."""


class RemoteStarter:
    """Sends requests to `program` from threads. `post` accepts messages from any thread."""

    def __init__(self, post: Callable[[Message], object], program: RemoteProgram) -> None:
        self._post, self._program = post, program

    @property
    def machine(self) -> str:
        """The machine, as the user writes it."""
        return self._program.name

    def warm(self) -> None:
        """Nothing is kept ready there."""

    def describe(self, spec: RunSpec) -> None:
        """There is no plan before the start."""

    def begin(self, spec: RunSpec, home: Path) -> None:
        """Start a run."""
        try:
            arguments = ["train", "--detach", *arguments_of(spec)]
        except Invalid as error:
            self._refuse(error)
            return
        self._start(arguments)

    def resume(self, run: Path, trusted_owner: str = "") -> None:
        """Resume a run that had ended."""
        self._start(["resume", "--detach", run.name])

    def run_command(self, words: Sequence[str]) -> None:
        """Run a program of the user's own there, in the home folder of the user."""
        self._start(["run", "--detach", "--", *words])

    def open_logs(self, path: str) -> None:
        """Add logs of other tools to the list of runs there, and wait for it. Raises Invalid."""
        self._program.run_program(["open", "--", path])

    def measure(self, experiment: ExperimentRequest, spec: RunSpec, home: Path) -> None:
        """Experiments of another machine are started there."""
        self._post(ExperimentRefused(f"experiments measure their own machine; log in to {self.machine}"))

    def exit_code(self, run: Path) -> int | None:
        """The exit status of an engine there is not known."""
        return None

    def close(self) -> None:
        """Nothing is to be ended."""

    def _start(self, arguments: Sequence[str]) -> None:
        def wait() -> None:
            try:
                self._post(RunStarted(self._program.start(arguments)))
            except Invalid as error:
                self._refuse(error)

        threading.Thread(target=wait, name="remote start", daemon=True).start()

    def _refuse(self, error: Invalid) -> None:
        self._post(RunRefused(Refused(field=error.field, message=error.message), starting=True))


def arguments_of(spec: RunSpec) -> list[str]:
    """The flags of `epochtop train` for a spec, without those that its presets and defaults set anyway. Raises Invalid."""
    presets = preset(*(str(getattr(spec, name)) for name in CHOOSERS))
    arguments = []
    for field in fields():
        value = getattr(spec, field.name)
        if value == presets.get(field.name, field.default):
            continue
        flag = f"--{field.name.replace('_', '-')}"
        if field.kind != "switch":
            arguments.append(f"{flag}={show(value)}")
        elif value:
            arguments.append(flag)
        else:
            raise Invalid(field.name, "cannot be turned off for a run on another machine; start it there")
    return arguments
