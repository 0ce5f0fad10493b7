"""The experiment `profile` counts what torch dispatches, accounts for a whole step, and ranks planted operators."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from epochtop.engine.lab.experiment import ExperimentContext, NoFields, Stopped
from epochtop.engine.lab.instruments import profiler as traced
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows

PROFILE = StoredRows("profile")

JOB = RunSpec(threads=1, device="cpu")
NOISE = (0.5, 0.7, 0.8, 1.0, 1.0, 1.0, 1.3, 1.5, 1.9)
"""Its median is 1, and its quartiles are 0.5 apart."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def context(folder: Path, spec: RunSpec = JOB, budget_s: float = 1.0) -> ExperimentContext:
    return ExperimentContext(fields=NoFields(), spec=spec, devices=("cpu",), budget_s=budget_s, folder=folder)


class Counting(TorchDispatchMode):
    """Counts the operators that reach the device, backward ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


# --- measuring -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hidden", "layers"), [((), 1), ((10,), 2), ((8, 8), 3)])
def test_calls_are_those_that_torch_dispatches(hidden: tuple[int, ...], layers: int) -> None:
    job = job_of(RunSpec(hidden=hidden, threads=1), "cpu")
    job.step()
    with Counting() as counting:
        job.step()
    seen = {operator.name: operator.calls for operator in traced.trace(job, 4).operators}
    for name in (
        "aten::addmm",
        "aten::mm",
        "aten::threshold_backward",
        "aten::nll_loss_forward",
        "aten::_foreach_add_",
    ):
        assert seen.get(name, 0) == counting.counts[name]
    # a layer is one product forward; backward it needs one for its weights, and all but the first one for its rows
    assert (seen["aten::addmm"], seen["aten::mm"]) == (layers, 2 * layers - 1)


def test_operators_and_the_time_between_them_are_the_whole_step() -> None:
    actual = traced.trace(job_of(JOB, "cpu"), 10)
    own_s = sum(operator.seconds for operator in actual.operators)
    assert own_s + actual.idle_s == pytest.approx(actual.length_s, rel=0.02)
    assert 0 < actual.idle_s < actual.length_s


def test_the_timeline_is_one_step_from_its_forward_pass_to_its_update() -> None:
    spans = traced.trace(job_of(JOB, "cpu"), 5).spans
    first = {span.lane: span for span in reversed(spans)}
    last = {span.lane: span for span in spans}
    assert set(first) == {"forward", "backward", "update", "between"}
    assert last["forward"].end <= first["backward"].start
    assert last["backward"].end <= first["update"].start
    ordered = sorted(spans, key=lambda span: span.start)
    assert all(span.start < span.end for span in ordered)
    assert all(before.end <= after.start for before, after in pairwise(ordered))


def test_rows_of_a_job_and_its_trace(tmp_path: Path) -> None:
    rows = list(PROFILE.measure(context(tmp_path)))
    assert {row["kind"] for row in rows} == {"operator", "step", "gap", "span", "trace"}
    (result,) = (row for row in rows if row["kind"] == "trace")
    events = json.loads(Path(str(result["path"])).read_text())["traceEvents"]
    names = Counter(event.get("name") for event in events if event.get("ph") == "X")
    assert result["path"] == str(tmp_path / "trace.json")
    assert names["aten::addmm"] == 2 * result["steps"]  # type: ignore[operator]
    calls = {row["calls"] for row in rows if row.get("operator") == "aten::addmm"}
    assert calls == {2}
    assert {(row["profiler"], row["own"]) for row in rows if row["kind"] == "step"} == {("without", 1), ("with", 0)}
    shares = [row["share"] for row in rows if row["kind"] in ("operator", "gap") and row["round"] == 0]
    assert sum(shares) == pytest.approx(100, rel=0.02)  # type: ignore[arg-type]
    conclusion = PROFILE.conclude(rows)
    assert any(str(tmp_path) in line for line in conclusion.evidence)
    assert sum("under the profiler" in line for line in conclusion.evidence) == 1


def test_a_task_is_profiled_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom epochtop import Task\n"
        "def make_task():\n"
        "    x, y = torch.randn(32, 4), torch.arange(32) % 3\n"
        "    return Task(model=torch.nn.Linear(4, 3), train=(x, y))\n"
    )
    spec = RunSpec(task=f"{tmp_path / 'mine.py'}:make_task", threads=1, device="cpu")
    rows = list(PROFILE.measure(context(tmp_path, spec, budget_s=0.1)))
    assert {row["calls"] for row in rows if row.get("operator") == "aten::addmm"} == {1}


def test_a_stop_keeps_the_rounds_before_it(tmp_path: Path) -> None:
    asked = context(tmp_path, budget_s=20.0)
    rows: list[Row] = []
    measuring = PROFILE.measure(asked)
    rows.append(next(measuring))
    asked.stop.set()
    with pytest.raises(Stopped):
        rows.extend(measuring)
    assert {row["round"] for row in rows if row["kind"] == "operator"} == {0}
    assert PROFILE.conclude(rows).finding.startswith("on cpu ")


def event(name: str, start: float, end: float, gpu: bool = False, custom: bool = False, **more: Any) -> Any:
    """As in the profiler, in microseconds; `custom` marks a named range, such as those of torch's optimizers."""
    return SimpleNamespace(
        name=name,
        device_type=SimpleNamespace(name="CUDA" if gpu else "CPU"),
        is_user_annotation=custom,
        time_range=SimpleNamespace(start=start, end=end),
        cpu_parent=None,
        **{"self_device_time_total": 0.0, "self_cpu_time_total": end - start, **more},
    )


def test_on_a_gpu_a_named_range_is_not_an_operator_and_hides_no_gap() -> None:
    """The range is on the GPU's line from its first kernel to its last, with the idle time between them."""
    events = [
        event("step", 0, 100, custom=True, self_device_time_total=100.0),
        event("aten::mm", 0, 20, self_device_time_total=10.0),
        event("Optimizer.step#Adam.step", 30, 90, custom=True, self_device_time_total=60.0),
        event("aten::add_", 40, 50, self_device_time_total=10.0),
        event("gemm", 10, 20, gpu=True),
        event("add", 80, 90, gpu=True),
        event("step", 10, 90, gpu=True, custom=True),
        event("Optimizer.step#Adam.step", 20, 90, gpu=True, custom=True),
    ]
    actual = traced._read(events, 1, 1e-4, gpu=True)
    assert {operator.name: round(operator.seconds * 1e6) for operator in actual.operators} == {
        "aten::mm": 10,
        "aten::add_": 10,
    }
    assert actual.idle_s == pytest.approx(80e-6)


def test_on_the_host_a_named_range_keeps_its_own_time() -> None:
    """Rows that a DataLoader makes are Python in a range of its own, and no operator's."""
    name = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
    events = [event("step", 0, 100, custom=True), event(name, 0, 60, custom=True), event("aten::mm", 60, 90)]
    actual = traced._read(events, 1, 1e-4, gpu=False)
    assert {operator.name: round(operator.seconds * 1e6) for operator in actual.operators} == {name: 60, "aten::mm": 30}
    assert actual.idle_s == pytest.approx(10e-6)


# --- concluding ----------------------------------------------------------------------------------------------


def planted(
    operators: dict[str, float], idle: float, profiler: float = 1.5, noise: tuple[float, ...] = (1.0,) * 9
) -> list[Row]:
    """Rows of steps of 100 µs without the profiler; noise is on all operators but the first, and on the profiler's."""
    rows: list[Row] = []
    for turn, times in enumerate(noise):
        labels: Row = {"device": "cpu", "round": turn}
        rows.append({"kind": "step", **labels, "profiler": "without", "seconds": 1e-4})
        rows.append({"kind": "step", **labels, "profiler": "with", "seconds": 1e-4 * profiler * times})
        rows.append({"kind": "gap", **labels, "seconds": idle * 1e-6, "share": idle})
        for place, (name, share) in enumerate(operators.items()):
            took = share * (times if place else 1.0)
            rows.append(
                {"kind": "operator", **labels, "operator": name, "calls": 2, "seconds": took * 1e-6, "share": took}
            )
    return rows


def concluded(rows: list[Row], executor: str = "auto") -> Verdict:
    return PROFILE.conclude(rows, spec=RunSpec(executor=executor))  # type: ignore[arg-type]


@given(more=st.floats(1.2, 20), order=st.permutations([0.98, 0.99, 0.99, 1.0, 1.0, 1.0, 1.01, 1.01, 1.02]))
def test_the_operator_that_takes_the_most_is_named(more: float, order: list[float]) -> None:
    conclusion = concluded(
        planted({"aten::mul": 2.0, "aten::addmm": 2.0 * more, "all others": 50.0}, 20.0, noise=tuple(order))
    )
    assert conclusion.finding.startswith("on cpu aten::addmm takes the largest part of a step")
    assert conclusion.evidence[0].startswith("2 × aten::addmm")
    assert conclusion.setting == {}


@given(effect=st.floats(0.85, 1.15), order=st.permutations(NOISE))
def test_noise_that_is_larger_than_the_effect_is_not_a_difference(effect: float, order: list[float]) -> None:
    rows = planted({"aten::mul": 20.0, "aten::addmm": 20.0 * effect}, 20.0, effect, tuple(order))
    conclusion = concluded(rows)
    assert "take the largest parts of a step, with no difference between them that can be seen" in conclusion.finding
    assert any(line.startswith("no difference between a step under the profiler") for line in conclusion.evidence)
    assert "no difference between a step under the profiler and one without it" in conclusion.uncertainty


@pytest.mark.parametrize(
    ("idle", "executor", "setting"),
    [(60.0, "auto", {"executor": "graph"}), (60.0, "graph", {}), (40.0, "auto", {})],
)
def test_a_step_that_is_mostly_between_operators_should_be_recorded(
    idle: float, executor: str, setting: dict[str, str]
) -> None:
    conclusion = concluded(planted({"aten::addmm": 100 - idle}, idle), executor)
    assert conclusion.setting == setting
    assert f"in {idle:.1f} %" in conclusion.finding
    assert ("executor=graph" in conclusion.next_step) == bool(setting)


@pytest.mark.parametrize(
    ("share", "words"), [(70.0, "improve aten::addmm, at most 70.0 % of the step"), (5.0, "5.00 % shorter")]
)
def test_the_advice_names_the_most_that_one_operator_can_gain(share: float, words: str) -> None:
    assert words in concluded(planted({"aten::addmm": share, "aten::mul": 1.0}, 10.0)).next_step


def test_a_step_that_consists_of_loading_rows_leads_to_the_loader() -> None:
    name = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
    assert "`epochtop lab loader`" in concluded(planted({name: 90.0, "aten::addmm": 2.0}, 2.0)).next_step


def test_the_cost_of_the_profiler_is_reported() -> None:
    conclusion = concluded(planted({"aten::addmm": 50.0}, 10.0, profiler=2.5))
    assert any("a step under the profiler is slower than one without it: 2.5 ×" in line for line in conclusion.evidence)
    assert "took 2.5 × (2.5 … 2.5) as long" in conclusion.uncertainty


def test_any_rows_and_none_lead_to_a_verdict() -> None:
    assert concluded([]).finding == "not enough was measured for an answer"
    rows = planted({"aten::addmm": 50.0, "aten::mul": 20.0}, 10.0)
    for many in range(1, len(rows) + 1):
        assert concluded(rows[:many]).finding
