"""A step split into parts: planted parts are recovered, also those planted in a real job."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.lab.experiment import ExperimentContext, NoFields, Stopped
from epochtop.engine.lab.experiments.anatomy.measure import DeviceAnatomy
from epochtop.engine.lab.experiments.anatomy.schema import PARTS
from epochtop.engine.lab.experiments.anatomy.verdict import Anatomy
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.instruments.phases import PhaseClock, Steps, on_one_element, record_operators, replayed
from epochtop.engine.lab.instruments.reads import Reads
from epochtop.engine.lab.instruments.sampling import interleave
from epochtop.engine.lab.measurements import Row, stored
from epochtop.engine.lab.statistics import select
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.lab.stored_rows import StoredRows
from tests.support.planted_steps import planted, rows

ANATOMY = StoredRows("anatomy")

# --- the verdict ---------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(PARTS)),
    st.lists(st.floats(1e-6, 1e-2), min_size=len(PARTS) - 1, max_size=len(PARTS) - 1),
    st.floats(1.5, 100),
)
def test_the_largest_planted_part_is_named_with_the_most_that_it_can_gain(
    largest: str, others: list[float], times: float
) -> None:
    parts = dict(zip((part for part in PARTS if part != largest), others, strict=True)) | {largest: times * max(others)}
    verdict = ANATOMY.conclude(planted(parts))
    assert PARTS[largest][0] in verdict.finding
    assert "alike" not in verdict.finding
    made = Anatomy.of(ANATOMY.measurements(planted(parts)), "cpu")
    assert made is not None
    gained = sum(parts.values()) / sum(others)
    assert made.ceiling(largest) == pytest.approx(min(20.0, gained), rel=1e-6)
    assert "add up to the step within 5 %" in verdict.evidence[0]


@given(st.floats(-0.9, 0.9).filter(lambda share: abs(share) > 0.06))
def test_what_parts_do_not_add_up_to_is_unexplained(share: float) -> None:
    step = 100e-6
    given_rows = rows(host=0.7 * step * (1 - share), compute=0.3 * step * (1 - share), rest=share * step)
    verdict = ANATOMY.conclude(given_rows)
    assert "do not add up to the step" in verdict.evidence[0]
    assert f"({abs(share):.1%})" in verdict.evidence[0]
    assert ("unexplained" in verdict.finding) == (abs(share) > 0.25)
    assert verdict.setting == {} or abs(share) <= 0.25


def test_a_part_that_comes_out_below_nothing_is_not_hidden() -> None:
    made = Anatomy.of(ANATOMY.measurements(rows(compute=100e-6, host=-40e-6)), "cpu")
    assert made is not None
    assert made.seconds("host") == 0
    assert made.rest == pytest.approx(-40e-6)
    assert made.share("compute") + made.rest / made.step.median == pytest.approx(1)


@given(
    st.lists(st.floats(0.2, 0.9), min_size=9, max_size=9),
    st.permutations(sorted(PARTS)).map(lambda names: (names[0], names[1])),
)
def test_parts_that_differ_by_less_than_their_spread_are_called_alike(noise: list[float], two: tuple[str, str]) -> None:
    actual: list[Row] = []
    for turn, more in enumerate(noise):
        # each of them is the larger one in every other round
        sides = (1 + more, 1 - more) if turn % 2 else (1 - more, 1 + more)
        labels: Row = {"device": "cpu", "round": turn}
        actual.append({"kind": "step", **labels, "seconds": 20e-6})
        actual += [
            {"kind": "part", **labels, "part": part, "seconds": 10e-6 * side}
            for part, side in zip(two, sides, strict=True)
        ]
    verdict = ANATOMY.conclude(actual)
    assert "alike" in verdict.finding or "unexplained" in verdict.finding


@given(st.floats(0.06, 0.45), st.integers(1, 9))
def test_a_part_many_times_larger_is_reported_alone_however_often_it_was_measured(small: float, rounds: int) -> None:
    verdict = ANATOMY.conclude(planted({"compute": 1e-3, "host": small * 1e-3}, rounds=rounds))
    assert "compute-bound" in verdict.finding
    assert "alike" not in verdict.finding
    assert ("too few rounds" in verdict.uncertainty) == (rounds < 3)


def test_every_prefix_of_rows_has_a_verdict() -> None:
    every = rows(launches=50e-6, host=30e-6, compute=10e-6)
    for count in range(len(every) + 1):
        verdict = ANATOMY.conclude(every[:count])
        assert verdict.finding
        assert verdict.next_step
        assert verdict.uncertainty


def test_operators_are_counted_with_what_launching_one_takes() -> None:
    verdict = ANATOMY.conclude(rows(launches=60e-6, host=20e-6))
    assert any("30 operators at 2.00 µs each" in line for line in verdict.evidence)


# --- measuring -----------------------------------------------------------------------------------------------------

SLOW = """
import time
import torch
from torch.utils.data import Dataset
from epochtop import Task

class Slow(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, at):
        time.sleep(0.005)
        return torch.full((4,), float(at)), at % 3

def make():
    return Task(model=torch.nn.Linear(4, 3), train=Slow())
"""

READING = """
import torch
from epochtop import Task

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        out = self.layer(x)
        if out.abs().max() > 1e6:  # planted
            out = out / 2
        return out

def loss(out, y):
    value = torch.nn.functional.cross_entropy(out, y)
    scale = value.detach().item()  # planted
    kept = out.tolist()  # planted
    host = out.detach().numpy()  # planted
    return value + 0 * scale

def make():
    x = torch.rand(60, 4)
    return Task(model=Net(), train=(x, torch.arange(60) % 3), loss=loss)
"""


def task(folder: Path, text: str) -> str:
    """A file of the user's."""
    (folder / "mine.py").write_text(text.lstrip())
    return f"{folder / 'mine.py'}:make"


def measured(spec: RunSpec, folder: Path, budget_s: float = 2.0) -> list[Row]:
    """All rows of a real measurement."""
    context = ExperimentContext(
        fields=NoFields(), spec=spec, devices=("cpu",), budget_s=budget_s, folder=folder, quick=True
    )
    return list(ANATOMY.measure(context))


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)


def spec(**fields: object) -> RunSpec:
    """A job on one thread."""
    return RunSpec(threads=1, device="cpu", **fields)  # type: ignore[arg-type]


def test_a_loader_that_sleeps_is_called_input_bound(tmp_path: Path) -> None:
    asked = spec(task=task(tmp_path, SLOW), batch_size=8)
    verdict = ANATOMY.conclude(measured(asked, tmp_path), spec=asked)
    assert "input-bound" in verdict.finding
    assert verdict.setting["workers"]


def test_large_products_are_called_compute_bound(tmp_path: Path) -> None:
    asked = spec(dataset="sums", samples=1000, hidden=(2048, 2048), batch_size=256)
    actual = measured(asked, tmp_path)
    # a part that is measured once beside others may be off by a lot on a busy machine; which is largest is not
    made = Anatomy.of(ANATOMY.measurements(actual), "cpu")
    assert made is not None
    assert max(made.figures, key=made.seconds) == "compute"


def test_the_default_job_is_bound_by_launches_and_the_host(tmp_path: Path) -> None:
    actual = measured(spec(), tmp_path)
    made = Anatomy.of(ANATOMY.measurements(actual), "cpu")
    assert made is not None
    assert made.seconds("launches") + made.seconds("host") > made.seconds("compute") + made.seconds("input")
    assert select(actual, kind="job")[0]["unfit"] == ""


def test_every_line_that_reads_is_found_by_its_number(tmp_path: Path) -> None:
    asked = spec(task=task(tmp_path, READING))
    planted = {
        f"mine.py:{number}"
        for number, line in enumerate(READING.lstrip().splitlines(), 1)
        if line.endswith("# planted")
    }
    actual = select(measured(asked, tmp_path, budget_s=0.5), kind="read")
    assert {row["place"] for row in actual} == planted
    assert {row["function"] for row in actual} == {"forward", "loss"}
    assert all(row["reads"] == 1 for row in actual)


def test_a_dataset_that_reads_its_own_rows_is_not_blamed(tmp_path: Path) -> None:
    quick = SLOW.replace("time.sleep(0.005)", "torch.ones(1).item()")
    assert select(measured(spec(task=task(tmp_path, quick), batch_size=8), tmp_path, 0.5), kind="read") == []


def test_rows_are_what_conclude_takes_and_their_parts_add_up(tmp_path: Path) -> None:
    actual = measured(spec(), tmp_path, budget_s=1.0)
    assert [row["kind"] for row in actual[:2]] == ["job", "operators"]
    assert select(actual, kind="idle") == []
    for step in select(actual, kind="step"):
        parts = select(actual, kind="part", round=step["round"])
        assert [row["part"] for row in parts] == ["input", "host", "launches", "compute", "reads", "unexplained"]
        assert sum(float(row["seconds"] or 0) for row in parts) == pytest.approx(float(step["seconds"] or 0))


def test_a_device_that_refuses_the_job_leaves_the_others_to_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(asked: RunSpec, device: str, workload: object = None, **changes: object) -> object:
        if device == "mps":
            raise Invalid("precision", "tf32 is an arithmetic of NVIDIA GPUs")
        return job_of(asked, device, workload, **changes)  # type: ignore[arg-type]

    monkeypatch.setattr("epochtop.engine.lab.experiments.anatomy.measure.job_of", refusing)
    for devices in (("mps", "cpu"), ("cpu", "mps")):
        context = ExperimentContext(
            fields=NoFields(), spec=spec(), devices=devices, budget_s=0.5, folder=tmp_path, quick=True
        )
        actual = list(ANATOMY.measure(context))
        assert {row["device"] for row in select(actual, kind="step")} == {"cpu"}
        assert context.cannot_see == ["the job on mps: precision: tf32 is an arithmetic of NVIDIA GPUs"]
    alone = ExperimentContext(
        fields=NoFields(), spec=spec(), devices=("mps",), budget_s=0.5, folder=tmp_path, quick=True
    )
    with pytest.raises(Invalid, match="tf32"):
        list(ANATOMY.measure(alone))


def test_threads_are_as_they_were(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    measured(spec(), tmp_path, budget_s=0.1)
    assert torch.get_num_threads() == 2


def test_it_stops_when_it_is_asked_to_and_keeps_what_it_has(tmp_path: Path) -> None:
    context = ExperimentContext(fields=NoFields(), spec=spec(), devices=("cpu",), budget_s=30, folder=tmp_path)
    actual: list[Row] = []

    def until_a_part_is_known() -> None:
        for row in ANATOMY.measure(context):
            actual.append(row)
            if row["kind"] == "part":
                context.stop.set()

    with pytest.raises(Stopped):
        until_a_part_is_known()
    assert "a step takes" in ANATOMY.conclude(actual).evidence[0]


def test_the_gpu_method_attributes_all_time_to_the_host_where_no_device_works(tmp_path: Path) -> None:
    context = ExperimentContext(fields=NoFields(), spec=spec(), devices=("cpu",), budget_s=3, folder=tmp_path)
    anatomy = DeviceAnatomy(job_of(spec()), context, on_gpu=True)
    measured_rows = list(anatomy.facts())
    for timing in interleave(context, anatomy.cases(), 1.0, 5, 5):
        measured_rows += anatomy.rows(timing)
    actual = list(map(stored, measured_rows))
    assert [row["kernels"] for row in select(actual, kind="kernels")] == [0]
    made = Anatomy.of(ANATOMY.measurements(actual), "cpu")
    assert made is not None
    assert made.seconds("compute") == made.seconds("transfers") == 0
    assert made.seconds("launches") > 0
    parts = [[row["seconds"] for row in select(actual, kind="part", part=part)] for part in ("host", "launches")]
    together = [float(host or 0) + float(launches or 0) for host, launches in zip(*parts, strict=True)]
    assert (
        min(together) > 0
    )  # on a busy machine, the launches alone may take longer than the work that they are a part of


# --- operators -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"optimizer": "adam"},
        {"dataset": "digits", "model": "cnn", "batch_size": 16},
        {"precision": "bf16", "clip_norm": 1.0},
    ],
    ids=str,
)
def test_operators_can_be_called_again_and_leave_the_job_alone(fields: dict[str, object]) -> None:
    job = job_of(spec(**fields))
    steps = Steps(job)
    steps.run(2)
    actual = record_operators(steps, Reads("", steps.clock))
    before = [weight.detach().clone() for weight in job.model.parameters()]
    small = on_one_element(actual.calls, job.device)
    assert len(small) == len(actual.calls)
    assert replayed(actual.calls, job.device)(3) > 0
    assert replayed(small, job.device)(3) > 0
    for weight, kept in zip(job.model.parameters(), before, strict=True):
        assert torch.equal(weight, kept)


def test_operators_with_nothing_to_compute_are_the_same_ones_on_one_element() -> None:
    steps = Steps(job_of(spec()))
    steps.run(2)
    actual = record_operators(steps, Reads("", steps.clock)).calls
    small = on_one_element(actual, torch.device("cpu"))
    kinds = [str(call.operator) for call in small]
    assert kinds == [str(call.operator) for call in actual]
    products = [call for call in small if str(call.operator) == "aten.addmm.default"]
    assert len(products) == 2
    assert all(tensor.numel() == 1 for call in products for tensor in call.arguments[:3])


def test_time_is_reported_apart_by_phase() -> None:
    import time

    clock = PhaseClock()

    def work() -> None:
        clock.to("input")
        time.sleep(0.03)
        clock.to("work")

    actual = clock.measure(work)
    assert actual["input"] >= 0.029
    assert actual["work"] < actual["input"]
    assert actual["read"] == 0
