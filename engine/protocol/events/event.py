"""What all events have in common. Imports msgspec only."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Step = Annotated[int, Meta(ge=-(2**53), le=2**53)]
"""Number of a step, counted from 0; exact as a float64. Scripts may count from elsewhere."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Something that happened in a run or an experiment. Viewers show events and nothing else."""
