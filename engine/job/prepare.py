"""From a spec to a job: load, check, plan, build. The only way to a job for runs, ranks and experiments.

Never writes a file: what is wrong with a spec is reported before a run directory exists.
"""

from __future__ import annotations

import msgspec

from epochtop.engine.device.select import choose_device
from epochtop.engine.job.job import Job, build
from epochtop.engine.job.plan import describe, make_plan
from epochtop.engine.job.workload import Workload, load_workload
from epochtop.engine.protocol.record import TaskRecord
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.batches import DataShard


def prepare_job(
    spec: RunSpec,
    workload: Workload | None = None,
    rank: int = 0,
    device: str = "",
    checked: bool = True,
    task_record: TaskRecord | None = None,
) -> Job:
    """The job of process `rank` among `spec.processes`, ready to take steps. Raises Invalid.

    `workload` is that of the same spec if it is loaded already; a task's model can be used by one job only. `device`
    replaces the device that the spec chooses. Without `checked`, estimates of memory are ignored and only trying
    shows whether the job fits. `task_record` has sources to execute instead of the task's files.
    """
    workload = workload or load_workload(spec, task_record=task_record)
    plan = describe(spec, workload) if checked else make_plan(spec, workload, choose_device(spec.device))
    if device:
        plan = msgspec.structs.replace(plan, device=device)
    return build(spec, workload, plan, DataShard(rank, spec.processes), checked)
