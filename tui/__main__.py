"""`epochtop`: the app, or one of the commands.

Imports as little as possible before the app's first frame; everything with arguments is in epochtop.tui.cli.main.
"""

from __future__ import annotations

import sys

from epochtop.engine.terminal.output import plain_tracebacks


def main() -> None:
    """Entry of the `epochtop` command; exits with its status."""
    _speak_utf8()
    plain_tracebacks()
    arguments = sys.argv[1:]
    if arguments in ([], ["--start"]) and sys.stdout.isatty() and sys.stdin.isatty():
        from epochtop.tui.app.launch import run_app

        sys.exit(run_app(start=bool(arguments)))
    if arguments[:1] == ["hardware"] and set(arguments[1:]) <= {"--json", "--torch"}:
        from epochtop.tui.cli.hardware import run_hardware  # without the argument parser, which takes longer to import

        sys.exit(run_hardware("--json" in arguments, "--torch" in arguments))
    from epochtop.tui.cli.main import run

    sys.exit(run(arguments))


def _speak_utf8() -> None:
    """Write UTF-8 in any locale; another encoding would fill the screen with escapes."""
    for stream in (sys.stdout, sys.stderr, sys.__stderr__):
        encoding = getattr(stream, "encoding", None) or ""
        reconfigure = getattr(stream, "reconfigure", None)
        if encoding.lower().replace("-", "") != "utf8" and reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main()
