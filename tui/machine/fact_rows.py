"""Pieces of the full page about a machine: headings, labelled words, figures with the reason where there is none."""

from __future__ import annotations

from epochtop.engine.hardware import Fact
from epochtop.tui.cells.gauges import UNKNOWN, Row, Span, cut, wrapped

LABEL = 13
"""Cells of the labels."""


def heading(text: str, width: int) -> Row:
    """A section's name."""
    return (Span(cut(f"── {text} ".ljust(width, "─"), width), "heading"),)


def fact_rows(label: str, text: str, width: int, style: str = "value") -> list[Row]:
    """A label and words, in as many rows as they need."""
    lines = wrapped(text, width - LABEL, 6) or [UNKNOWN]
    return [
        (Span(("" if place else label).ljust(LABEL), "label"), Span(line, style)) for place, line in enumerate(lines)
    ]


def told(fact: Fact[str] | Fact[int] | Fact[float], unit: str = "") -> str:
    """A value with its unit, or a dash and the reason."""
    if fact.value is None:
        return f"{UNKNOWN} {fact.reason}"
    if isinstance(fact.value, str):
        return fact.value
    return f"{fact.value:,.0f}{f' {unit}' if unit else ''}"
