"""The idle time of a device: planted in rows and in a profile, and recovered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import ExperimentContext, NoFields
from epochtop.engine.lab.experiments.anatomy.measure import DeviceAnatomy
from epochtop.engine.lab.experiments.anatomy.schema import PARTS
from epochtop.engine.lab.experiments.anatomy.verdict import Anatomy
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.phases import Steps
from epochtop.engine.lab.instruments.sampling import interleave
from epochtop.engine.lab.instruments.timeline import Profile, TraceEvent, idle_s
from epochtop.engine.lab.measurements import Row, stored
from epochtop.engine.lab.statistics import select
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows

ANATOMY = StoredRows("anatomy")


def rows(device: str, rest: float = 0.0, rounds: int = 9, **parts: float) -> list[Row]:
    """Rounds with these seconds per part; the step takes their sum plus `rest`."""
    actual: list[Row] = []
    for turn in range(rounds):
        labels: Row = {"device": device, "round": turn}
        actual.append({"kind": "step", **labels, "seconds": sum(parts.values()) + rest})
        actual += [{"kind": "part", **labels, "part": part, "seconds": took} for part, took in parts.items()]
    return actual


def idle(actual: list[Row], *seconds: float) -> list[Row]:
    """The same rows with what was measured as idle in each round."""
    device = actual[0]["device"]
    return [
        *actual,
        *({"kind": "idle", "device": device, "round": turn, "seconds": took} for turn, took in enumerate(seconds)),
    ]


def idle_line(actual: list[Row]) -> str:
    """The second line of evidence on a GPU."""
    return ANATOMY.conclude(actual, devices=("cuda:0",)).evidence[1]


def test_the_idle_device_is_reported_with_its_spread_and_what_the_host_did_meanwhile() -> None:
    actual = rows("cuda:0", launches=40e-6, host=15e-6, input=8e-6, compute=30e-6, transfers=7e-6, rounds=5)
    assert idle_line(idle(actual, 61e-6, 62e-6, 63e-6, 64e-6, 65e-6)) == (
        "cuda:0: the device is idle 63% (58% … 69%) of the step: during launches 40%, host 15%, input 8%"
    )


def test_an_idle_device_is_not_a_further_part_of_the_step() -> None:
    actual = rows("cuda:0", launches=60e-6, compute=40e-6)
    before, after = (
        Anatomy.of(ANATOMY.measurements(planted), "cuda:0") for planted in (actual, idle(actual, *[60e-6] * 9))
    )
    assert before is not None
    assert after is not None
    assert (after.rest, after.figures, after.bound) == (before.rest, before.figures, before.bound)
    assert "add up to the step within 5 %" in after.evidence(None)[0]


def test_idle_time_that_no_part_explains_is_reported_as_unexplained() -> None:
    actual = rows("cuda:0", launches=50e-6, compute=40e-6, rest=10e-6)
    assert idle_line(idle(actual, *[60e-6] * 9)).endswith("of the step: during launches 50%, unexplained 10%")


def test_a_device_that_is_busy_for_longer_than_the_step_is_not_idle() -> None:
    actual = rows("cuda:0", compute=103e-6, rest=-3e-6)
    assert idle_line(idle(actual, *[-3e-6] * 9)) == "cuda:0: the device is idle 0% (0% … 0%) of the step"


def test_what_was_measured_once_has_no_spread() -> None:
    actual = rows("cuda:0", launches=60e-6, compute=40e-6, rounds=1)
    assert "idle 60% (once) of the step: during launches 60%" in idle_line(idle(actual, 60e-6))


def test_without_idle_rows_the_idle_time_of_a_gpu_is_not_mentioned() -> None:
    verdict = ANATOMY.conclude(rows("cuda:0", launches=60e-6, compute=40e-6), devices=("cuda:0",))
    assert not any("idle" in line for line in verdict.evidence)


def test_a_cpu_is_reported_to_have_no_idle_device() -> None:
    verdict = ANATOMY.conclude(rows("cpu", launches=60e-6, compute=40e-6))
    assert verdict.evidence[1] == "cpu: the CPU is the device itself, so it has no idle time of its own"


@given(st.lists(st.floats(1e-6, 1e-3), min_size=6, max_size=6), st.floats(0.5, 2))
def test_the_device_is_idle_during_the_hosts_parts_and_what_is_unexplained(actual: list[float], longer: float) -> None:
    parts = dict(zip(PARTS, actual, strict=True))
    step_s = longer * sum(actual)
    host_s = sum(took for part, took in parts.items() if part not in ("compute", "transfers"))
    assert idle_s(step_s, parts) == pytest.approx(host_s + step_s - sum(actual), abs=1e-12)


def test_a_round_of_a_gpu_has_the_time_that_its_busy_moments_leave_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two kernels and a copy, overlapping: the device works 50 µs a step
    spans = (("compute", 0, 20), ("compute", 10, 30), ("transfers", 20, 50))

    def planted(steps: Steps, times: int) -> Profile:
        host = [TraceEvent("steps", (0, times * 60_000))]
        work = [
            TraceEvent(what, (turn * 60_000 + begin * 1000, turn * 60_000 + end * 1000), host=False)
            for turn in range(times)
            for what, begin, end in spans
        ]
        return Profile(host + work, 2 * times)

    torch.set_num_threads(1)
    spec = RunSpec(threads=1, device="cpu")
    monkeypatch.setattr("epochtop.engine.lab.instruments.timeline.profile", planted)
    context = ExperimentContext(fields=NoFields(), spec=spec, devices=("cpu",), budget_s=3, folder=tmp_path)
    anatomy = DeviceAnatomy(job_of(spec), context, on_gpu=True)
    measured = list(anatomy.facts())
    for timing in interleave(context, anatomy.cases(), 1.0, 3, 3):
        measured += anatomy.rows(timing)
    actual = list(map(stored, measured))
    assert select(actual, kind="idle")
    for row in select(actual, kind="idle"):
        (step,) = select(actual, kind="step", round=row["round"])
        assert float(step["seconds"] or 0) - float(row["seconds"] or 0) == pytest.approx(50e-6)
        parts = {part["part"]: float(part["seconds"] or 0) for part in select(actual, kind="part", round=row["round"])}
        assert parts["compute"] == pytest.approx(30e-6)
        assert parts["transfers"] == pytest.approx(20e-6)
        assert sum(parts.values()) == pytest.approx(float(step["seconds"] or 0))
