"""`python -P -m epochtop.supervisor OPTIONS -- COMMAND…`: started by `epochtop run`.

Reports on file descriptor `--report` with one line of JSON: `{"run": path}`, or `{"error": sentence}` with exit status 2.
Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from epochtop.supervisor.child import Child
from epochtop.supervisor.ending import shell_status
from epochtop.supervisor.output import Echo
from epochtop.supervisor.record import create_run, hookless_reason
from epochtop.supervisor.supervise import Supervision, hooked_environment


def main() -> int:
    """Run the command. Returns its exit status, 128 and the number of a signal that ended it, or 2 if it cannot start."""
    options = _options()
    report = os.fdopen(options.report, "w", closefd=True)
    run: Path | None = None
    try:
        run, lock = create_run(options.command, options.name)
        child = Child(
            options.command,
            hooked_environment(run, options.size is not None, os.environ),
            options.size,
            options.keep_input,
        )
    except OSError as error:
        if run is not None:
            shutil.rmtree(run, ignore_errors=True)
        where = f"{options.command[0]}: " if run is not None else "cannot create a run: "
        _say(report, {"error": f"{where}{error.strerror or error}"})
        return 2
    echoes = {1: Echo(1), 2: Echo(1 if options.size else 2)} if options.echo else {}
    supervision = Supervision(run, child, echoes, options.parse)
    _say(report, {"run": str(run)})
    reason = hookless_reason(options.command)
    facts = [{"type": "Noted", "message": f"no hooks: {reason}"}] if reason else []
    with lock:
        return shell_status(supervision.run_to_the_end(facts))


def _say(report: Any, message: dict[str, str]) -> None:
    with report:
        report.write(json.dumps(message) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -P -m epochtop.supervisor")
    parser.add_argument("--report", type=int, required=True, help="file descriptor of the report")
    parser.add_argument("--name", default="", help="name of the run")
    parser.add_argument("--size", type=_size, default=None, help="COLUMNSxROWS of the command's terminal")
    parser.add_argument("--keep-input", action="store_true", help="give our standard input to the command")
    parser.add_argument("--echo", action="store_true", help="pass the output on")
    parser.add_argument("--no-parse", dest="parse", action="store_false", help="look for no figures in printed lines")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    options.command = options.command[1:] if options.command[:1] == ["--"] else options.command
    return options


def _size(text: str) -> tuple[int, int]:
    columns, _, rows = text.partition("x")
    return int(columns), int(rows)


if __name__ == "__main__":
    sys.exit(main())
