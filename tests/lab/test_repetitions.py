"""What earlier results add to the intervals of a verdict, and which of them count."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from epochtop.engine.lab.catalog import find
from epochtop.engine.lab.repetitions import with_earlier
from epochtop.engine.process.earlier_results import MOST, earlier_verdicts
from epochtop.engine.protocol.events import Prepared, encode
from epochtop.engine.protocol.experiments import Cell, Estimate, Verdict
from epochtop.engine.runs.paths import EVENTS, LOCK, RECORD, lab_home
from tests.support.lab_runs import ended, prepared, write_experiment
from tests.support.runs import CREATED

READS = find("reads")


def verdict(*estimates: tuple[str, float, float, float], unit: str = "s") -> Verdict:
    stated = [Estimate(name=name, unit=unit, value=v, low=low, high=high, count=9) for name, low, v, high in estimates]
    return Verdict(finding="", evidence=("measured",), next_step="", uncertainty="", estimates=tuple(stated))


def test_an_interval_spans_the_values_of_earlier_results() -> None:
    new = verdict(("call", 2e-6, 3e-6, 4e-6), ("wait", 1e-3, 2e-3, 3e-3))
    earlier = [
        verdict(("call", 0.0, 5e-6, 9e-6)),
        verdict(("call", 0.0, 3e-6, 9e-6)),
        verdict(("wait", 0.0, 1.0, 2.0), unit="%"),
    ]
    after = with_earlier(new, earlier)
    assert after.estimates == (
        Estimate(name="call", unit="s", value=3e-6, low=2e-6, high=5e-6, count=9),
        new.estimates[1],
    )
    assert after.evidence == ("measured", "call: 3.00 µs to 5.00 µs in 2 earlier results on this machine")
    assert with_earlier(new, []) == new


def write(home: Path, run_id: str, value: float, begun: Prepared | None = None, **fields: Any) -> Path:
    events = [begun or prepared(), ended(verdict(("cost of a read", value, value, value)))]
    return write_experiment(home, run_id, events, **fields)  # type: ignore[arg-type]


def values(verdicts: Sequence[Verdict]) -> list[float]:
    return sorted(one.estimates[0].value for one in verdicts)


def test_results_count_if_only_the_load_differs(home: Path) -> None:
    """Values tell which results were taken: 1 and 2 count, each other one differs in one thing."""
    begun = prepared()

    def machine(**facts: Cell) -> Prepared:
        return msgspec.structs.replace(begun, machine={**begun.machine, **facts})

    write(home, "reads-1", 1.0)
    write(home, "reads-2", 2.0, machine(load=9.0))
    write(home, "reads-3", 3.0, quick=True)
    write(home, "reads-4", 4.0, batch_size=7)
    write(home, "reads-5", 5.0, machine(host="another"))
    write(home, "reads-6", 6.0, machine(torch="2.14.1"))
    write(home, "reads-7", 7.0, prepared(("cpu", "cuda:0")))
    write(home, "threads-8", 8.0)
    (write(home, "reads-9", 9.0) / EVENTS).write_bytes(encode(begun) + b"\n")
    new = write(home, "reads-10", 10.0)
    assert values(earlier_verdicts(new, READS, begun)) == [1.0, 2.0]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]"])
def test_a_result_that_cannot_be_read_does_not_count(home: Path, damage: bytes) -> None:
    for age in range(MOST + 2):
        lock = write(home, f"reads-{age}", float(age)) / LOCK
        os.utime(lock, (CREATED - age, CREATED - age))
    (lab_home(home) / "reads-3" / RECORD).write_bytes(damage)
    new = write(home, "reads-new", 0.5)
    assert values(earlier_verdicts(new, READS, prepared())) == [float(age) for age in range(MOST + 1) if age != 3]
