"""`epochtop open`: logs of other tools in the run list and on the screen."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epochtop.engine.protocol.quantities import plural
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.opened import folders, sources
from epochtop.engine.runs.opened.lookup import logs_at
from epochtop.engine.runs.writer import make_home
from epochtop.engine.terminal.output import is_terminal, write, write_error
from epochtop.engine.terminal.plain import plain_line
from epochtop.tui.cli.runs.listing import print_runs

if TYPE_CHECKING:
    from epochtop.engine.runs.opened.lookup import Log


def open_logs(home: Path, paths: list[Path], copy: bool = False, forget: bool = False) -> int:
    """Add paths to the run list and open the newest run in the app; without a terminal, list the runs. Returns the exit status.

    With `copy`, copy the values into runs of epochtop instead; with `forget`, remove the paths from the run list. Paths
    without a log are reported, and the others are opened. Raises Invalid if there is no log at any path.
    """
    if copy and forget:
        raise Invalid("", "--import and --forget exclude each other")
    if not paths:
        raise Invalid("", "name a file or a folder, such as `epochtop open lightning_logs`")
    paths = [folders.absolute(path) for path in paths]
    if forget:
        folders.forget(home, paths)
        return 0
    logs_by_path = _logs_by_path(paths)
    paths, logs = list(logs_by_path), [log for at_path in logs_by_path.values() for log in at_path]
    make_home(home)
    if copy:
        return _copy(home, logs)
    folders.add(home, paths)
    if not is_terminal() or not sys.stdin.isatty():
        return print_runs(home, as_json=False, paths=paths)
    from epochtop.tui.app.launch import run_app

    newest = max(logs, key=lambda log: sources.summarize(log, home).created)
    return run_app(attach=newest.path)


def _logs_by_path(paths: Sequence[Path]) -> dict[Path, list[Log]]:
    """The logs at each path that has any; what cannot be read is reported. Raises Invalid if no path has a log."""
    logs: dict[Path, list[Log]] = {}
    reports: list[str] = []
    for path in paths:
        try:
            logs[path], problems = logs_at(path)
        except Invalid as error:
            problems = [error.message]
        reports += problems
    if not logs:
        raise Invalid("", "; ".join(reports))
    for report in reports:
        write_error(f"epochtop: {report}\n")
    return logs


def _copy(home: Path, logs: list[Log]) -> int:
    from epochtop.engine.runs.opened.copying import copy_log

    others = [log for log in logs if log.kind != folders.EPOCHTOP]
    for log in others:
        run = copy_log(home, log)
        write(f"{run.name}  {plain_line(str(log.path))}\n")
    write(f"imported {plural(len(others), 'run')}\n")
    if len(others) < len(logs):
        write_error(
            f"epochtop: {plural(len(logs) - len(others), 'run')} of epochtop cannot be imported; copy the folders\n"
        )
    return 0
