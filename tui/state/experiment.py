"""The state of an experiment, folded from its events: the same for live and finished ones. Never imports a widget."""

from __future__ import annotations

from typing import Any

import msgspec

from epochtop.engine.lab.measurements import Row
from epochtop.engine.protocol.events import AnyEvent, Concluded, Failed, Measured, Noted, Prepared
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.reader import BadLine, SkippedLines
from epochtop.tui.state.lines import MessageLine


class ExperimentState:
    """One experiment. `name` is the id of its run. Raises Invalid if `record` is not an experiment's."""

    def __init__(self, record: RunRecord, name: str) -> None:
        if record.experiment is None:
            raise Invalid("", f"{name} is a training run, not an experiment; `epochtop attach {name}` opens it")
        self.record, self.asked, self.name = record, record.experiment, name
        self.prepared: Prepared | None = None
        self.concluded: Concluded | None = None
        self.rows: list[Row] = []
        self.failure = ""
        """Why it failed, or how its engine died."""
        self.dead = False
        """Whether its engine died."""
        self.phase = ""
        """What it is doing now."""
        self._skipped = SkippedLines()

    @property
    def over(self) -> bool:
        """Whether the experiment has ended."""
        return self.concluded is not None or bool(self.failure)

    @property
    def outcome(self) -> str:
        """`running`, `finished`, `stopped`, `failed` or `died`."""
        if self.concluded is not None:
            return self.concluded.outcome
        return ("died" if self.dead else "failed") if self.failure else "running"

    def apply(self, event: AnyEvent | BadLine) -> list[MessageLine]:
        """Update the state. Returns lines for the log, none if there is no news."""
        match event:
            case Prepared():
                self.prepared = event
            case Measured():
                self.rows.append(event.values)
            case Noted():
                self.phase = event.message
                return [MessageLine(event.message)]
            case Concluded():
                self.concluded = event
            case Failed():
                self.failure = "; ".join(filter(None, (event.message, event.advice)))
            case BadLine():
                report = self._skipped.report(event)
                return [MessageLine(report, "warning")] if report else []
            case _:
                pass
        return []

    def died(self, how: str, tail: str = "") -> list[MessageLine]:
        """Mark the experiment as died: its engine is gone without a final event. `tail` is the end of its output."""
        output = f"; output.log ends with:\n{tail}" if tail else ""
        self.dead = True
        self.failure = f"the engine ended before the experiment did ({how}){output}"
        return []

    def progress(self) -> str:
        """One line for a running experiment."""
        return f"{len(self.rows):,} rows" + (f" · {self.phase}" if self.phase else "")

    def result(self) -> dict[str, Any]:
        """The complete result as one object, for `--json`."""
        verdict = self.concluded.verdict if self.concluded else None
        names = ("finding", "evidence", "next_step", "uncertainty", "setting", "estimates")
        end = self.concluded
        limits = end or self.prepared
        return {
            "experiment": self.asked.name,
            "fields": self.asked.fields,
            "run": self.name,
            "machine": self.prepared.machine if self.prepared else None,
            "devices": self.prepared.devices if self.prepared else (),
            "seconds": end.seconds if end else None,
            "outcome": end.outcome if end else "failed",
            "failure": self.failure or None,
            "cannot_see": limits.cannot_see if limits else (),
            "rows": self.rows,
            "verdict": {name: msgspec.to_builtins(getattr(verdict, name)) for name in names} if verdict else None,
        }
