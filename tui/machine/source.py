"""Where the facts of a machine come from. Called from the panel's thread, never from the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from epochtop.engine.hardware import Machine, Sample, Sampler, identify

if TYPE_CHECKING:
    from epochtop.engine.runs.remote.machine import MachineFeed


class MachineSource(Protocol):
    """A source of facts. Its readers run in one thread only; they may be slow and may hang."""

    @property
    def silence(self) -> str:
        """Why nothing arrives, if nothing does."""

    def identify(self) -> Machine:
        """Identify the machine."""

    def sample(self) -> Sample:
        """How busy the machine is now."""

    def watch_engine(self, pid: int | None) -> None:
        """Include the process `pid` in samples, or none; called from the event loop."""


class ThisMachine:
    """The machine the app runs on."""

    silence = "no response from the sensors"

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


class OtherMachine:
    """A machine that is reached over ssh. `problem` tells why nothing arrives from it; empty while the connection works."""

    def __init__(self, feed: MachineFeed, name: str, problem: Callable[[], str]) -> None:
        self._feed, self._name, self._problem = feed, name, problem
        self._engine_pid: int | None = None
        self._seen = 0
        """How many messages about the load had arrived with the last sample."""

    @property
    def silence(self) -> str:
        """Why nothing arrives, if nothing does."""
        return self._problem() or f"no figures from {self._name}"

    def identify(self) -> Machine:
        """Identify the machine. Waits for its messages. Raises UnreadableMachineError."""
        from epochtop.engine.hardware.remote.machine import check_identity, machine_from

        self._feed.watch(self._engine_pid)
        check_identity(self._feed.identity())
        return machine_from(self._feed.identity(), self._feed.load_after(0)[1])

    def sample(self) -> Sample:
        """How busy the machine is now. Waits for its next message. Raises UnreadableMachineError."""
        from epochtop.engine.hardware.remote.machine import sample_from

        self._seen, load = self._feed.load_after(self._seen)
        return sample_from(load)

    def watch_engine(self, pid: int | None) -> None:
        """Include the process `pid` in samples, or none."""
        self._engine_pid = pid
        self._feed.watch(pid)
