"""Every moment of a profile counts once: the device's where it works, else what the host did."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.phases import Steps
from epochtop.engine.lab.instruments.timeline import (
    DEVICE_PARTS,
    HOST,
    Shares,
    TraceEvent,
    cause,
    exposed,
    profile,
    shares,
    within,
    without,
)
from epochtop.engine.lab.intervals import merged
from epochtop.engine.protocol.spec import RunSpec

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: (pair[0], sum(pair))), max_size=8)


def moments(actual: list[tuple[int, int]]) -> set[int]:
    """The same as a set of whole nanoseconds."""
    return {moment for begin, end in actual for moment in range(begin, end)}


@given(spans, spans)
def test_spans_are_sets_of_moments(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    first, second = merged(one), merged(other)
    assert moments(first) == moments(one)
    assert all(end < begin for (_, end), (begin, _) in pairwise(first))
    assert moments(without(first, second)) == moments(one) - moments(other)
    assert moments(within(first, second)) == moments(one) & moments(other)


@given(
    st.lists(
        st.tuples(st.sampled_from((*DEVICE_PARTS, *HOST[:-1])), st.integers(0, 99), st.integers(1, 30)), max_size=20
    )
)
def test_every_moment_counts_once_for_the_first_that_claims_it(planted: list[tuple[str, int, int]]) -> None:
    events = [TraceEvent("steps", (0, 100))]
    events += [TraceEvent(what, (at, min(100, at + long)), what in HOST) for what, at, long in planted]
    device, idle, covered = dict.fromkeys(DEVICE_PARTS, 0), dict.fromkeys(HOST, 0), dict.fromkeys(HOST, 0)
    for moment in range(100):
        claims = {each.cause for each in events if each.span[0] <= moment < each.span[1]}
        doing = next((what for what in DEVICE_PARTS if what in claims), "")
        if doing:
            device[doing] += 1
        (covered if doing else idle)[next((what for what in HOST if what in claims), "host")] += 1
    actual = shares(events)
    for seconds, expected in ((actual.device, device), (actual.idle, idle), (actual.covered, covered)):
        assert {what: round(took * 1e9) for what, took in seconds.items()} == expected


def test_what_the_device_does_after_the_host_is_the_devices() -> None:
    actual = shares(
        [TraceEvent("steps", (0, 100)), TraceEvent("launches", (0, 20)), TraceEvent("compute", (10, 400), host=False)]
    )
    assert actual.device == pytest.approx({"compute": 390e-9, "transfers": 0})
    assert actual.covered["launches"] == pytest.approx(10e-9)
    assert actual.covered["host"] == pytest.approx(80e-9)


LAUNCHES, PYTHON, KERNEL = 4, 2, 3
"""Nanoseconds of the host for an operator, and of the device."""


def profiled(slower: int, operators: int = 10, kernel: int = KERNEL) -> Shares:
    """A planted step with a host that the profiler slows by this factor; each kernel starts when it is launched."""
    events, host, device = [], 0, 0
    for _ in range(operators):
        events.append(TraceEvent("launches", (host, host + LAUNCHES * slower)))
        host += LAUNCHES * slower
        begin = max(host, device)
        device = begin + kernel
        events.append(TraceEvent("compute", (begin, device), host=False))
        host += PYTHON * slower
    return shares([*events, TraceEvent("steps", (0, host))])


@pytest.mark.parametrize("slower", [1, 2, 3])
def test_how_slow_the_profiler_makes_the_host_does_not_matter(slower: int) -> None:
    """A host that is slower than its device takes the step's time, whatever the profiler costs."""
    parts = exposed(profiled(slower), 0.0, 0.0, work_s=60e-9, launches_s=40e-9)
    assert parts["compute"] == pytest.approx(10 * KERNEL * 1e-9)
    assert sum(parts.values()) == pytest.approx(60e-9, rel=0.2)
    assert parts["launches"] > parts["host"]


def test_a_device_that_is_slower_than_its_host_covers_it() -> None:
    parts = exposed(profiled(1, kernel=30), 0.0, 0.0, work_s=60e-9, launches_s=40e-9)
    assert parts["compute"] == pytest.approx(300e-9)
    assert sum(parts.values()) == pytest.approx(304e-9, rel=0.05)


def test_a_wait_while_the_device_is_idle_is_a_read() -> None:
    events = [TraceEvent("steps", (0, 50)), TraceEvent("compute", (0, 20), host=False), TraceEvent("waits", (10, 40))]
    parts = exposed(shares(events), 0.0, read_s=0.0, work_s=50e-9, launches_s=0.0)
    assert parts["reads"] == pytest.approx(20e-9)
    assert parts["compute"] == pytest.approx(20e-9)
    assert parts["host"] == pytest.approx(10e-9)


def test_without_the_range_of_the_steps_the_host_did_nothing() -> None:
    actual = shares([TraceEvent("compute", (0, 10), host=False)])
    assert set(actual.idle.values()) == set(actual.covered.values()) == {0}


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("kernel", "ampere_sgemm_32x32", ("compute", False)),
        ("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", ("transfers", False)),
        ("gpu_memcpy", "Memcpy DtoD (Device -> Device)", ("compute", False)),
        ("cuda_runtime", "cudaLaunchKernel", ("launches", True)),
        ("cuda_runtime", "cudaStreamSynchronize", ("waits", True)),
        ("user_annotation", "epochtop:input", ("input", True)),
        ("gpu_user_annotation", "epochtop:input", ("", False)),
        ("cpu_op", "aten::mm", ("launches", True)),
        ("cpu_op", "autograd::engine::evaluate_function: MmBackward0", ("", True)),
    ],
)
def test_events_are_known_by_their_kind_and_name(kind: str, name: str, expected: tuple[str, bool]) -> None:
    assert cause(kind, name) == expected


def test_a_profile_of_real_steps_has_the_hosts_time() -> None:
    steps = Steps(job_of(RunSpec(threads=1, device="cpu", dataset="digits", batch_size=64)))
    steps.run(2)
    actual = shares(profile(steps, 3).events)
    assert set(actual.device.values()) == set(actual.covered.values()) == {0}
    assert actual.idle["input"] > 0
    assert actual.idle["launches"] > 0
