"""What a verdict's setting really gained: the step that an experiment measured against the steps of a run with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine.fields import fields, show, spec_from
from engine.lab.contract import Row
from engine.lab.figures import Figure, figure, quantity, select, value_of, with_spread
from engine.spec import RunSpec
from tui.lab_state import LabState
from tui.runstate import RunState


def with_setting(spec: RunSpec, setting: dict[str, str]) -> RunSpec:
    """The job with these fields changed. Raises Invalid."""
    return spec_from({about.name: show(getattr(spec, about.name)) for about in fields()} | setting)


def measured_step(rows: Sequence[Row], device: str, spec: RunSpec, setting: Mapping[str, str]) -> Figure | None:
    """Seconds of a step of `spec` as the experiment measured it on `device`, without the setting; None without such rows.

    Rows of the kind `step` have them as `seconds`. Where those were measured with several values of a field of the
    setting, what the job itself has counts. Rows of the kind `run` have `seconds` of so many `steps`; those count that
    read no loss.
    """
    here = [row for row in rows if row.get("device") in (None, device)]
    steps = select(here, kind="step")
    for name in setting:
        steps = _without(steps, name, spec)
    found = [value for row in steps if (value := value_of(row, "seconds")) is not None] or list(_of_runs(here))
    return figure(found) if found else None


def _without(rows: list[Row], name: str, spec: RunSpec) -> list[Row]:
    """Those with the job's own value; `auto` is eager at first, and 0 threads are all of them."""
    values = {row[name] for row in rows if name in row}
    if len(values) < 2:
        return rows
    own = getattr(spec, name)
    numbers = [value for value in values if isinstance(value, int | float)]
    own = "eager" if own == "auto" else max(numbers) if own == 0 and numbers else own
    return [row for row in rows if str(row.get(name)) == str(own)]


def _of_runs(rows: Sequence[Row]) -> Iterator[float]:
    for row in select(rows, kind="run", loop="plain", every=0):
        steps, seconds = value_of(row, "steps"), value_of(row, "seconds")
        if steps and seconds is not None:
            yield seconds / steps


def gained(lab: LabState, run: RunState) -> str:
    """A sentence about a run that has ended, with the setting of the verdict of `lab`."""
    what = ", ".join(f"{name}={value}" for name, value in _setting(lab).items())
    end = run.finished
    if end is None or not end.steps_per_second:
        return f"{what}: the run did not come to its end, so nothing can be said"
    step_s = 1 / end.steps_per_second
    taken = f"{what}: a step of the run took {quantity(step_s, 's')}, evaluations and saving included"
    before = measured_step(lab.rows, run.started.device if run.started else "cpu", lab.record.spec, _setting(lab))
    if before is None:
        return f"{taken}; the experiment measured no single steps to compare it with"
    compared = f"{taken}; {lab.name} measured {with_spread(before)} without it"
    more = _growth(lab, run)
    if more != 1:
        compared += f", and now has {more:.3g} × the rows"
    low, middle, high = (more * value / step_s for value in (before.low, before.median, before.high))
    if low <= 1 <= high:
        return f"{compared}: no difference"
    return f"{compared}: {middle:.3g} × as fast" if middle > 1 else f"{compared}: it takes {1 / middle:.3g} × as long"


def _growth(lab: LabState, run: RunState) -> float:
    """How many times the rows a step has with the setting; a batch size of 0 is all of them."""
    new, every = _setting(lab).get("batch_size"), run.started.rows if run.started else 0
    if new is None or not every:
        return 1.0
    return (int(new) or every) / (lab.record.spec.batch_size or every)


def _setting(lab: LabState) -> dict[str, str]:
    return lab.concluded.verdict.setting if lab.concluded else {}
