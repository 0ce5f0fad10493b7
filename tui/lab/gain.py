"""The gain of a verdict's setting: step times of a run with it, compared with those the experiment measured without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from epochtop.engine.lab.gain import gained as gain_of
from epochtop.engine.lab.measurements import Row
from epochtop.engine.lab.statistics import Figure, figure, select, value_of
from epochtop.engine.protocol.quantities import format_quantity
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.state.experiment import ExperimentState
from epochtop.tui.state.run import RunState


def measured_step(rows: Sequence[Row], device: str, spec: RunSpec, setting: Mapping[str, str]) -> Figure | None:
    """Seconds per step of `spec` that the experiment measured on `device` without the setting; None without such rows.

    Rows of the kind `step` or `job` have them as `seconds`: only rows marked as the job's `own` count, measured with the
    job's own values of the setting's fields. Rows of the kind `run` have `seconds` for `steps`: only rows without reads
    count.
    """
    here = [row for row in rows if row.get("device") in (None, device)]
    steps = select(here, kind="step") or select(here, kind="job")
    if any("own" in row for row in steps):
        steps = select(steps, own=1)
    for name in setting:
        steps = _without(steps, name, spec)
    times = [value for row in steps if (value := value_of(row, "seconds")) is not None] or list(_step_times(here))
    return figure(times) if times else None


def _without(rows: list[Row], name: str, spec: RunSpec) -> list[Row]:
    """Rows with the job's value of the field; `auto` starts eager."""
    values = {row[name] for row in rows if name in row}
    if len(values) < 2:
        return rows
    value = getattr(spec, name)
    value = "eager" if value == "auto" else value
    return [row for row in rows if str(row.get(name)) == str(value)]


def _step_times(rows: Sequence[Row]) -> Iterator[float]:
    for row in select(rows, kind="run", loop="plain", every=0):
        steps, seconds = value_of(row, "steps"), value_of(row, "seconds")
        if steps and seconds is not None:
            yield seconds / steps


def gained(lab: ExperimentState, run: RunState) -> str:
    """A sentence about a finished run with the setting of the verdict of `lab`."""
    setting = lab.concluded.verdict.setting if lab.concluded else {}
    what = ", ".join(f"{name}={value}" for name, value in setting.items())
    end, started = run.finished, run.started
    if end is None or started is None or not end.steps_per_second:
        return f"{what}: no result, because the run did not finish"
    device = lab.prepared.devices[-1] if "device" in setting and lab.prepared else started.device
    before = measured_step(lab.rows, device, lab.record.spec, setting)
    if before is None:
        took = format_quantity(1 / end.steps_per_second, "s")
        return f"{what}: a step of the run took {took}; {lab.name} measured no steps to compare with"
    job, tried = lab.record.spec, run.record.spec if run.record else lab.record.spec
    rows = _rows_a_step(job, started.rows, processes=1), _rows_a_step(tried, started.rows, tried.processes)
    gain = gain_of(before, end.steps_per_second, *rows)
    assert gain is not None
    eager = " in eager steps, as auto starts" if "executor" in setting and job.executor == "auto" else ""
    return f"{gain.words(setting)}; before: measured by {lab.name}{eager}; now: the complete run, including evaluations and checkpoints"


def _rows_a_step(spec: RunSpec, rows: int, processes: int) -> int:
    """Rows per step; experiments measure steps of one process."""
    return min(rows, (spec.batch_size or rows) * spec.accumulate * processes)
