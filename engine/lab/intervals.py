"""Intervals of time on one line: what several of them cover together, and the gaps that they leave.

Torch-free: the screen draws with it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def merged(intervals: Iterable[tuple[Number, Number]], near: float = 0) -> list[tuple[Number, Number]]:
    """Their union, in order; those that are not further than `near` apart are one."""
    found: list[tuple[Number, Number]] = []
    for begin, end in sorted(intervals):
        if found and begin <= found[-1][1] + near:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def gaps(intervals: Iterable[tuple[Number, Number]], window: tuple[Number, Number]) -> list[tuple[Number, Number]]:
    """What they leave of `window`, in order."""
    found: list[tuple[Number, Number]] = []
    at = window[0]
    for begin, end in merged(intervals):
        if begin > at and at < window[1]:
            found.append((at, min(begin, window[1])))
        at = max(at, end)
    if at < window[1]:
        found.append((at, window[1]))
    return found


def covered(intervals: Iterable[tuple[Number, Number]]) -> float:
    """The time in which at least one of them goes on."""
    return sum(end - begin for begin, end in merged(intervals))
