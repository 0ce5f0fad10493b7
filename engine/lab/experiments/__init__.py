"""The catalog of experiments: one package each.

Its `__init__` has the question, `schema` the fields and the rows, `verdict` the conclusion, and `measure` the
measurement. Only `measure` imports torch, and nothing but :func:`measurement_of` imports `measure`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from epochtop.engine.lab.experiment import ExperimentContext
from epochtop.engine.lab.measurements import Measurement

Measure = Callable[[ExperimentContext], Iterator[Measurement]]
"""Yields rows as they are measured. Calls the context's `check` between measurements. Raises Invalid, Stopped."""


def measurement_of(name: str) -> Measure:
    """The function `measure` of an experiment. It is imported by name, so that listing experiments imports no torch."""
    measure: Measure = import_module(f"{__name__}.{name}.measure").measure
    return measure
