"""An app in a terminal of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.ui.apps import Open
from tests.support.ui.commands import can_fork
from tests.support.ui.terminals import APP, Terminal


@pytest.fixture
def app(folder: Path) -> Iterator[Open]:
    """Starts the app in a terminal of its own; ended afterwards."""
    with ExitStack() as stack:

        def start(*arguments: str, size: tuple[int, int] = (120, 40), **environment: str) -> Terminal:
            is_forked = can_fork(environment)
            command = arguments if is_forked else (*APP, *arguments)
            return stack.enter_context(
                Terminal(*command, size=size, folder=folder, environment=environment, is_forked=is_forked)
            )

        yield start
