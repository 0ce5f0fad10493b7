"""The app on its terminal: its theme, what it does when it continues after a stop, and its end when the terminal hangs up,
terminates it, or disappears.

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
from textual.drivers.linux_driver import LinuxDriver

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
        loop.add_signal_handler(signal.SIGCONT, self._take_terminal)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, _leave, self, 128 + number)
        self.set_interval(CHECK_S, lambda: None if _has_terminal() else _leave(self, HUNG_UP))

    def _take_terminal(self) -> None:
        """Draw on the terminal again after SIGCONT.

        Textual's own handler starts a second input thread where the app was not suspended by its key, and takes the raw
        mode of the terminal for the one to restore. In an app that exits, it fails.
        """
        driver = self._driver
        if not isinstance(driver, LinuxDriver) or not driver._auto_restart or self._exit or not self.is_running:
            return
        if not driver._must_signal_resume:
            driver.suspend_application_mode()
        driver.resume_application_mode()
        self.refresh()

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
