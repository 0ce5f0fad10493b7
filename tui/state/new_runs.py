"""Which runs have begun while no run was open, from the list of runs. No widgets, no clock."""

from __future__ import annotations

from collections.abc import Iterable

from epochtop.engine.runs.index import RunSummary

LIVE = ("starting", "running", "paused")
"""States of runs that have not ended."""


class NewRuns:
    """Compares the list of runs with the one before."""

    def __init__(self, since: float) -> None:
        """Runs that were created before `since`, in Unix seconds, are not new in the first list."""
        self._since = since
        self._live: set[str] | None = None
        """Ids of the live runs of the last list; None before the first one."""
        self._new: set[str] = set()

    def look(self, summaries: Iterable[RunSummary], *, is_empty: bool) -> str:
        """Id of the newest live run that has begun, or was resumed, since a run was last open; empty if there is none.

        `is_empty` is whether no run is open and none is starting.
        """
        live = {run.id: run.created for run in summaries if run.state in LIVE}
        known = self._live
        if known is None:
            known = {run for run, created in live.items() if created < self._since}
        self._live = set(live)
        self._new = (self._new | (self._live - known)) & self._live if is_empty else set()
        return max(self._new, key=lambda run: live[run], default="")
