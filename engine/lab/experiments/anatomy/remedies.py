"""Remedies for a step that is bound by one of its parts: a setting of the run, if there is one.

Only settings that the job does not have yet and can use. If an executor or a device refuses one, the reason is given
instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.lab.experiments.anatomy.schema import JobFacts, LineRead
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.protocol.spec import RunSpec

MOST_WORKERS = 8
MORE_ROWS = 4
"""Factor of the batch size, where the same work per step should serve more rows."""
UNKNOWN_JOB = JobFacts(device="", batches="", rows=0, batch=0, threads=1, cpus=1, unfit="it was not tried", bf16=1)


@dataclass(frozen=True)
class Remedy:
    """A setting, as fields and in words. Without fields, only user code can change something, or nothing can."""

    setting: dict[str, str]
    words: str
    removes: tuple[str, ...] = ()
    """Parts of the step that it can remove."""


def remedy(bound: str, rows: Sequence[Measurement], spec: RunSpec) -> Remedy:
    """The remedy for a step that is bound by the part `bound`; `rows` are the rows of its device."""
    job = next(iter(of_kind(rows, JobFacts)), UNKNOWN_JOB)
    places = [read.place for read in of_kind(rows, LineRead) if read.place]
    match bound:
        case "input":
            return _input(job, spec)
        case "launches" | "host":
            return _overhead(job, spec, places)
        case "compute":
            return _compute(job, spec)
        case "transfers":
            return _transfers(job, spec)
        case "reads":
            return _reads(spec, places)
        case _:
            return Remedy({}, "measure again for longer, while nothing else runs on this machine")


def _input(job: JobFacts, spec: RunSpec) -> Remedy:
    match job.batches:
        case "loaded":
            workers = min(MOST_WORKERS, max(2, job.cpus, 2 * spec.workers))
            if workers > spec.workers and (spec.workers < 2 or workers <= job.cpus):
                words = f"set workers={workers}: this many processes load batches while steps run"
                return Remedy({"workers": str(workers)}, words, ("input",))
            words = f"make the items of the Dataset cheaper: {spec.workers} workers already load on {job.cpus} CPUs"
            return Remedy({}, words)
        case "streamed":
            return _resident(spec, "input")
        case _:
            return _more_rows(job, "picking rows takes most of so short a step")


def _overhead(job: JobFacts, spec: RunSpec, places: Sequence[str]) -> Remedy:
    if places:
        return Remedy({}, f"do not read values in a step ({', '.join(places)}): reads prevent recording it as a graph")
    # the experiment measures one process
    unfit = "several processes exchange gradients in its steps" if spec.processes > 1 else job.unfit
    if unfit == "" and spec.executor not in ("graph", "compile"):
        words = "set executor=graph: it records the operators once and replays them without Python and single launches"
        if spec.task:
            words += "; other side effects of your code are not repeated then"
        elif spec.executor == "auto":
            words += "; auto does so by itself in runs that are long enough"
        return Remedy({"executor": "graph"}, words, ("launches", "host"))
    reason = f"executor=graph does not fit: {unfit}" if unfit else f"the job already uses executor={spec.executor}"
    return _more_rows(job, reason)


def _more_rows(job: JobFacts, reason: str) -> Remedy:
    """A larger batch, if there are more rows: the same overhead for more rows."""
    if 0 < job.batch < job.rows:
        rows = min(MORE_ROWS * job.batch, job.rows)
        return Remedy(
            {"batch_size": str(rows)},
            f"try batch_size={rows}: it needs fewer steps per epoch, but training changes, so watch the loss ({reason})",
        )
    return Remedy({}, f"keep the batch: every step uses all rows already ({reason})")


def _compute(job: JobFacts, spec: RunSpec) -> Remedy:
    if job.device.startswith("cuda") and spec.precision == "fp32" and job.bf16 != 0:
        words = "set precision=bf16: it computes and moves less (`epochtop lab precision` measures it)"
        return Remedy({"precision": "bf16"}, words, ("compute",))
    return Remedy(
        {},
        "use a smaller model, lower precision (`epochtop lab precision`), more threads (`epochtop lab threads`) or a faster "
        "device: the step is arithmetic, so less overhead does not help",
    )


def _resident(spec: RunSpec, part: str) -> Remedy:
    words = "set placement=device: rows on the device need no copies"
    if spec.placement == "auto":
        words += "; auto streams them because they need more than half of its free memory"
    return Remedy({"placement": "device"}, words, (part,))


def _transfers(job: JobFacts, spec: RunSpec) -> Remedy:
    if job.batches == "streamed":
        return _resident(spec, "transfers")
    return Remedy(
        {}, "copy less: use smaller types, or keep rows on the device (`epochtop lab transfer` has the rates)"
    )


def _reads(spec: RunSpec, places: Sequence[str]) -> Remedy:
    if places:
        return Remedy({}, f"move the read out of the step ({', '.join(places)}) and keep values as tensors")
    slower = min(60_000, max(1000, 4 * spec.refresh_ms))
    if slower > spec.refresh_ms:
        return Remedy({"refresh_ms": str(slower)}, f"set refresh_ms={slower}: losses are read less often", ("reads",))
    return Remedy({}, "keep refresh_ms: losses are read as rarely as possible already")
