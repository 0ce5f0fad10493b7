"""Every moment of a profile counts once: the device's where it works, else what the host did."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.lab.jobs import job_of
from engine.lab.parts import Steps
from engine.lab.timeline import CAUSES, Event, cause, event_seconds, merged, profile, shares, within, without
from engine.spec import RunSpec

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: (pair[0], sum(pair))), max_size=8)


def moments(found: list[tuple[int, int]]) -> set[int]:
    """The same as a set of whole nanoseconds."""
    return {moment for begin, end in found for moment in range(begin, end)}


@given(spans, spans)
def test_spans_are_sets_of_moments(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    first, second = merged(one), merged(other)
    assert moments(first) == moments(one)
    assert all(end < begin for (_, end), (begin, _) in pairwise(first))
    assert moments(without(first, second)) == moments(one) - moments(other)
    assert moments(within(first, second)) == moments(one) & moments(other)


@given(st.lists(st.tuples(st.sampled_from(CAUSES[:-1]), st.integers(0, 99), st.integers(1, 30)), max_size=20))
def test_every_moment_counts_once_for_the_first_that_claims_it(planted: list[tuple[str, int, int]]) -> None:
    events = [Event("steps", (0, 100))]
    events += [Event(what, (at, min(100, at + long)), what not in CAUSES[:2]) for what, at, long in planted]
    wanted = dict.fromkeys(CAUSES, 0)
    for moment in range(100):
        claims = {each.cause for each in events if each.span[0] <= moment < each.span[1]}
        wanted[next((what for what in CAUSES if what in claims), "host")] += 1
    found = shares(events)
    assert {what: round(seconds * 1e9) for what, seconds in found.items()} == wanted


def test_what_the_device_does_after_the_host_is_part_of_the_steps() -> None:
    events = [Event("steps", (0, 100)), Event("launches", (0, 20)), Event("compute", (10, 400), host=False)]
    assert shares(events) == pytest.approx(
        {"compute": 390e-9, "transfers": 0, "reads": 0, "input": 0, "launches": 10e-9, "host": 0}
    )


def test_the_profilers_own_cost_is_taken_from_the_host_only() -> None:
    events = [
        Event("steps", (0, 100)),
        *(Event("launches", (at, at + 10)) for at in (0, 20, 40)),
        Event("compute", (40, 60), host=False),
    ]
    assert shares(events, event_s=2e-9) == pytest.approx(
        {"compute": 20e-9, "transfers": 0, "reads": 0, "input": 0, "launches": 16e-9, "host": 60e-9}
    )


def test_without_the_range_of_the_steps_nothing_is_said() -> None:
    assert shares([Event("compute", (0, 10), host=False)]) == {}


@pytest.mark.parametrize(
    ("kind", "name", "wanted"),
    [
        ("kernel", "ampere_sgemm_32x32", ("compute", False)),
        ("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", ("transfers", False)),
        ("gpu_memcpy", "Memcpy DtoD (Device -> Device)", ("compute", False)),
        ("cuda_runtime", "cudaLaunchKernel", ("launches", True)),
        ("cuda_runtime", "cudaStreamSynchronize", ("reads", True)),
        ("user_annotation", "epochtop:input", ("input", True)),
        ("gpu_user_annotation", "epochtop:input", ("", False)),
        ("cpu_op", "aten::mm", ("launches", True)),
        ("cpu_op", "autograd::engine::evaluate_function: MmBackward0", ("", True)),
    ],
)
def test_events_are_known_by_their_kind_and_name(kind: str, name: str, wanted: tuple[str, bool]) -> None:
    assert cause(kind, name) == wanted


def test_a_profile_of_real_steps_tells_the_hosts_time() -> None:
    steps = Steps(job_of(RunSpec(threads=1, device="cpu", dataset="digits", batch_size=64)))
    steps.plain(2)
    found = shares(profile(steps, 3).events)
    assert found["compute"] == found["transfers"] == 0
    assert found["input"] > 0
    assert found["launches"] > 0
    assert event_seconds(steps.job.device, times=50) >= 0
