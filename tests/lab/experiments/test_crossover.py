"""The experiment `crossover`: planted overhead, speed and crossing are recovered; no GPU is mentioned without its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import ExperimentContext, NoFields, Stopped
from epochtop.engine.lab.experiments.crossover import EXPERIMENT
from epochtop.engine.lab.experiments.crossover.laws import Law, crossing_mflop
from epochtop.engine.lab.experiments.crossover.laws import laws_of as laws_of_grid
from epochtop.engine.lab.experiments.crossover.schema import GridStep
from epochtop.engine.lab.measurements import Row, of_kind
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.tui.lab.pictures.picture import picture_rows
from tests.lab.stored_rows import StoredRows

CROSSOVER = StoredRows("crossover")

WIDTHS, BATCHES = (16, 64, 256, 1024), (16, 64, 256, 1024)
NOISE = (0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7)
STEADY = tuple(1 + (turn - 3) / 1000 for turn in range(7))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def context(tmp_path: Path, spec: RunSpec, budget_s: float = 2.0) -> ExperimentContext:
    spec = msgspec.structs.replace(spec, threads=1)
    return ExperimentContext(
        fields=NoFields(), spec=spec, devices=("cpu",), budget_s=budget_s, folder=tmp_path, quick=True
    )


def work_mflop(width: int, batch: int) -> float:
    """Of an mlp with one hidden layer on 64 pixels: two products forward, three backward (none for the input)."""
    return 2 * batch * width * (64 * 2 + 10 * 3) / 1e6


def grid(
    device: str, overhead_s: float, gflops: float, noise: Sequence[float] = STEADY, model: str = "mlp"
) -> list[Row]:
    """Steps that take `overhead + work / speed`, times noise: a factor a round, or a factor a row."""
    points = [(width, batch) for width in WIDTHS for batch in BATCHES]
    factors = iter(noise if len(noise) > 7 else [*noise] * len(points))
    return [
        {"kind": "grid", "device": device, "model": model, "width": width, "batch": batch, "round": turn}
        | {
            "mflop": work_mflop(width, batch),
            "seconds": next(factors) * (overhead_s + work_mflop(width, batch) / 1e3 / gflops),
        }
        for width, batch in points
        for turn in range(7)
    ]


def job(device: str, seconds: float, noise: Sequence[float] = STEADY, mflop: float = 0.05) -> list[Row]:
    """Steps of the user's job."""
    return [
        {"kind": "job", "device": device, "model": "yours", "width": None, "batch": 120, "mflop": mflop}
        | {"round": turn, "seconds": seconds * factor}
        for turn, factor in enumerate(noise)
    ]


def laws_of(rows: list[Row]) -> list[Law]:
    return laws_of_grid(of_kind(CROSSOVER.measurements(rows), GridStep))


def verdict(rows: list[Row]) -> Verdict:
    return CROSSOVER.conclude(rows)


def words(result: Verdict) -> str:
    return " ".join((result.finding, *result.evidence, result.next_step, result.uncertainty))


# --- planted -----------------------------------------------------------------------------------------------------


@given(
    st.floats(1e-4, 1e-3),
    st.floats(10, 100),
    st.lists(st.floats(0.98, 1.02), min_size=7 * 16, max_size=7 * 16),
)
def test_planted_overhead_and_speed_are_fitted_back(overhead_s: float, gflops: float, noise: list[float]) -> None:
    (law,) = laws_of(grid("cpu", overhead_s, gflops, noise))
    assert law.overhead_s == pytest.approx(overhead_s, rel=0.05)
    assert law.gflops == pytest.approx(gflops, rel=0.05)
    assert law.knee_mflop == pytest.approx(overhead_s * gflops * 1e3, rel=0.11)


@given(st.floats(2e-4, 2e-3), st.floats(200, 5000), st.floats(10, 100))
def test_the_gpu_takes_over_between_the_widths_where_that_was_planted(
    overhead_s: float, gflops: float, cpu_gflops: float
) -> None:
    rows = grid("cpu", 1e-4, cpu_gflops) + grid("cuda:0", overhead_s, gflops)
    result = verdict(rows)
    (conclusion,) = [
        line for line in result.evidence if "is faster from width" in line or "is faster from no width" in line
    ]
    # where 1e-4 s + work / CPU speed = overhead + work / GPU speed
    crossed = (overhead_s - 1e-4) / (1 / cpu_gflops - 1 / gflops) * 1e3
    cpu, gpu = laws_of(rows)
    assert crossing_mflop(cpu, gpu) == pytest.approx(crossed, rel=0.05)
    for batch in BATCHES:
        # both sides have the same noise in a round, so that even a small difference is one; leave out ties
        since = next((width for width in WIDTHS if work_mflop(width, batch) > crossed * 1.0001), None)
        at = f"{since:,}" if since else ""
        expected = f"width {at}{' (the smallest)' if since == WIDTHS[0] else ''}" if since else "no width"
        assert f"{expected} at batch {batch:,}" in conclusion


def test_a_job_that_is_faster_on_the_cpu_is_reported_to_use_it() -> None:
    rows = job("cpu", 1e-4) + job("cuda:0", 3e-4) + grid("cpu", 1e-4, 20) + grid("cuda:0", 3e-4, 2000)
    result = verdict(rows)
    assert result.finding.startswith(
        "use the CPU for this job: a step there is faster than on cuda:0: 3 × (3 … 3) as fast"
    )
    assert result.setting == {"device": "cpu"}
    assert "mlp: cuda:0 is faster from" in result.finding


def test_a_job_that_is_faster_on_the_gpu_stays_there() -> None:
    result = verdict(job("cpu", 1e-2) + job("cuda:0", 1e-3))
    assert result.finding.startswith("use cuda:0 for this job")
    assert "a step there is faster than on the CPU: 10 × (10 … 10) as fast" in result.finding
    assert result.setting == {}


@given(st.permutations(NOISE), st.floats(0.85, 1.2))
def test_noise_that_is_larger_than_the_effect_gives_no_difference(noise: list[float], effect: float) -> None:
    result = verdict(job("cpu", 1e-3, [1.0] * 7) + job("cuda:0", 1e-3 * effect, noise))
    assert result.finding.startswith("no difference between the devices larger than")
    assert result.setting == {}
    assert result.evidence[0].startswith("no difference between your step on cpu and on cuda:0")


@given(st.permutations(NOISE))
def test_noise_on_the_grid_lets_nothing_take_over(noise: list[float]) -> None:
    result = verdict(grid("cpu", 1e-4, 20, [1.0] * 7) + grid("cuda:0", 1e-4, 20, noise))
    (conclusion,) = [
        line for line in result.evidence if "is faster from width" in line or "is faster from no width" in line
    ]
    assert conclusion.count("no width") == len(BATCHES)


def test_without_a_gpu_it_is_reported_whether_the_job_is_overhead_or_computing() -> None:
    small = verdict(job("cpu", 1.1e-4, mflop=0.2) + grid("cpu", 1e-4, 20))
    # 0.2 MFLOP at 20 GFLOP/s are 10 µs, a ninth of 110 µs is less
    assert "is mostly overhead: its work takes 9.09 %" in small.finding
    assert "a larger batch or a wider model, which cost little here (by the fit, 12.0 × the work" in small.next_step
    large = verdict(job("cpu", 1e-2, mflop=160) + grid("cpu", 1e-4, 20))
    assert "is mostly computing: its work takes 80.0 % of it" in large.finding
    assert small.setting == large.setting == {}


def test_how_far_steps_are_flat_is_reported_by_width() -> None:
    result = verdict(grid("cpu", 1e-4, 20))
    # 100 µs at 20 GFLOP/s are 2 MFLOP: 0.00506 MFLOP a row at width 16, 0.0202 at 64, 0.0809 at 256, 0.324 at 1,024
    assert "up to a batch of 256 at width 16, 64 at width 64, 16 at width 256" in words(result)
    assert "16 at width 1,024" not in words(result)
    assert "steps are mostly overhead for the mlp on cpu below 2.00 MFLOP" in result.finding


def test_a_fit_that_misses_is_reported_as_such_and_not_drawn() -> None:
    rows = [row for row in grid("cpu", 1e-4, 20) if row["width"] != 64]
    rows += [{**row, "seconds": 5e-3} for row in grid("cpu", 1e-4, 20) if row["width"] == 64]
    result = verdict(rows)
    assert "a poor fit" in words(result)
    assert result.lines == ()
    assert len(verdict(grid("cpu", 1e-4, 20)).lines) == 1


# --- drawn -------------------------------------------------------------------------------------------------------


def upright(result: Verdict) -> dict[str, tuple[tuple[float, float], ...]]:
    """The lines at one value of x, by name."""
    return {line.name: line.points for line in result.lines if len({x for x, _ in line.points}) == 1}


@given(st.floats(2e-4, 2e-3), st.floats(200, 5000), st.floats(10, 100))
def test_a_line_is_drawn_at_the_least_work_beyond_the_planted_crossing(
    overhead_s: float, gflops: float, cpu_gflops: float
) -> None:
    result = verdict(grid("cpu", 1e-4, cpu_gflops) + grid("cuda:0", overhead_s, gflops))
    crossed = (overhead_s - 1e-4) / (1 / cpu_gflops - 1 / gflops) * 1e3
    works = {work_mflop(width, batch) for width in WIDTHS for batch in BATCHES}
    beyond = [work for work in works if work > crossed * 1.0001]
    if not beyond or min(beyond) == min(works):  # slower everywhere, or faster everywhere
        assert upright(result) == {}
        return
    ((x, low), (_, high)) = upright(result)["cuda:0 is faster (mlp)"]
    assert x == min(beyond)
    largest = work_mflop(1024, 1024) / 1e3
    assert low == pytest.approx(1e-4 + work_mflop(16, 16) / 1e3 / cpu_gflops)
    assert high == pytest.approx(max(1e-4 + largest / cpu_gflops, overhead_s + largest / gflops))


def test_each_model_has_a_line_of_its_own_and_its_work_is_reported() -> None:
    rows = grid("cpu", 1e-4, 20) + grid("cuda:0", 3e-4, 2000)
    rows += grid("cpu", 1e-4, 20, model="cnn") + grid("cuda:0", 3e-3, 2000, model="cnn")
    result = verdict(rows)
    # 200 µs and 2.9 ms at 1 / (1 / 20 - 1 / 2,000) GFLOP/s: 4.04 and 58.6 MFLOP; points are 1.29 MFLOP × 4, 16, …
    mlp, cnn = (upright(result)[f"cuda:0 is faster ({name})"][0][0] for name in ("mlp", "cnn"))
    assert (mlp, cnn) == (work_mflop(1024, 16), work_mflop(1024, 256))
    assert "mlp: cuda:0 is faster from 5.18 MFLOP per step, at every width and batch measured" in result.evidence
    assert "cnn: cuda:0 is faster from 82.8 MFLOP per step, at every width and batch measured" in result.evidence


def test_one_width_at_which_the_cpu_is_as_fast_puts_the_line_beyond_it() -> None:
    rows = grid("cpu", 1e-4, 20) + grid("cuda:0", 3e-4, 2000)
    slow = {"device": "cuda:0", "width": 64, "batch": 1024}
    rows = [{**row, "seconds": 1.0} if slow.items() <= row.items() else row for row in rows]
    # 256 at 256 and 1,024 at 64 have the same work, and are faster
    assert upright(verdict(rows))["cuda:0 is faster (mlp)"][0][0] == work_mflop(256, 1024)


def test_no_line_is_drawn_without_a_gpu_or_before_it_takes_over() -> None:
    assert upright(verdict(job("cpu", 1e-4) + grid("cpu", 1e-4, 20))) == {}
    assert upright(verdict(grid("cuda:0", 1e-4, 20))) == {}
    assert upright(verdict(grid("cpu", 1e-4, 2000) + grid("cuda:0", 3e-4, 20))) == {}
    assert upright(verdict(grid("cpu", 3e-4, 20) + grid("cuda:0", 1e-4, 2000))) == {}


def test_the_picture_shows_where_the_gpu_takes_over_and_where_the_job_stands() -> None:
    # the job stands where a point of the mlp does, and is seen all the same
    rows = job("cpu", 1e-4 + work_mflop(64, 64) / 2e4, mflop=work_mflop(64, 64))
    rows += job("cuda:0", 3e-3, mflop=work_mflop(64, 64)) + grid("cpu", 1e-4, 20) + grid("cuda:0", 3e-4, 2000)
    actual = [text for text, _ in picture_rows(EXPERIMENT.pictures[0], rows, verdict(rows).lines, 90, 26)]
    legend = " ".join(actual[-3:])
    assert "● cpu yours   × cuda:0 yours" in legend
    assert "┊ cuda:0 is faster (mlp)" in legend
    plot = actual[2:-5]
    assert [sum(line.count(mark) for line in plot) for mark in ("●", "×")] == [1, 1]
    (column,) = {line.index("┊") for line in plot if "┊" in line}
    # of the logarithm of all works, 16 × 16 to 1,024 × 1,024, that of 1,024 × 16 is the half
    left = plot[0].index("│") if "│" in plot[0] else plot[0].index("┤")
    assert column - left == pytest.approx((90 - left) / 2, abs=1)
    assert sum("┊" in line for line in plot) > len(plot) / 2


# --- any rows ----------------------------------------------------------------------------------------------------


def test_any_prefix_of_rows_is_concluded_from() -> None:
    rows = job("cpu", 1e-4) + grid("cpu", 1e-4, 20)
    within = len(rows)
    rows += job("cuda:0", 1e-4) + grid("cuda:0", 1e-4, 20)
    assert verdict([]).finding == "not enough was measured for an answer"
    for count in range(1, len(rows), 3):
        result = verdict(rows[:count])
        assert result.finding
        if count <= within:
            assert "cuda" not in words(result)
            assert "GPU" not in words(result)
    for count in range(within, len(rows), 5):
        assert verdict(rows[within:count]).evidence


# --- measured ----------------------------------------------------------------------------------------------------


def test_the_job_and_the_grid_are_measured(tmp_path: Path) -> None:
    asked = context(tmp_path, RunSpec(batch_size=32))
    rows = list(CROSSOVER.measure(asked))
    points = {(row["model"], row["width"], row["batch"]) for row in rows if row["kind"] == "grid"}
    assert {model for model, *_ in points} == {"mlp", "cnn"}
    assert ("mlp", 16, 16) in points
    custom = [row for row in rows if row["kind"] == "job"]
    assert {row["batch"] for row in custom} == {32}
    assert any("GPU would be faster" in line for line in asked.cannot_see)
    result = CROSSOVER.conclude(rows, spec=asked.spec)
    assert result.finding.startswith("a step of your job takes")
    assert "GPU" not in words(result)
    assert torch.get_num_threads() == 1


def test_the_work_in_a_step_is_that_of_its_products(tmp_path: Path) -> None:
    rows = list(CROSSOVER.measure(context(tmp_path, RunSpec(), 1.0)))
    for row in rows:
        if row["kind"] == "grid" and row["model"] == "mlp":
            width, batch = row["width"], row["batch"]
            assert isinstance(width, int)
            assert isinstance(batch, int)
            assert row["mflop"] == pytest.approx(work_mflop(width, batch))
    iris = next(row for row in rows if row["kind"] == "job")
    # 120 rows, 4-10-3: forward and the gradients of both weights, and of the hidden layer
    assert iris["mflop"] == pytest.approx(2 * 120 * (4 * 10 * 2 + 10 * 3 * 3) / 1e6)


def test_a_job_that_this_machine_cannot_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="tf32"):
        list(CROSSOVER.measure(context(tmp_path, RunSpec(precision="tf32"))))


def test_threads_are_what_they_were_even_if_it_is_stopped(tmp_path: Path) -> None:
    asked, kept = context(tmp_path, RunSpec(), 30.0), []
    torch.set_num_threads(2)
    measured = CROSSOVER.measure(asked)
    while not kept or kept[-1]["kind"] == "limit":
        kept.append(next(measured))
    assert torch.get_num_threads() == 1
    asked.stop.set()
    with pytest.raises(Stopped):
        next(measured)
    assert torch.get_num_threads() == 2
    assert verdict(kept).finding
