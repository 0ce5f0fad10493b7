"""Where the facts of a machine come from: a thread of the panel asks, never the event loop."""

from __future__ import annotations

from typing import Protocol

from epochtop.engine.hardware import Machine, Sample, Sampler, identify


class Source(Protocol):
    """Where the facts come from. Asked from one thread only; may be slow, may hang."""

    def identify(self) -> Machine:
        """What the machine is."""

    def sample(self) -> Sample:
        """How busy it is now."""

    def watch_engine(self, pid: int | None) -> None:
        """Whose share of the machine is wanted; called from the event loop."""


class ThisMachine:
    """The machine that the app runs on."""

    def __init__(self) -> None:
        self._sampler: Sampler | None = None
        self._engine_pid: int | None = None

    def identify(self) -> Machine:
        """What the machine is."""
        return identify(watch=self._opened().gpus)

    def sample(self) -> Sample:
        """How busy it is now."""
        sampler = self._opened()
        sampler.engine_pid = self._engine_pid
        return sampler.sample()

    def watch_engine(self, pid: int | None) -> None:
        """Whose share of the machine is wanted."""
        self._engine_pid = pid

    def _opened(self) -> Sampler:
        if self._sampler is None:
            self._sampler = Sampler()
        return self._sampler
