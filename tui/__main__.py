"""`epochtop`: the app, or one of the commands.

Imports as little as possible before the app's first frame; everything with arguments is in epochtop.tui.cli.main.
"""

from __future__ import annotations

import sys

from epochtop.engine.terminal.output import guarded, is_terminal, plain_tracebacks


def main() -> None:
    """Entry of the `epochtop` command; exits with its status."""
    _speak_utf8()
    plain_tracebacks()
    sys.exit(guarded(lambda: _run(sys.argv[1:])))


def _run(arguments: list[str]) -> int:
    if arguments in ([], ["--start"]) and is_terminal() and sys.stdin.isatty():
        from epochtop.tui.app.launch import run_app

        return run_app(start=bool(arguments))
    if len(arguments) == 2 and arguments[0] == "attach" and not arguments[1].startswith("-"):
        from epochtop.tui.cli.runs.attach import run_attach  # without the argument parser, which takes longer to import

        return run_attach(arguments[1])
    if arguments[:1] == ["hardware"] and set(arguments[1:]) <= {"--json", "--torch"}:
        from epochtop.tui.cli.hardware import run_hardware  # as above

        return run_hardware("--json" in arguments, "--torch" in arguments)
    from epochtop.tui.cli.main import run

    return run(arguments)


def _speak_utf8() -> None:
    """Write UTF-8 in any locale; another encoding would fill the screen with escapes."""
    for stream in (sys.stdout, sys.stderr, sys.__stderr__):
        encoding = getattr(stream, "encoding", None) or ""
        reconfigure = getattr(stream, "reconfigure", None)
        if encoding.lower().replace("-", "") != "utf8" and reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main()
