"""Where the facts of a machine come from. Called from the panel's thread, never from the event loop."""

from __future__ import annotations

from typing import Protocol

from epochtop.engine.hardware import Machine, Sample, Sampler, identify


class MachineSource(Protocol):
    """A source of facts. Its readers run in one thread only; they may be slow and may hang."""

    def identify(self) -> Machine:
        """Identify the machine."""

    def sample(self) -> Sample:
        """How busy the machine is now."""

    def watch_engine(self, pid: int | None) -> None:
        """Include the process `pid` in samples, or none; called from the event loop."""


class ThisMachine:
    """The machine the app runs on."""

    def __init__(self) -> None:
        self._sampler: Sampler | None = None
        self._engine_pid: int | None = None

    def identify(self) -> Machine:
        """Identify the machine."""
        return identify(watch=self._open_sampler().gpus)

    def sample(self) -> Sample:
        """How busy the machine is now."""
        sampler = self._open_sampler()
        sampler.engine_pid = self._engine_pid
        return sampler.sample()

    def watch_engine(self, pid: int | None) -> None:
        """Include the process `pid` in samples, or none."""
        self._engine_pid = pid

    def _open_sampler(self) -> Sampler:
        if self._sampler is None:
            self._sampler = Sampler()
        return self._sampler
