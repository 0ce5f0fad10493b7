"""The app's next engine: what it is starting, and what the status line says meanwhile.

The controllers share one of these. It knows no widget.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epochtop.tui.client.starter import Starter

IDLE = "Idle · ctrl+s start · ? all keys"


class NextEngine:
    """The starter thread, and the state of the request it is serving."""

    def __init__(self) -> None:
        self.starter: Starter | None = None
        """None until the app is live."""
        self.starting = False
        """Whether a run or an experiment has been requested and does not exist yet."""
        self.status = IDLE
        """The status line while no run has figures to show."""
        self.elsewhere = ""
        """The machine on which all runs are, if that is another one, where nothing can be started from here."""
        self.torch = ""
        """torch's version, once a standby has reported it."""

    @property
    def available(self) -> bool:
        """Whether a request can be made now."""
        return self.starter is not None and not self.starting

    @property
    def refusal(self) -> str:
        """Why no request can be made now, for people."""
        if self.elsewhere:
            return f"these runs are on {self.elsewhere}; log in there to start, resume or measure"
        return "another start is in progress"

    @property
    def empty_text(self) -> str:
        """What the chart says without a run if none can be started here; empty if one can."""
        return (
            f"No run open.\n\nThese are the runs of {self.elsewhere}.\nPress 2 to browse them, enter to open one."
            * bool(self.elsewhere)
        )

    def watch_elsewhere(self, machine: str) -> None:
        """The runs are on another machine."""
        self.elsewhere, self.status = machine, f"runs of {machine} · ? all keys"

    def exit_code(self, run: Path) -> int | None:
        """Exit status of the engine of a run that was started here; None while it lives and for other runs."""
        return self.starter.exit_code(run) if self.starter is not None else None

    def request(self, status: str) -> None:
        """Mark a request as being served."""
        self.starting, self.status = True, status

    def done(self, status: str = IDLE) -> None:
        """Mark the request as served or refused."""
        self.starting, self.status = False, status

    def close(self) -> None:
        """End the standby; engines that have a run continue."""
        if self.starter is not None:
            self.starter.close()
