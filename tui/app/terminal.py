"""The app on its terminal: its theme, and its end when the terminal hangs up, terminates it, or disappears.

Textual restores the terminal only when it exits by itself, and its input thread spins at full speed on a terminal that
is gone (textual PR 6690), so all three end the app here. Runs continue.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import threading
from typing import Any

from textual.app import App

from epochtop.configuration.load import Configuration

CHECK_S = 1.0
"""Seconds between two checks of the terminal."""
PATIENCE_S = 3.0
"""Longest clean exit before the process is ended: writing to a dead terminal can block."""


def apply_configuration(app: App[Any], configuration: Configuration) -> None:
    """Use the theme of the configuration, and show what is wrong with the file."""
    theme, problems = configuration["theme"], list(configuration.problems)
    if theme in app.available_themes:
        app.theme = theme
    elif theme:
        problems.append(f'theme is "{theme}", but must be one of {", ".join(sorted(app.available_themes))}')
    for problem in problems:
        app.notify(problem, title="configuration", severity="warning", timeout=15)


def watch_terminal(app: App[Any]) -> None:
    """End `app` on SIGTERM and SIGHUP and when its terminal is gone; does nothing for an app without one."""
    if app.is_headless:
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _leave, app, 128 + number)
    app.set_interval(CHECK_S, lambda: None if _has_terminal() else _leave(app, 128 + signal.SIGHUP))


def _has_terminal() -> bool:
    try:
        termios.tcgetattr(sys.__stdin__.fileno() if sys.__stdin__ else 0)
    except termios.error:
        return False
    return True


def _leave(app: App[Any], code: int) -> None:
    deadline = threading.Timer(PATIENCE_S, os._exit, (code,))
    deadline.daemon = True
    deadline.start()
    app.exit(return_code=code)
