"""The experiment `transfer`: planted latency, bandwidth and pinning are recovered; no device is mentioned without its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import ExperimentContext, Stopped
from epochtop.engine.lab.experiments.transfer.schema import Fields
from epochtop.engine.lab.experiments.transfer.verdict import routes_of
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows

TRANSFER = StoredRows("transfer")

SIZES = tuple(1 << power for power in range(10, 31, 2))
NOISE = (0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7)
STEADY = tuple(1 + (turn - 3) / 1000 for turn in range(7))
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def context(tmp_path: Path, budget_s: float = 1.5) -> ExperimentContext:
    return ExperimentContext(
        fields=Fields(largest_mib=4), spec=RunSpec(), devices=("cpu",), budget_s=budget_s, folder=tmp_path
    )


def copies(
    direction: str,
    way: str,
    latency_s: float,
    bandwidth: float,
    noise: Sequence[float] = STEADY,
    sizes: Sequence[int] = SIZES,
) -> list[Row]:
    """Copies that take `latency + bytes / bandwidth`, times noise: a factor a round, or a factor a row."""
    device = "cpu" if direction == "in host" else "cuda:0"
    factors = iter(noise if len(noise) > 7 else [*noise] * len(sizes))
    return [
        {"kind": "copy", "device": device, "direction": direction, "way": way, "bytes": size, "round": turn}
        | {"seconds": next(factors) * (latency_s + size / bandwidth)}
        for size in sizes
        for turn in range(7)
    ]


def verdict(rows: list[Row]) -> Verdict:
    return TRANSFER.conclude(rows)


def words(result: Verdict) -> str:
    return " ".join((result.finding, *result.evidence, result.next_step, result.uncertainty))


# --- planted -----------------------------------------------------------------------------------------------------


@given(
    st.floats(5e-6, 1e-4),
    st.floats(1e9, 5e10),
    st.lists(st.floats(0.98, 1.02), min_size=7 * len(SIZES), max_size=7 * len(SIZES)),
)
def test_planted_latency_and_bandwidth_are_fitted_back(latency_s: float, rate: float, noise: list[float]) -> None:
    (route,) = routes_of(TRANSFER.measurements(copies("to device", "pageable", latency_s, rate, noise))).values()
    assert route.latency_s == pytest.approx(latency_s, rel=0.05)
    assert route.bandwidth == pytest.approx(rate, rel=0.05)
    assert route.half_bytes == pytest.approx(latency_s * rate, rel=0.11)
    assert route.plain


def test_a_fit_that_misses_is_not_drawn_and_the_ends_are_reported_instead() -> None:
    cached = copies("in host", "reused", 1e-6, 20 * GIB, sizes=SIZES[:6])
    rows = cached + copies("in host", "reused", 1e-6, 2 * GIB, sizes=SIZES[6:])
    result = verdict(rows)
    assert result.lines == ()
    assert "2.00 GiB/s for 1.00 GiB" in result.finding
    assert "no single bandwidth fits all sizes" in words(result)
    (line,) = verdict(cached).lines
    assert [size for size, _ in line.points] == [float(size) for size in SIZES[:6]]


@given(st.integers(1, len(SIZES) - 1))
def test_the_size_from_which_pinning_pays_is_found(place: int) -> None:
    rows = copies("to device", "pageable", 1e-5, 5 * GIB)
    rows += copies("to device", "non-blocking", 2e-5, 1 * GIB, sizes=SIZES[:place])
    rows += copies("to device", "non-blocking", 5e-6, 20 * GIB, sizes=SIZES[place:])
    actual = verdict(rows).finding
    since, below = (_power(SIZES[number]) for number in (place, place - 1))
    assert f"memory that is already pinned is faster than pageable memory from {since}, not at {below}" in actual


def _power(size: int) -> str:
    """As one would write a power of four."""
    names = {10: "1.00 KiB", 12: "4.00 KiB", 14: "16.0 KiB", 16: "64.0 KiB", 18: "256 KiB", 20: "1.00 MiB"}
    return names.get(size.bit_length() - 1) or {22: "4.00", 24: "16.0", 26: "64.0", 28: "256"}.get(
        size.bit_length() - 1, ""
    ) + (" MiB" if size < GIB else "1.00 GiB")


def test_pinning_that_is_slower_is_advised_against() -> None:
    rows = copies("to device", "pageable", 1e-5, 10 * GIB) + copies("to device", "pinned", 3e-5, 5 * GIB)
    result = verdict(rows)
    assert "memory that is already pinned is never faster than pageable memory" in result.finding
    assert "do not pin memory" in result.next_step
    assert any("1.00 GiB to device, pinned, is slower than pageable: 2 × (" in line for line in result.evidence)


def test_what_pinning_costs_is_compared_with_what_it_saves() -> None:
    rows = copies("to device", "pageable", 1e-5, 5 * GIB) + copies("to device", "non-blocking", 1e-5, 20 * GIB)
    rows += copies("to device", "pinned anew", 5e-5, 4 * GIB)
    pin: list[Row] = [
        {"kind": "pin", "way": "pinning", "device": "cuda:0", "bytes": GIB, "round": turn, "seconds": 0.6}
        for turn in range(7)
    ]
    result = verdict(rows + pin)
    # a GiB takes 0.2 s from pageable and 0.05 s from pinned memory: 0.6 s are saved by 4 copies
    assert any("pays off after 4 copies" in line for line in result.evidence)
    assert "pinning every batch is not faster here" in result.next_step


@given(st.permutations(NOISE), st.floats(0.85, 1.2))
def test_noise_that_is_larger_than_the_effect_gives_no_difference(noise: list[float], effect: float) -> None:
    rows = copies("to device", "pageable", 1e-5, 10 * GIB, [1.0] * 7)
    rows += copies("to device", "non-blocking", 1e-5 / effect, 10 * GIB * effect, noise)
    result = verdict(rows)
    assert "is never faster than pageable memory" in result.finding
    assert any(line.startswith("no difference between 1.00 GiB to device, non-blocking") for line in result.evidence)


@given(st.integers(1, len(SIZES) - 1), st.floats(1.5, 20))
def test_the_size_from_which_fresh_memory_costs_more_is_found(place: int, times: float) -> None:
    rows = copies("in host", "reused", 1e-6, 10 * GIB)
    rows += copies("in host", "fresh", 1e-6, 10 * GIB, [1.0] * 7, SIZES[:place])
    rows += copies("in host", "fresh", 1e-6 * times, 10 * GIB / times, sizes=SIZES[place:])
    result = verdict(rows)
    assert f"longer from {_power(SIZES[place])}" in result.finding
    assert f"from {_power(SIZES[place])}:" in result.next_step


# --- any rows ----------------------------------------------------------------------------------------------------


def test_any_prefix_of_rows_is_concluded_from() -> None:
    rows = copies("in host", "reused", 1e-6, 10 * GIB) + copies("in host", "fresh", 1e-6, 5 * GIB)
    within = len(rows)
    rows += copies("to device", "pageable", 1e-5, 5 * GIB) + copies("to device", "non-blocking", 1e-5, 20 * GIB)
    rows += copies("to host", "pinned", 1e-5, 5 * GIB) + copies("to host", "pageable", 1e-5, 5 * GIB)
    assert verdict([]).finding == "not enough was measured for an answer"
    for count in range(1, len(rows), 3):
        result = verdict(rows[:count])
        assert result.finding
        if count <= within:
            assert "cuda" not in words(result)
            assert "pinn" not in words(result)
            assert result.finding.startswith(("without a device", "not enough was measured"))
    for count in range(within, len(rows), 3):
        assert verdict(rows[within:count]).finding


# --- measured ----------------------------------------------------------------------------------------------------


def test_without_a_device_copies_within_the_host_are_measured_and_called_that(tmp_path: Path) -> None:
    asked = context(tmp_path)
    rows = list(TRANSFER.measure(asked))
    copied = [row for row in rows if row["kind"] == "copy"]
    assert {(row["direction"], row["way"]) for row in copied} == {("in host", "reused"), ("in host", "fresh")}
    assert {row["bytes"] for row in copied} >= {1 << 10, 1 << 20}
    for row in copied:
        assert row["rate"] * row["seconds"] == pytest.approx(row["bytes"])  # type: ignore[operator]
    assert any("there was no device" in line for line in asked.cannot_see)
    assert verdict(rows).finding.startswith("without a device")


def test_it_ends_when_it_is_asked_to_and_keeps_rows(tmp_path: Path) -> None:
    asked, kept = context(tmp_path, budget_s=30.0), []
    measured = TRANSFER.measure(asked)
    while not kept or kept[-1]["kind"] != "copy":
        kept.append(next(measured))
    asked.stop.set()
    with pytest.raises(Stopped):
        next(measured)
    assert verdict(kept).finding
