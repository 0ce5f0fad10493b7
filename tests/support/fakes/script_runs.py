"""Runs of scripts, written by hand as `docs/run-format.md` describes them."""

from __future__ import annotations

from array import array
from pathlib import Path

from epochtop.engine.protocol.events import AnyEvent, Logged, ScriptEnded, ScriptStarted, encode
from epochtop.engine.protocol.record import RunRecord, ScriptRecord
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import COMMANDS, EVENTS, LOCK, OUTPUT, RECORD
from epochtop.engine.runs.series import packed

CREATED = 1_790_000_000.0
SCRIPT_STARTED = ScriptStarted(time=CREATED, pid=7)


def logged(first_step: int, seconds: float = 1.0, **series: list[float]) -> Logged:
    """A window of series that were logged at the same consecutive steps; `_` in a name stands for `/` if it is doubled."""
    values = {name.replace("__", "/"): packed(numbers) for name, numbers in series.items()}
    count = len(next(iter(series.values())))
    return Logged(time=CREATED + seconds, seconds=seconds, first_step=first_step, count=count, values=values)


def logged_at(steps: list[int], seconds: float = 1.0, **series: list[float]) -> Logged:
    """A window of series that were logged at these steps."""
    event = logged(steps[0], seconds, **series)
    return Logged(
        time=event.time,
        seconds=seconds,
        first_step=steps[0],
        count=len(steps),
        steps=array("q", steps).tobytes(),
        values=event.values,
    )


def script_ended(steps: int, outcome: str = "finished", **more: object) -> ScriptEnded:
    facts: dict[str, object] = {"time": CREATED + 9, "outcome": outcome, "steps": steps, "seconds": 9.0, **more}
    return ScriptEnded(**facts)  # type: ignore[arg-type]


def script_record(**script: object) -> RunRecord:
    """The record of a script."""
    facts: dict[str, object] = {"name": "resnet lr3", "command": ("python", "train.py", "--lr", "0.1"), **script}
    return RunRecord(
        spec=RunSpec(),
        script=ScriptRecord(**facts),  # type: ignore[arg-type]
        created=CREATED,
        host="box",
        user="ada",
        pid=7,
        versions={"python": "3.12.1"},
    )


def write_script_run(home: Path, run_id: str, events: list[AnyEvent], **script: object) -> Path:
    """A run directory of a script with these events."""
    run = home / run_id
    run.mkdir(parents=True)
    content = encode(script_record(**script)).replace(b'"spec":' + encode(RunSpec()), b'"spec":{}')
    assert b'"spec":{}' in content
    (run / RECORD).write_bytes(content)
    (run / EVENTS).write_bytes(b"".join(encode(event) + b"\n" for event in events))
    for name in (COMMANDS, LOCK, OUTPUT):
        (run / name).touch()
    return run
