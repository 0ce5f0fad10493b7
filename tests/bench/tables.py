"""Prints tables of figures, and the machine they are measured on."""

from __future__ import annotations

import math
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.hardware import identify


@dataclass(frozen=True)
class Figure:
    """One measured figure. `target` is what it should reach, as text."""

    what: str
    value: str
    target: str = ""


def show(title: str, figures: Sequence[Figure]) -> None:
    """Print one table."""
    width = max(len(figure.what) for figure in figures)
    wide = max(len(figure.value) for figure in figures)
    print(f"\n## {title}\n")
    for figure in figures:
        target = f"  (target {figure.target})" if figure.target else ""
        print(f"  {figure.what:<{width}}  {figure.value:>{wide}}{target}", flush=True)


def spread(values: Sequence[float], form: str = "{:.3f}") -> str:
    """Median with minimum and maximum: `0.62 (0.60 … 0.66)`."""
    low, high = form.format(min(values)), form.format(max(values))
    return f"{form.format(statistics.median(values))} ({low} … {high})"


def middle(values: Sequence[float], form: str = "{:.3f}") -> str:
    """Median with its 95 % interval (between two order statistics, binomial) and the number of values."""
    ordered, half = sorted(values), 0.98 * math.sqrt(len(values))
    low = ordered[max(0, math.floor(len(values) / 2 - half))]
    high = ordered[min(len(values) - 1, math.ceil(len(values) / 2 + half) - 1)]
    middle, low_text, high_text = (form.format(value) for value in (statistics.median(values), low, high))
    return f"{middle} ({low_text} … {high_text}, {len(values)} rounds)"


def machine() -> str:
    """The machine in one paragraph of text."""
    facts = identify()
    gpus = ", ".join(gpu.name.value or "?" for gpu in facts.gpus) or facts.no_gpu_reason
    from importlib.metadata import version

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "textual", "plotext"))
    return (
        f"{facts.cpu.model.value or platform.machine()} ({facts.cpu.microarchitecture.value or '?'}), "
        f"{facts.usable_cpus} of {facts.cpu.threads} threads usable, {facts.os}, "
        f"Python {sys.version.split()[0]}, {packages}; GPU: {gpus}"
    )
