"""What all events have in common. Imports msgspec only."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Step = Annotated[int, Meta(ge=-(2**53), le=2**53)]
"""Number of a step, counted from 0; exact as a float64. Scripts may count from elsewhere."""

EARLIEST_S, LATEST_S = -62_135_596_800.0, 253_402_300_799.0
"""Unix times of the first and the last second that a calendar has: the beginning of year 1, the end of year 9999."""
UnixTime = Annotated[float, Meta(ge=EARLIEST_S, le=LATEST_S)]
"""Unix time in seconds, as the clock of the machine showed it."""


def is_unix_time(seconds: float) -> bool:
    """Whether a calendar has this Unix time; False for NaN."""
    return EARLIEST_S <= seconds <= LATEST_S


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Something that happened in a run or an experiment. Viewers show events and nothing else."""
