"""Events of an experiment. Imports msgspec only."""

from __future__ import annotations

from typing import Literal

from epochtop.engine.protocol.events.event import Event, UnixTime
from epochtop.engine.protocol.experiments import Cell, Verdict


class Prepared(Event, frozen=True, kw_only=True):
    """An experiment is about to measure; the first event of its log."""

    time: UnixTime
    """Unix time in seconds."""
    budget_s: float
    """Time budget in seconds."""
    devices: tuple[str, ...]
    """Devices to measure, by torch's names."""
    machine: dict[str, Cell]
    """Facts about the machine: processor, threads, memory, GPU, versions."""
    cannot_see: tuple[str, ...] = ()
    """Limits of this machine: what it cannot show, one sentence each."""


class Measured(Event, frozen=True, kw_only=True):
    """One row of an experiment's results."""

    values: dict[str, Cell]
    """Values by column; the columns belong to the experiment."""


class Concluded(Event, frozen=True, kw_only=True):
    """The experiment has ended, by itself or by command; the last event of its log."""

    time: UnixTime
    """Unix time in seconds."""
    seconds: float
    """Duration in seconds."""
    outcome: Literal["finished", "stopped"]
    verdict: Verdict
    cannot_see: tuple[str, ...] = ()
    """Limits found while measuring: what this machine could not show, one sentence each."""
