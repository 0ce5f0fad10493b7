"""`epochtop pull`: copies a run from another machine into the home folder."""

from __future__ import annotations

import sys
from pathlib import Path

from epochtop.engine.protocol.quantities import format_bytes
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import index
from epochtop.engine.runs.writer import make_home
from epochtop.engine.terminal.output import clear_progress, show_progress, write
from epochtop.tui.cli.runs.remote import list_all, mirror_of_host


def pull_run(home: Path, host: str, query: str) -> int:
    """Copy the run that `query` refers to on `host` into `home`. Returns 0. Raises Invalid."""
    from epochtop.engine.runs.remote.pull import pull

    if not host:
        raise Invalid("host", "name the machine to copy from, such as `epochtop pull --host user@box last`")
    make_home(home)
    shows_progress = sys.stderr.isatty()
    with mirror_of_host(host) as mirror:
        list_all(mirror)
        run = index.find_any(mirror.folder, query)
        try:
            copy = pull(mirror, run.relative_to(mirror.folder).as_posix(), home, _show if shows_progress else _ignore)
        finally:
            if shows_progress:
                clear_progress()
    state = "; it is still running, pull again to update the copy" if copy.alive else ""
    write(
        f"{copy.path.name}: {format_bytes(copy.bytes)}, {format_bytes(copy.received)} of them copied now{state}\n{copy.path}\n"
    )
    return 0


def _show(here: int, total: int) -> None:
    show_progress(f"{format_bytes(here)} of {format_bytes(total)}  {here / max(1, total):4.0%}")


def _ignore(here: int, total: int) -> None:
    """Show nothing."""
