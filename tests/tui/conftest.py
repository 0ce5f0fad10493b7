"""Tests of the screen wait until the app is idle, however busy the machine is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.ui import idle


@pytest.fixture(autouse=True, scope="session")
def _idle() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        idle.patch(patch)
        yield
