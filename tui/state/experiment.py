"""What a viewer knows of an experiment, folded from its events. The same for live and finished ones."""

from __future__ import annotations

from typing import Any

from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.events import Concluded, Event, Failed, Measured, Noted, Prepared, RunRecord
from epochtop.engine.runs.reader import BadLine


class ExperimentState:
    """One experiment. `name` is the id of its run."""

    def __init__(self, record: RunRecord, name: str) -> None:
        assert record.experiment is not None
        self.record, self.asked, self.name = record, record.experiment, name
        self.prepared: Prepared | None = None
        self.concluded: Concluded | None = None
        self.rows: list[Row] = []
        self.failure = ""
        """Why it failed, or how its engine died."""
        self.dead = False
        """Whether its engine is gone without a word."""
        self.doing = ""
        """What it is doing, in its own words."""

    @property
    def over(self) -> bool:
        """Whether nothing will come any more."""
        return self.concluded is not None or bool(self.failure)

    @property
    def outcome(self) -> str:
        """`running`, or how it ended: `finished`, `stopped`, `failed`, `died`."""
        if self.concluded is not None:
            return self.concluded.outcome
        return ("died" if self.dead else "failed") if self.failure else "running"

    def apply(self, event: Event | BadLine) -> str | None:
        """Take in an event. Returns a line for a log, if there is something to say."""
        match event:
            case Prepared():
                self.prepared = event
            case Measured():
                self.rows.append(event.values)
            case Noted():
                self.doing = event.message
                return event.message
            case Concluded():
                self.concluded = event
            case Failed():
                self.failure = "; ".join(filter(None, (event.message, event.advice)))
            case BadLine():
                return f"events.jsonl, line {event.number} is skipped: {event.reason}"
            case _:
                pass
        return None

    def died(self, how: str, tail: str = "") -> None:
        """The engine is gone and has not said why."""
        said = f"; output.log ends with:\n{tail}" if tail else ""
        self.dead = True
        self.failure = f"the engine ended before the experiment did ({how}){said}"

    def progress(self) -> str:
        """One line while it measures."""
        return f"{len(self.rows):,} rows" + (f" · {self.doing}" if self.doing else "")

    def result(self) -> dict[str, Any]:
        """Everything as one object, for `--json`."""
        verdict = self.concluded.verdict if self.concluded else None
        names = ("finding", "evidence", "next_step", "uncertainty", "setting")
        end = self.concluded
        seen = end or self.prepared
        return {
            "experiment": self.asked.name,
            "fields": self.asked.fields,
            "run": self.name,
            "machine": self.prepared.machine if self.prepared else None,
            "devices": self.prepared.devices if self.prepared else (),
            "seconds": end.seconds if end else None,
            "outcome": end.outcome if end else "failed",
            "failure": self.failure or None,
            "cannot_see": seen.cannot_see if seen else (),
            "rows": self.rows,
            "verdict": {name: getattr(verdict, name) for name in names} if verdict else None,
        }
