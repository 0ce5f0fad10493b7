"""Rows of `anatomy` from planted parts of a step, for tests of what is concluded from them."""

from __future__ import annotations

from epochtop.engine.lab.measurements import Row

JOB: Row = {
    "kind": "job",
    "batches": "whole",
    "rows": 120,
    "batch": 120,
    "threads": 1,
    "cpus": 2,
    "unfit": "",
    "bf16": 1,
}


def rows(device: str = "cpu", rest: float = 0.0, rounds: int = 9, **parts: float) -> list[Row]:
    """Rounds with these seconds per part; the step takes their sum plus `rest`."""
    return planted(parts, device, rest, rounds)


def planted(parts: dict[str, float], device: str = "cpu", rest: float = 0.0, rounds: int = 9) -> list[Row]:
    """The same with the parts in a dictionary."""
    actual: list[Row] = [JOB | {"device": device}, {"kind": "operators", "device": device, "operators": 30}]
    for turn in range(rounds):
        labels: Row = {"device": device, "round": turn}
        actual.append({"kind": "step", **labels, "seconds": sum(parts.values()) + rest})
        actual.append({"kind": "launches", **labels, "seconds": parts.get("launches", 0.0)})
        actual += [
            {"kind": "part", **labels, "part": part, "seconds": took}
            for part, took in (parts | {"unexplained": rest}).items()
        ]
    return actual
