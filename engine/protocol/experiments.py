"""Experiments in the protocol: the request for one, and its verdict.

Imports msgspec and the standard library only.
"""

from __future__ import annotations

import msgspec

Cell = float | int | str | None
"""A value in a row of results; None is unknown."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The conclusion that an experiment draws from its rows."""

    finding: str
    """The answer, in one sentence."""
    evidence: tuple[str, ...]
    """Measured values that support the finding, one sentence each."""
    next_step: str
    """Recommended action, in one sentence."""
    uncertainty: str
    """Spread of the measurements and limits of the method: reasons why the finding may be wrong."""
    setting: dict[str, str] = {}
    """Setting to try: texts by field name of :class:`~epochtop.engine.protocol.spec.RunSpec`; empty for none."""
    lines: tuple[Line, ...] = ()
    """Curves to draw over the rows, such as a fit."""
    estimates: tuple[Estimate, ...] = ()
    """The measured quantities that the finding states, for programs that read verdicts."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A measured quantity with the interval in which the median of another run is expected. It has three rounds or more.

    The interval also spans the values of earlier results on the machine under the same conditions.
    """

    name: str
    unit: str
    """`s`, `×` or `%`."""
    value: float
    low: float
    high: float
    count: int
    """Rounds behind it."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A computed curve in the first picture of an experiment."""

    name: str
    points: tuple[tuple[float, float], ...]
    """Pairs of x and y, in the units of the columns."""


class ExperimentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for an experiment."""

    name: str
    """Name of the experiment, such as `reads`."""
    fields: dict[str, str] = {}
    """The experiment's fields: texts by name; absent fields keep their defaults."""
    quick: bool = False
    """Whether to spend ten seconds instead of the full budget, with fewer measurements."""
