"""Intervals of time: what they cover together, and the gaps between them.

Imports no torch: the screen draws with it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def merged(intervals: Iterable[tuple[Number, Number]], near: float = 0) -> list[tuple[Number, Number]]:
    """Their union, in order. Intervals at most `near` apart become one."""
    union: list[tuple[Number, Number]] = []
    for begin, end in sorted(intervals):
        if union and begin <= union[-1][1] + near:
            union[-1] = union[-1][0], max(union[-1][1], end)
        else:
            union.append((begin, end))
    return union


def gaps(intervals: Iterable[tuple[Number, Number]], window: tuple[Number, Number]) -> list[tuple[Number, Number]]:
    """The parts of `window` outside the intervals, in order."""
    rest: list[tuple[Number, Number]] = []
    at = window[0]
    for begin, end in merged(intervals):
        if begin > at and at < window[1]:
            rest.append((at, min(begin, window[1])))
        at = max(at, end)
    if at < window[1]:
        rest.append((at, window[1]))
    return rest


def covered(intervals: Iterable[tuple[Number, Number]]) -> float:
    """The time covered by at least one interval."""
    return sum(end - begin for begin, end in merged(intervals))
