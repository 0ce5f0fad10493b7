"""Remedies for a step that is bound by one of its parts: settings that the job does not have yet and can use."""

from __future__ import annotations

import pytest

from epochtop.engine.execution.c import build
from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.lab.experiments.anatomy import measure
from epochtop.engine.lab.experiments.anatomy.schema import PARTS
from epochtop.engine.lab.instruments.jobs import job_of
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.fields import fields, show, spec_from
from epochtop.engine.protocol.spec import RunSpec
from tests.lab.stored_rows import StoredRows
from tests.support.planted_steps import planted, rows

ANATOMY = StoredRows("anatomy")


def setting(bound: str, spec: RunSpec = RunSpec(), device: str = "cpu", **job: int | str) -> dict[str, str]:  # noqa: B008 - frozen
    """What is proposed where a part takes nearly everything."""
    actual = planted({bound: 1e-3, "host" if bound != "host" else "compute": 1e-6}, device)
    actual[0] |= job
    return ANATOMY.conclude(actual, spec=spec, devices=(device,)).setting


@pytest.mark.parametrize("bound", ["launches", "host"])
def test_overhead_is_what_a_graph_takes_away_where_it_fits(bound: str) -> None:
    assert setting(bound) == {"executor": "graph"}
    assert setting(bound, unfit="its rows are streamed or loaded", batch=10) == {"batch_size": "40"}
    assert setting(bound, RunSpec(executor="graph")) == {}
    assert setting(bound, RunSpec(executor="compile")) == {}
    assert setting(bound, RunSpec(processes=2, batch_size=10), batch=10) == {"batch_size": "40"}


def test_input_is_loaded_by_workers_or_kept_on_the_device() -> None:
    assert setting("input", batches="loaded") == {"workers": "2"}
    assert setting("input", RunSpec(workers=2), batches="loaded") == {}
    assert setting("input", RunSpec(workers=2), batches="loaded", cpus=16) == {"workers": "8"}
    assert setting("input", batches="streamed") == {"placement": "device"}


def test_arithmetic_is_lowered_in_precision_on_a_gpu_only() -> None:
    assert setting("compute") == {}
    assert setting("compute", device="cuda:0") == {"precision": "bf16"}
    assert setting("compute", RunSpec(precision="bf16"), device="cuda:0") == {}
    assert setting("compute", device="cuda:0", bf16=0) == {}
    assert setting("transfers", device="cuda:0", batches="streamed") == {"placement": "device"}


def test_no_more_is_promised_than_the_parts_that_a_setting_takes_away() -> None:
    parts = {"launches": 60e-6, "host": 20e-6, "compute": 20e-6}
    gpu = ANATOMY.conclude(planted(parts, "cuda:0"), devices=("cuda:0",))
    assert any(
        "executor=graph removes launches and host: steps are at most 5.00 × as fast" in line for line in gpu.evidence
    )
    # in C the arithmetic is another one: how fast is not known from torch's
    cpu = ANATOMY.conclude(planted(parts))
    assert any("5.00 × as fast without launches and host" in line and "in C" in line for line in cpu.evidence)


def test_a_line_that_reads_is_named_and_no_graph_is_proposed() -> None:
    read: Row = {
        "kind": "read",
        "device": "cpu",
        "place": "mine.py:12",
        "function": "loss",
        "source": "x.item()",
        "reads": 1,
    }
    verdict = ANATOMY.conclude([*rows(launches=1e-3, host=1e-4), read])
    assert "mine.py:12" in verdict.next_step
    assert any("mine.py:12 (in loss: x.item())" in line for line in verdict.evidence)
    assert verdict.setting == {}


def test_the_cpu_is_proposed_where_its_steps_are_shorter_than_the_gpus() -> None:
    both = [*rows("cpu", launches=60e-6, host=20e-6), *rows("cuda:0", launches=300e-6, compute=50e-6)]
    verdict = ANATOMY.conclude(both, devices=("cpu", "cuda:0"))
    assert verdict.setting == {"device": "cpu"}
    assert "4.38 ×" in verdict.next_step
    assert ANATOMY.conclude(both[: len(both) // 2], devices=("cpu", "cuda:0")).setting == {"executor": "graph"}


@pytest.mark.parametrize("bound", sorted(PARTS))
@pytest.mark.parametrize("batches", ["whole", "resident", "streamed", "loaded"])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_a_setting_is_none_that_the_job_has_already(bound: str, batches: str, device: str) -> None:
    asked = RunSpec(batch_size=10, placement="stream" if batches == "streamed" else "auto")
    for _ in range(30):  # until there is nothing left to propose
        about: Row = {"batches": batches, "batch": asked.batch_size}
        proposed = setting(bound, asked, device, **about)  # type: ignore[arg-type]
        if not proposed:
            return
        changed = spec_from({each.name: show(getattr(asked, each.name)) for each in fields()} | proposed)
        assert changed != asked
        asked, batches = changed, "resident" if changed.placement == "device" else batches
    pytest.fail(f"it goes on to propose {proposed}")


def test_a_graph_is_not_proposed_where_no_compiler_could_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise Unsupported("no C compiler was found")

    assert measure._unfit(job_of(RunSpec(threads=1, device="cpu"))) == ""
    monkeypatch.setattr(build, "compiler", none)
    assert measure._unfit(job_of(RunSpec(threads=1, device="cpu"))) == "no C compiler was found"
