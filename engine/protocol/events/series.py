"""Values of named series. Imports msgspec only."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from epochtop.engine.protocol.events.event import Event, Step, UnixTime


class SeriesSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a chart needs of one series in one window, so that it need not decode the values. None if no value is finite."""

    finite: int
    """Number of finite values."""
    first: float | None
    """First finite value."""
    minimum: float | None
    maximum: float | None
    last: float | None
    """Last finite value."""
    mean: float | None
    """Mean of the finite values."""
    first_bad: int | None = None
    """Position in the window of the first value that is NaN or infinite; None if all are finite."""


class Logged(Event, frozen=True, kw_only=True):
    """One window: the values of the series that were logged at the same steps.

    The steps are `first_step`, `first_step` + 1, …; or those in `steps` if they are not contiguous. A step that was logged
    before may come again, in a resumed run or with an explicit step: its last value counts.
    """

    time: UnixTime
    """Unix time in seconds at the end of the window."""
    seconds: float
    """Time since the start of the run at the end of the window, in seconds; training time without pauses, if known."""
    first_step: Step
    """Number of the first step of the window, counted from 0."""
    count: Annotated[int, Meta(ge=0, le=2**31)]
    """Number of steps in the window."""
    steps: bytes | None = None
    """Every step: little-endian int64, 8 bytes each; base64 in JSON. None if the steps are contiguous."""
    values: dict[str, bytes]
    """Values by series, one per step: little-endian float32, 4 bytes each, or float64, 8 bytes each, where float32 would
    change a value; base64 in JSON. The number of bytes shows which."""
    summaries: dict[str, SeriesSummary] = {}
    """Summaries by series; only in windows of 64 steps or more."""
    reads: int | None = None
    """Device reads so far, including this one; None if unknown."""
    waited: float | None = None
    """Seconds the loop has waited for the device so far; None if unknown."""
