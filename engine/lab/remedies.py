"""What would change a step that is bound by one of its parts: a setting of the run, where there is one.

Only a setting that the job has not already and can take: what an executor or a device refuses is told instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.lab.experiment import Row
from epochtop.engine.lab.statistics import select, values
from epochtop.engine.protocol.spec import RunSpec

MOST_WORKERS = 8
MORE_ROWS = 4
"""Times as many rows a batch, where the same work a step shall serve more of them."""


@dataclass(frozen=True)
class Remedy:
    """A setting, in words and as fields; empty where only the user's own code, or nothing, can change it."""

    setting: dict[str, str]
    words: str
    removes: tuple[str, ...] = ()
    """Parts of the step that it would take away at best."""


def remedy(bound: str, rows: Sequence[Row], spec: RunSpec) -> Remedy:
    """For a step that is bound by `bound`; `rows` are those of its device."""
    job = next(iter(select(rows, kind="job")), Row())
    lines = [str(row["place"]) for row in select(rows, kind="read") if row.get("place")]
    match bound:
        case "input":
            return _input(job, spec)
        case "launches" | "host":
            return _overhead(job, spec, lines)
        case "compute":
            return _compute(job, spec)
        case "transfers":
            return _transfers(job, spec)
        case "reads":
            return _reads(spec, lines)
        case _:
            return Remedy({}, "measure again while nothing else runs here, and longer")


def _input(job: Row, spec: RunSpec) -> Remedy:
    cpus = int(_number(job, "cpus", 1))
    match job.get("batches"):
        case "loaded":
            wanted = min(MOST_WORKERS, max(2, cpus, 2 * spec.workers))
            if wanted > spec.workers and (spec.workers < 2 or wanted <= cpus):
                words = f"workers={wanted}: so many processes load batches while steps are taken"
                return Remedy({"workers": str(wanted)}, words, ("input",))
            return Remedy(
                {}, f"{spec.workers} workers load already and {cpus} CPUs are there: make the Dataset's items cheaper"
            )
        case "streamed":
            return _resident(spec, "input")
        case _:
            return _more_rows(job, "picking rows takes most of so small a step")


def _overhead(job: Row, spec: RunSpec, lines: Sequence[str]) -> Remedy:
    if lines:
        return Remedy(
            {}, f"do not read values in a step ({', '.join(lines)}): such a step cannot be recorded as a graph"
        )
    unfit = job.get("unfit", "that was not tried")
    if spec.processes > 1:  # steps are taken apart in one process
        unfit = "several processes exchange gradients in its steps"
    if unfit == "" and spec.executor not in ("graph", "compile"):
        words = "executor=graph: the operators are recorded once and replayed without Python and without launching each"
        if spec.task:
            words += "; what your code does beside its operators is not repeated then"
        elif spec.executor == "auto":
            words += "; auto does so by itself in runs long enough for it"
        return Remedy({"executor": "graph"}, words, ("launches", "host"))
    return _more_rows(
        job, f"executor=graph does not fit: {unfit}" if unfit else f"executor={spec.executor} is asked for already"
    )


def _more_rows(job: Row, why: str) -> Remedy:
    """The same overhead for more rows, where there are more."""
    rows, batch = int(_number(job, "rows", 0)), int(_number(job, "batch", 0))
    if 0 < batch < rows:
        wanted = min(MORE_ROWS * batch, rows)
        return Remedy(
            {"batch_size": str(wanted)},
            f"{why}; batch_size={wanted} takes fewer steps an epoch for what each costs (and learns otherwise: look at the loss)",
        )
    return Remedy({}, f"{why}; every step takes all rows already")


def _compute(job: Row, spec: RunSpec) -> Remedy:
    if str(job.get("device", "cpu")).startswith("cuda") and spec.precision == "fp32" and job.get("bf16") != 0:
        return Remedy(
            {"precision": "bf16"},
            "precision=bf16: less to compute and to move; `epochtop lab precision` measures it",
            ("compute",),
        )
    return Remedy(
        {},
        "the step is arithmetic: a smaller model, lower precision (`epochtop lab precision`), more threads "
        "(`epochtop lab threads`) or a faster device change it; less overhead does not",
    )


def _resident(spec: RunSpec, part: str) -> Remedy:
    words = "placement=device: rows that lie on the device do not travel"
    if spec.placement == "auto":
        words += "; auto streams them since they need more than half of its free memory"
    return Remedy({"placement": "device"}, words, (part,))


def _transfers(job: Row, spec: RunSpec) -> Remedy:
    if job.get("batches") == "streamed":
        return _resident(spec, "transfers")
    return Remedy(
        {}, "move less: smaller types, or rows that stay on the device; `epochtop lab transfer` has the rates"
    )


def _reads(spec: RunSpec, lines: Sequence[str]) -> Remedy:
    if lines:
        return Remedy({}, f"take the read out of the step: {', '.join(lines)}; keep values as tensors", ())
    slower = min(60_000, max(1000, 4 * spec.refresh_ms))
    if slower > spec.refresh_ms:
        return Remedy({"refresh_ms": str(slower)}, f"refresh_ms={slower}: losses are read less often", ("reads",))
    return Remedy({}, "losses are read as seldom as can be already")


def _number(row: Row, column: str, default: float) -> float:
    found = values([row], column)
    return found[0] if found else default
