"""The detached process that sends one message: `python -I -S child.py`, with the message as JSON on standard input.

It imports the standard library and this package only, and never a module of the user: the interpreter is isolated. What goes
wrong is written to standard output, one line per route. After the end of the run nobody reads that, so it goes to the end of
the run's output.log.
"""

import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main() -> None:
    """Send the message on standard input."""
    sys.path.append(ROOT)
    from epochtop.configuration.load import load
    from epochtop.notifications.routes import Message, send

    fields = json.loads(sys.stdin.buffer.read())
    path = str(fields["path"])
    run = os.path.basename(path)
    message = Message(
        fields["event"],
        display_name(path) or run,
        fields["text"],
        run=run,
        host=os.uname().nodename,
        step=fields["step"],
    )
    failures = [f"{route}: {what}" for route, what in send(message, load().values).items() if what]
    report(failures, path if fields["is_end"] else "")


def display_name(path: str) -> str:
    """The user's name for a run; empty if it has none."""
    from epochtop.configuration.regular import read_regular

    try:
        record = json.loads(read_regular(os.path.join(path, "run.json")))
        return str(record["spec"].get("name") or (record.get("script") or {}).get("name") or "")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return ""


def report(failures: "list[str]", path: str) -> None:
    """Say what went wrong, to the process that records, and in output.log of the ended run at `path`."""
    try:
        sys.stdout.write("".join(f"{failure}\n" for failure in failures))
        sys.stdout.flush()
    except OSError:  # the process has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if failures and path:
        from epochtop.configuration.regular import open_regular

        try:
            output = open_regular(os.path.join(path, "output.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with os.fdopen(output, "a", encoding="utf-8") as log:
                log.write(f"epochtop: a notification was not sent: {'; '.join(failures)}\n")
        except OSError:
            pass


if __name__ == "__main__":
    main()
