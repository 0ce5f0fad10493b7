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

from rich.console import RenderableType
from textual.app import App

from epochtop.configuration.load import Configuration
from epochtop.tui.screens.opening import OpeningApp

CHECK_S = 1.0
"""Seconds between two checks of the terminal."""
HUNG_UP = 128 + signal.SIGHUP
"""Exit status of an app whose terminal is gone."""
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


class TerminalApp(OpeningApp):
    """An app that ends in order when its terminal does."""

    def watch_terminal(self) -> None:
        """End on SIGTERM and SIGHUP and when the terminal is gone; does nothing for an app without one."""
        if self.is_headless:
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, _leave, self, 128 + number)
        self.set_interval(CHECK_S, lambda: None if _has_terminal() else _leave(self, HUNG_UP))

    def panic(self, *renderables: RenderableType) -> None:
        """End with an error message, or without one if the terminal is gone.

        Textual's input thread may fail to read from a closed terminal before SIGHUP arrives.
        """
        if self.is_headless or _has_terminal():
            super().panic(*renderables)
        else:
            _leave(self, HUNG_UP)


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
