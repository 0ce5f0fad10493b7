"""What all events have in common. Imports msgspec only."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Something that happened in a run or an experiment. Viewers show events and nothing else."""
