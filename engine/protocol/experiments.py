"""What is asked of an experiment and what it concludes: the parts of the protocol that only experiments have.

Imports msgspec and the standard library only, as :mod:`epochtop.engine.protocol.events` does.
"""

from __future__ import annotations

import msgspec

Cell = float | int | str | None
"""A value in a row of figures."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment concludes from its rows."""

    finding: str
    """The answer, in one sentence."""
    evidence: tuple[str, ...]
    """The figures it follows from."""
    next_step: str
    """What to do with it."""
    uncertainty: str
    """What could make it wrong, and what was not seen."""
    setting: dict[str, str] = {}
    """Fields of a run that would help, with values as one types them; to be tried with a key."""
    lines: tuple[Line, ...] = ()
    """Curves to draw with the rows, such as a fit."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A computed curve in the first picture of an experiment."""

    name: str
    points: tuple[tuple[float, float], ...]
    """x and y, in the units of the columns."""


class ExperimentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment, as somebody asked for it."""

    name: str
    fields: dict[str, str] = {}
    """Its own fields, as one types them; those left out have their defaults."""
    quick: bool = False
