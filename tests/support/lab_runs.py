"""Run directories of experiments written by hand, with rows from a formula, for tests of what reads them."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from epochtop.engine.lab.catalog import find
from epochtop.engine.lab.experiment import Findings
from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.events import AnyEvent, Concluded, Failed, Measured, Noted, Prepared, encode
from epochtop.engine.protocol.experiments import ExperimentRequest, Verdict
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import COMMANDS, EVENTS, LOCK, OUTPUT, RECORD, lab_home
from tests.support.runs import CREATED

EVERY = (1, 10, 100, 200, 1000, 2000, 0)
STEPS = 20_000
STEP_S, READ_S = 150e-6, 20e-6
"""What a step and a read take in the rows."""
NO_GPU = "nothing could be measured on a GPU: torch 2.13.0+cpu is built without CUDA"


def rows_of_reads(rounds: int = 5, devices: tuple[str, ...] = ("cpu",), seed: int = 1) -> list[Row]:
    """What `reads` measures of a job with these costs, with 2 % of noise; on a GPU a read costs five times as much."""
    noise = random.Random(seed)
    rows: list[Row] = [{"kind": "operators", "device": device, "operators": 24} for device in devices]
    for turn in range(rounds):
        for place, device in enumerate(devices):
            read_s = READ_S * (1 + 4 * place)
            for every in EVERY:
                reads = STEPS // every if every else 0
                seconds = (STEPS * STEP_S + reads * read_s) * (1 + 0.02 * noise.random())
                rows.append(
                    {"kind": "run", "device": device, "loop": "plain", "every": every, "round": turn, "repeats": 1,
                     "seconds": seconds, "steps": STEPS, "reads": reads}
                )  # fmt: skip
            ours = STEPS * STEP_S * (1.01 + 0.02 * noise.random())
            rows.append(
                {"kind": "run", "device": device, "loop": "epochtop", "every": 0, "round": turn, "repeats": 1,
                 "seconds": ours, "steps": STEPS, "reads": 0}
            )  # fmt: skip
            launch_s = 4e-6 * (1 + 0.1 * noise.random())
            rows.append({"kind": "launch", "device": device, "round": turn, "repeats": 2000, "seconds": launch_s})
    return rows


def prepared(devices: tuple[str, ...] = ("cpu",), after_s: float = 10.0) -> Prepared:
    """The experiment has begun so many seconds after its directory was made."""
    machine = {"host": "box", "cpu": "AMD EPYC 9634", "usable_cpus": 2, "memory_bytes": 24 << 30, "load": 0.1,
               "os": "Linux", "python": "3.11.7", "torch": "2.13.0",
               "gpu": "NVIDIA RTX 4070" if len(devices) > 1 else None}  # fmt: skip
    unseen = () if len(devices) > 1 else (NO_GPU,)
    return Prepared(time=CREATED + after_s, budget_s=45.0, devices=devices, machine=machine, cannot_see=unseen)  # type: ignore[arg-type]


def concluded(rows: list[Row], devices: tuple[str, ...] = ("cpu",), outcome: str = "finished") -> Concluded:
    """What `reads` says of these rows."""
    verdict = find("reads").conclude(Findings(find("reads").measurements(rows), spec=RunSpec(), devices=devices))
    return ended(verdict, outcome, prepared(devices).cannot_see)


def ended(verdict: Verdict, outcome: str = "finished", unseen: tuple[str, ...] = ()) -> Concluded:
    """Any verdict."""
    return Concluded(time=CREATED + 51, seconds=41.2, outcome=outcome, verdict=verdict, cannot_see=unseen)  # type: ignore[arg-type]


def events_of(state: str, devices: tuple[str, ...] = ("cpu",)) -> list[AnyEvent]:
    """The events of `reads` in a state that a screen can show."""
    rows = rows_of_reads(devices=devices)
    begun: list[AnyEvent] = [prepared(devices), *(Noted(message=f"building the job on {device}") for device in devices)]
    match state:
        case "running":
            begun[0] = prepared(devices, 107)  # eighteen seconds before the screens of tests
            return [*begun, *(Measured(values=row) for row in rows[: len(rows) // 2])]
        case "failed":
            failed = Failed(
                time=CREATED + 12, step=0, message="out of memory on the GPU", advice="use a smaller batch_size"
            )
            return [*begun, failed]
        case "stopped":
            rows = rows[: len(rows) // 2]
            return [*begun, *(Measured(values=row) for row in rows), concluded(rows, devices, "stopped")]
        case "died":
            return [*begun, *(Measured(values=row) for row in rows[:9])]
        case _:
            return [*begun, *(Measured(values=row) for row in rows), concluded(rows, devices)]


def write_experiment(
    home: Path, run_id: str, events: list[AnyEvent], age_s: float = 0.0, quick: bool = False, **spec: object
) -> Path:
    """A run directory with these events, of the experiment that its id begins with."""
    run = lab_home(home) / run_id
    run.mkdir(parents=True)
    asked = ExperimentRequest(name=run_id.rpartition("-")[0], fields={"steps": f"{STEPS}"}, quick=quick)
    record = RunRecord(
        spec=RunSpec(**spec),  # type: ignore[arg-type]
        experiment=asked,
        created=CREATED - age_s,
        host="box",
        user="ada",
        pid=1,
        versions={"torch": "2.13.0"},
    )
    (run / RECORD).write_bytes(encode(record))
    (run / EVENTS).write_bytes(b"".join(encode(event) + b"\n" for event in events))
    for name in (COMMANDS, LOCK, OUTPUT):
        (run / name).touch()
    return run


def slower(rows: list[Row], times: float, **labels: object) -> list[Row]:
    """The same rows, those with these labels so many times as long."""
    return [
        {**row, "seconds": times * float(row["seconds"])}  # type: ignore[arg-type]
        if "seconds" in row and all(row.get(name) == value for name, value in labels.items())
        else row
        for row in rows
    ]


def events_with(rows: list[Row], devices: tuple[str, ...] = ("cpu",), **machine: object) -> list[AnyEvent]:
    """The events of `reads` that has measured these rows to its end, on a machine that differs in these facts."""
    begun = prepared(devices)
    begun = msgspec.structs.replace(begun, machine={**begun.machine, **machine})
    return [begun, *(Measured(values=row) for row in rows), concluded(rows, devices)]
