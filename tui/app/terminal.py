"""What a terminal can do to an app: hang up, terminate, go away without a word.

Textual restores the terminal only when it exits by itself, and its input thread spins at full speed on a
terminal that is gone (textual PR 6690), so all three end the app here. Runs are not touched.
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

LOOK_S = 1.0
PATIENCE_S = 3.0
"""How long a clean exit may take before the process ends anyway: writing to a dead terminal can block."""


def watch_terminal(app: App[Any]) -> None:
    """End `app` on SIGTERM and SIGHUP and when its terminal is gone; an app without one is left alone."""
    if app.is_headless:
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _leave, app, 128 + number)
    app.set_interval(LOOK_S, lambda: None if _has_terminal() else _leave(app, 128 + signal.SIGHUP))


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
