"""From the command to the first frame, with as few imports as possible."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epochtop.engine.protocol.spec import RunSpec
    from epochtop.engine.runs.remote.mirror import Mirror
    from epochtop.tui.app.app import EpochtopApp
    from epochtop.tui.client.remote.starter import RemoteStarter
    from epochtop.tui.machine.source import OtherMachine

BAD_INPUT = 2
"""Exit status of a command with bad input."""
NOTICES_S = 0.5
"""Seconds between two looks for what a mirror reports."""


def run_app(
    start: bool = False,
    spec: RunSpec | None = None,
    attach: Path | None = None,
    flags: Mapping[str, str] | None = None,
    mirror: Mirror | None = None,
) -> int:
    """Open the app, with `mirror` for the runs of another machine. `flags` go before config.toml.

    Returns its exit status once it is closed; 2, after a line on standard error, if the home folder cannot be written.
    """
    from epochtop.configuration.load import load
    from epochtop.engine.runs.paths import home, home_problem
    from epochtop.engine.terminal.output import write_error

    folder = home() if mirror is None else mirror.folder
    if problem := home_problem(folder):
        write_error(f"epochtop: {problem}\n")
        return BAD_INPUT
    gc.disable()  # nothing to collect before all regions are there; see _settle
    from epochtop.tui.app.app import EpochtopApp

    _draw_on_the_terminal()
    host = "" if mirror is None else mirror.machine
    machine = None if mirror is None else _machine_of(mirror)
    app = EpochtopApp(
        folder, spec=spec, start=start, attach=attach, host=host, source=machine, configuration=load(flags)
    )
    if mirror is not None:
        app.engine.watch_elsewhere(mirror.name, _starter_of(app, mirror))
        app.call_later(partial(app.set_interval, NOTICES_S, partial(_report_notices, app, mirror)))
    app.when_furnished = _settle
    status = app.run()
    if app.return_code:
        return app.return_code
    if status is None:
        write_error("epochtop: the app ended unexpectedly; a run continues, `epochtop` reopens it\n")
    return status or 0


def _machine_of(mirror: Mirror) -> OtherMachine:
    from epochtop.tui.machine.source import OtherMachine

    return OtherMachine(mirror.machine_feed, mirror.name, lambda: mirror.problem)


def _starter_of(app: EpochtopApp, mirror: Mirror) -> RemoteStarter | None:
    if not mirror.program:
        return None
    from epochtop.tui.client.remote.starter import RemoteStarter

    return RemoteStarter(app.post_message, mirror)


def _report_notices(app: EpochtopApp, mirror: Mirror) -> None:
    for notice in mirror.take_notices():
        app.notify(notice, severity="warning", timeout=10)


def _draw_on_the_terminal() -> None:
    """Textual draws on standard error. If that is a file (`2>errors.txt`), draw on standard output."""
    out, error = sys.__stdout__, sys.__stderr__
    if out is not None and out.isatty() and (error is None or not error.isatty()):
        sys.__stderr__ = out  # type: ignore[misc]


def _settle() -> None:
    gc.freeze()
    gc.enable()
