"""From what a user types to a run: an id, a name, or a path of a run directory or of another tool's log.

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import index
from epochtop.engine.runs.opened.folders import EPOCHTOP, OpenedLogs, absolute, search

if TYPE_CHECKING:
    from epochtop.formats.scan import Log as Log


def find_run(home: Path, query: str, *, prefers_live: bool = False) -> Path:
    """The run that `query` refers to: a run or an experiment in the home folder, the name of an opened run, or a path.

    With `prefers_live`, a run that is alive goes before runs in the home folder that have ended. Raises Invalid if there is
    none, or more than one.
    """
    path = absolute(query)
    if os.sep in query and (path.exists() or path.parent.is_file()):
        return run_at(path)
    try:
        return index.find_any(home, query, prefers_live=prefers_live)
    except Invalid as error:
        named = [log.path for log in OpenedLogs(home).list() if query in (log.name, log.path.name)]
        if len(named) == 1:
            return named[0]
        if query and path.exists():
            return run_at(path)
        raise error from None


def run_at(path: Path) -> Path:
    """The only run at an absolute path or below it. Raises Invalid if there is none, or more than one."""
    from epochtop.formats.scan import log_at

    log = log_at(path)
    if log is not None:
        return log.path
    logs, problems = logs_at(path)
    if len(logs) == 1:
        return logs[0].path
    if not logs:
        raise Invalid("", problems[0] if problems else f"there is no run in {path}")
    some = ", ".join(str(log.path) for log in logs[:3]) + (", …" if len(logs) > 3 else "")
    raise Invalid("", f"{path} holds {len(logs)} runs: {some}; use the path of one")


def all_runs(home: Path, paths: list[Path]) -> list[Log]:
    """The runs at these paths; without paths, those in the home folder, the newest first, and in opened folders.

    Raises Invalid if a path does not exist.
    """
    for path in paths:
        if not path.exists() and not path.parent.is_file():
            raise Invalid("", f"there is no file or folder {path}")
    if paths:
        return search([absolute(path) for path in paths])
    from epochtop.formats.scan import Log

    own = [Log(EPOCHTOP, path, path.name) for path in index.run_paths(home)]
    return [*own, *OpenedLogs(home).list()]


def logs_at(path: Path) -> tuple[list[Log], list[str]]:
    """The logs at a path or below it, and what could not be searched, one sentence each. Raises Invalid if there are none."""
    from epochtop.formats.scan import find_logs

    logs, problems = find_logs(path)
    if not logs:
        none = f"there is no log in {path}; see docs/open-logs.md for the formats"
        raise Invalid("", problems[0] if problems else none)
    return logs, problems
