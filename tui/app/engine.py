"""The app's next engine: what it is starting, and what the status line says meanwhile.

The controllers share one of these. It knows no widget.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epochtop.tui.client.remote.starter import RemoteStarter
    from epochtop.tui.client.starter import Starter

IDLE = "Idle · ctrl+s start · ? all keys"


class NextEngine:
    """The starter thread, and the state of the request it is serving."""

    def __init__(self) -> None:
        self.starter: Starter | RemoteStarter | None = None
        """None until the app is live."""
        self.starting = False
        """Whether a run or an experiment has been requested and does not exist yet."""
        self.idle = self.status = IDLE
        """The status line while no run has figures to show; the first of them while nothing is being started either."""
        self.remote: RemoteStarter | None = None
        """The starter, if it starts runs on another machine."""
        self.elsewhere = ""
        """The machine on which all runs are, if that is another one."""
        self.torch = ""
        """torch's version, once a standby has reported it."""

    @property
    def available(self) -> bool:
        """Whether a request can be made now."""
        return self.starter is not None and not self.starting

    @property
    def can_begin(self) -> bool:
        """Whether scripts can be run and logs opened from here."""
        return not self.elsewhere or self.remote is not None

    @property
    def refusal(self) -> str:
        """Why no request can be made now, for people."""
        if self.elsewhere and self.starter is None:
            return f"no epochtop was found on {self.elsewhere}, which would start runs; install it there, or log in"
        return "another start is in progress"

    @property
    def empty_text(self) -> str:
        """What the chart says without a run of another machine; empty for runs of this one."""
        if not self.elsewhere:
            return ""
        start = "\nctrl+s starts one there (settings: 1)." if self.starter is not None else ""
        return f"No run open.\n\nThese are the runs of {self.elsewhere}.\nPress 2 to browse them, enter to open one.{start}"

    def watch_elsewhere(self, machine: str, starter: RemoteStarter | None = None) -> None:
        """The runs are on another machine, where `starter` starts some if it has an epochtop."""
        self.starter = self.remote = starter
        self.elsewhere, self.idle = machine, f"runs of {machine} · ? all keys"
        self.status = self.idle

    def exit_code(self, run: Path) -> int | None:
        """Exit status of the dead engine of a run that was started here; None for other runs. Waits for it."""
        return self.starter.exit_code(run) if self.starter is not None else None

    def request(self, status: str) -> None:
        """Mark a request as being served."""
        self.starting, self.status = True, status

    def done(self, status: str = "") -> None:
        """Mark the request as served or refused."""
        self.starting, self.status = False, status or self.idle

    def close(self) -> None:
        """End the standby; engines that have a run continue."""
        if self.starter is not None:
            self.starter.close()
