"""A line of a log, and what kind of line it is. Displays choose by the kind, never by the wording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LineKind = Literal["news", "evaluation", "resumed", "warning", "failure"]


@dataclass(frozen=True)
class MessageLine:
    """Text for a person; may have several rows."""

    text: str
    kind: LineKind = "news"
