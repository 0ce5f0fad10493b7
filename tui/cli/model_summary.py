"""A model's layers as a table of plain text."""

from __future__ import annotations

from epochtop.engine.protocol.quantities import UNKNOWN, format_bytes
from epochtop.engine.protocol.requests import LayerFact, ModelSummary
from epochtop.engine.terminal.plain import plain_line

HEADING = ("layer", "kind", "output", "parameters", "output size")


def summary_lines(summary: ModelSummary) -> tuple[str, ...]:
    """A heading, one line per layer, and the totals."""
    rows = [HEADING, *(_cells(layer) for layer in summary.layers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADING))]
    lines = [_line(row, widths) for row in rows]
    frozen = summary.parameters - summary.trained
    note = f", {frozen:,} of them frozen" if frozen else ""
    return (
        lines[0],
        "─" * max(map(len, lines)),
        *lines[1:],
        f"{summary.parameters:,} parameters ({format_bytes(4 * summary.parameters)} in float32){note}",
        f"{format_bytes(summary.activation_bytes)} kept for the backward pass of {summary.rows:,} rows",
    )


def _cells(layer: LayerFact) -> tuple[str, ...]:
    output = " × ".join(map(str, layer.output)) if layer.output is not None else UNKNOWN
    weight = UNKNOWN if layer.output_bytes is None else format_bytes(layer.output_bytes)
    return (plain_line(layer.name), plain_line(layer.kind), output, f"{layer.parameters:,}", weight)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Words aligned left, figures aligned right."""
    words = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
    figures = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join((*words, *figures))
