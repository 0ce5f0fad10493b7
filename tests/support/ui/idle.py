"""When an app under test has nothing left to do.

Textual takes a process that used no CPU for 20 ms for an idle one. On a busy machine that is also true of a process that had
no chance to run, and a test then looks at a screen that is not drawn yet. Here an app is idle when its event loop has nothing
to do and its screen is drawn; what threads and timers do later is not waited for (see :func:`tests.support.ui.screens.until`).
"""

from __future__ import annotations

import asyncio
import time

import pytest
from textual._context import active_app
from textual.screen import Screen

from tests.support.engines import HANGING_S


async def wait_for_idle(min_sleep: float = 0.0, max_sleep: float = HANGING_S) -> None:
    """In the place of Textual's function: returns when the app is idle, at the latest after `max_sleep` seconds."""
    loop, end = asyncio.get_running_loop(), time.monotonic() + max_sleep
    while time.monotonic() < end:
        await asyncio.sleep(0)
        if loop._ready:  # type: ignore[attr-defined]  # callbacks of other tasks
            continue
        app = active_app.get()
        if not app._running or not app._screen_stack or not _is_undrawn(app.screen):
            return
        app.screen._on_timer_update()  # the next frame, without waiting for it


def _is_undrawn(screen: Screen[object]) -> bool:
    """Whether the next frame, or what is called after it, is still to come."""
    waits = screen._layout_required or screen._scroll_required or screen._repaint_required or screen._recompose_required
    return not screen.app._batch_count and bool(waits or screen._dirty_widgets or screen._callbacks)


def patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pauses and key presses of pilots wait for an idle app."""
    for module in ("textual.pilot", "textual.app"):
        monkeypatch.setattr(f"{module}.wait_for_idle", wait_for_idle)
