"""The experiment `matmul`: planted speeds are recovered, noise is not a difference, and no GPU is mentioned without its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import ExperimentContext, Stopped
from epochtop.engine.lab.experiments.matmul.measure import _ThreadChoice
from epochtop.engine.lab.experiments.matmul.schema import Fields
from epochtop.engine.lab.experiments.matmul.verdict import curves_of
from epochtop.engine.lab.instruments.sampling import on_threads
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows

MATMUL = StoredRows("matmul")

SIZES = (16, 64, 256, 1024)
NOISE = (0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def context(
    tmp_path: Path, largest: int = 64, budget_s: float = 1.0, devices: tuple[str, ...] = ("cpu",)
) -> ExperimentContext:
    return ExperimentContext(
        fields=Fields(largest=largest),
        spec=RunSpec(),
        devices=devices,
        budget_s=budget_s,
        folder=tmp_path,
    )


def products(
    device: str, dtype: str, gflops: dict[int, float], noise: tuple[float, ...] | list[float] | None = None
) -> list[Row]:
    """Rows of products at these speeds."""
    return [
        {
            "kind": "product",
            "device": device,
            "dtype": dtype,
            "size": size,
            "round": turn,
            "seconds": 2 * size**3 / (speed * factor * 1e9),
            "gflops": speed * factor,
        }
        for size, speed in gflops.items()
        for turn, factor in enumerate(noise or [1 + turn / 1000 for turn in range(7)])
    ]


def verdict(rows: list[Row]) -> Verdict:
    return MATMUL.conclude(rows)


def words(result: Verdict) -> str:
    return " ".join((result.finding, *result.evidence, result.next_step, result.uncertainty))


# --- planted -----------------------------------------------------------------------------------------------------


@given(st.floats(1, 1e5), st.integers(0, 3))
def test_the_size_from_which_half_of_the_best_is_reached_is_found(best: float, place: int) -> None:
    speeds = {size: best * (0.3 if number < place else 0.6) for number, size in enumerate(SIZES)}
    speeds[SIZES[-1]] = best
    (curve,) = curves_of(MATMUL.measurements(products("cpu", "fp32", speeds)))
    assert curve.best_size == SIZES[-1]
    assert curve.best.median == pytest.approx(best, rel=0.05)
    assert curve.half_size == SIZES[place]


@given(st.integers(1, 3), st.floats(2, 50))
def test_the_gpu_takes_over_where_that_was_planted(place: int, times: float) -> None:
    gpu = {size: 10.0 * (1 / times if number < place else times) for number, size in enumerate(SIZES)}
    conclusion = verdict(products("cpu", "fp32", dict.fromkeys(SIZES, 10.0)) + products("cuda:0", "fp32", gpu)).finding
    assert f"fp32 on cuda:0 is faster than the CPU from {SIZES[place]:,}, not at {SIZES[place - 1]:,}" in conclusion


def test_an_arithmetic_that_is_faster_is_the_setting_to_try() -> None:
    rows = products("cuda:0", "fp32", {256: 100, 1024: 1000})
    rows += products("cuda:0", "tf32", {256: 100, 1024: 4000})
    assert verdict(rows).setting == {"precision": "tf32"}
    rows += products("cuda:0", "fp16", {256: 100, 1024: 8100}) + products("cuda:0", "bf16", {256: 100, 1024: 8000})
    result = verdict(rows)
    assert result.setting == {"precision": "bf16"}, "as fast as fp16, and its losses need no scaling"
    assert "bf16 is faster at 1,024: 8 × (8 … 8) as fast" in result.finding


@given(st.permutations(NOISE), st.floats(0.85, 1.2))
def test_noise_that_is_larger_than_the_effect_gives_no_difference(noise: list[float], effect: float) -> None:
    rows = products("cpu", "fp32", {256: 100}, [1.0] * 7) + products("cpu", "bf16", {256: 100 * effect}, noise)
    result = verdict(rows)
    assert result.setting == {}
    assert "bf16 makes no difference larger than" in result.finding
    assert any(line.startswith("no difference between bf16 on cpu") for line in result.evidence)


@pytest.mark.parametrize(
    ("instructions", "conclusion"),
    [
        ("AVX, AVX2", "the processor has no hardware for it (instructions: AVX, AVX2)"),
        ("AVX2, AVX-512 BF16", "torch has no fast path for it on this processor (AVX2, AVX-512 BF16)"),
    ],
)
def test_an_arithmetic_without_hardware_is_reported_as_slower_with_the_reason(
    instructions: str, conclusion: str
) -> None:
    rows: list[Row] = [{"kind": "cpu", "threads": 1, "instructions": instructions}]
    rows += products("cpu", "fp32", {256: 90}) + products("cpu", "bf16", {256: 1.5})
    result = verdict(rows)
    assert "bf16 is slower at 256: 60 × (60 … 60) as long" in result.finding
    assert conclusion in words(result)
    assert result.setting == {}
    assert "keep precision=fp32 on cpu" in result.next_step


def test_sizes_that_were_left_out_are_reported() -> None:
    rows: list[Row] = [
        *products("cpu", "fp32", {16: 1.0}),
        {"kind": "limit", "device": "cpu", "dtype": "bf16", "size": 512, "why": "time", "expected_s": 2.5},
        {"kind": "limit", "device": "cpu", "dtype": "fp16", "size": 32, "why": "unsupported", "message": "no half"},
        {"kind": "limit", "device": "cpu", "dtype": "fp32", "size": 8192, "why": "memory"},
    ]
    conclusion = words(verdict(rows))
    assert "bf16 on cpu: products of 512 were left out: they would take 2.50 s each" in conclusion
    assert "fp16 on cpu: products of 32 were left out: they are not supported by torch on this device" in conclusion
    assert "fp32 on cpu: products of 8,192 were left out: they need more than half of the free memory" in conclusion


# --- any rows ----------------------------------------------------------------------------------------------------


def test_any_prefix_of_rows_is_concluded_from() -> None:
    rows: list[Row] = [{"kind": "cpu", "threads": 1, "instructions": None}]
    rows += products("cpu", "fp32", dict.fromkeys(SIZES, 10.0)) + products("cpu", "bf16", dict.fromkeys(SIZES, 5.0))
    rows += products("cuda:0", "fp32", dict.fromkeys(SIZES, 50.0))
    assert verdict([]).finding == "not enough was measured for an answer"
    for count in range(1, len(rows)):
        result = verdict(rows[:count])
        assert result.finding
        if not any(row.get("device") == "cuda:0" for row in rows[:count]):
            assert "cuda" not in words(result)
            assert "GPU" not in words(result)


# --- measured ----------------------------------------------------------------------------------------------------


class Machine:
    """Products that take what is planted for a number of threads, times `busy` for more than one while that is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, one: float, every: float) -> None:
        self.speeds, self.threads, self.busy = {1: one, 8: every}, 1, 1.0
        self.tried: list[int] = []
        monkeypatch.setattr(torch, "set_num_threads", self._set)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.threads)

    def _set(self, number: int) -> None:
        self.threads = number

    def product(self, size: int) -> Callable[[int], float]:
        def run(times: int) -> float:
            self.tried.append(self.threads)
            return times * size**3 / self.speeds[self.threads] * (self.busy if self.threads > 1 else 1.0)

        return run

    def best(self, threads: _ThreadChoice, size: int) -> int:
        self.tried.clear()
        return threads.best(self.product(size), size**3)


@pytest.mark.parametrize(("one", "every", "best"), [(1e9, 7e9, 8), (1e9, 0.5e9, 1), (1e9, 1.1e9, 8)])
def test_products_get_the_faster_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, one: float, every: float, best: int
) -> None:
    machine, threads = Machine(monkeypatch, one, every), _ThreadChoice(8)
    assert [machine.best(threads, size) for size in (16, 32, 64, 128)] == [best] * 4


def test_one_thread_is_tried_no_more_once_it_was_clearly_slower_until_something_disturbs_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, threads = Machine(monkeypatch, 1e9, 7e9), _ThreadChoice(8)
    assert machine.best(threads, 64) == 8
    assert set(machine.tried) == {1, 8}
    assert machine.best(threads, 128) == 8
    assert set(machine.tried) == {8}
    machine.busy = 20.0
    assert machine.best(threads, 256) == 1
    machine.busy = 1.0
    assert machine.best(threads, 512) == 8
    assert set(machine.tried) == {1, 8}


def test_with_one_cpu_there_is_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 1e9, 7e9)
    assert machine.best(_ThreadChoice(1), 64) == 1
    assert set(machine.tried) == {1}


def test_a_number_of_threads_is_there_before_the_clock_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 1e9, 7e9)
    run = on_threads(8, machine.product(64))
    assert run(3) == pytest.approx(3 * 64**3 / 7e9)
    assert machine.tried == [8, 8]
    run(3)
    assert machine.tried == [8, 8, 8]


def test_the_threads_of_the_best_product_are_reported() -> None:
    rows = [{**row, "threads": 1 if row["size"] == 64 else 2} for row in products("cpu", "fp32", {64: 50, 256: 170})]
    result = verdict(rows)
    assert "at 256 with 2 threads" in result.evidence[0]
    assert "on the CPU with 1 or 2 threads, the faster per size" in result.uncertainty


def test_products_are_measured_in_every_arithmetic_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epochtop.engine.lab.experiments.matmul.measure.usable_cpus", lambda: 2)
    before = torch.get_num_threads()
    rows = list(MATMUL.measure(context(tmp_path)))
    assert torch.get_num_threads() == before
    (about,) = [row for row in rows if row["kind"] == "cpu"]
    assert about["threads"] == 2
    actual = [row for row in rows if row["kind"] == "product"]
    assert {row["dtype"] for row in actual} == {"fp32", "bf16", "fp16"}
    assert {row["size"] for row in actual if row["dtype"] == "fp32"} == {16, 32, 64}
    assert {row["threads"] for row in actual} <= {1, 2}
    for row in actual:
        assert row["gflops"] * row["seconds"] * 1e9 == pytest.approx(2 * row["size"] ** 3)  # type: ignore[operator]
    shares = [row["share"] for row in rows if row["kind"] == "share"]
    assert all(isinstance(share, float) and share > 0 for share in shares)
    result = verdict(rows)
    assert "GPU" not in words(result)
    assert set(result.setting) <= {"precision"}


def test_slow_products_are_left_out_and_reported(tmp_path: Path) -> None:
    rows = list(MATMUL.measure(context(tmp_path, largest=65536, budget_s=0.5)))
    limits = [row for row in rows if row["kind"] == "limit"]
    assert {row["dtype"] for row in limits} == {"fp32", "bf16", "fp16"}
    for limit in limits:
        assert limit["why"] in ("time", "memory", "unsupported")
        sizes = [row["size"] for row in rows if row["kind"] == "product" and row["dtype"] == limit["dtype"]]
        assert limit["size"] not in sizes


def test_it_ends_when_it_is_asked_to_and_keeps_rows(tmp_path: Path) -> None:
    asked, kept = context(tmp_path, budget_s=30.0), []
    measured = MATMUL.measure(asked)
    while not kept or kept[-1]["kind"] != "product":
        kept.append(next(measured))
    asked.stop.set()
    with pytest.raises(Stopped):
        next(measured)
    assert verdict(kept).evidence
