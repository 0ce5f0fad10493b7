"""`epochtop attach RUN`: imports neither the argument parser nor what the first frame does not need."""

from __future__ import annotations

import sys

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.opened.lookup import find_run
from epochtop.engine.runs.paths import home
from epochtop.engine.terminal.output import is_terminal, write_error
from epochtop.tui.app.launch import BAD_INPUT, run_app


def attach_run(query: str) -> int:
    """Open a run of this machine in the app. Returns the exit status. Raises Invalid without a run or a terminal."""
    path = find_run(home(), query, prefers_live=True)
    if not is_terminal() or not sys.stdin.isatty():
        raise Invalid("", "attach needs a terminal; `epochtop runs` and `epochtop export` work without one")
    return run_app(attach=path)


def run_attach(query: str) -> int:
    """As :func:`attach_run`; a bad input becomes a line on standard error."""
    try:
        return attach_run(query)
    except Invalid as error:
        write_error(f"epochtop: {error}\n")
        return BAD_INPUT
