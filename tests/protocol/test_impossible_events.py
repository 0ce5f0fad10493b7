"""Events with values that cannot be: refused when they are decoded, so that nothing behind has to expect them."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from epochtop.engine.protocol.events import UNREADABLE, decode_event


def window(**changes: Any) -> dict[str, Any]:
    """A window of two steps."""
    values = {"train/loss": b64encode(bytes(8)).decode()}
    return {"type": "Logged", "time": 1.0, "seconds": 1.0, "first_step": 0, "count": 2, "values": values} | changes


def losses(**changes: Any) -> dict[str, Any]:
    """A window of protocol 1."""
    content = b64encode(bytes(8)).decode()
    return {"type": "Losses", "first_step": 0, "seconds": 1.0, "values": content, "reads": 1, "waited": 0.0} | changes


def evaluated(**changes: Any) -> dict[str, Any]:
    """An evaluation."""
    return {"type": "Evaluated", "step": 3, "seconds": 1.0, "loss": 1.0, "metric": 1.0} | changes


def mapped(**changes: Any) -> dict[str, Any]:
    """Decision regions."""
    values = {"columns": 2, "rows": 1, "low": (0, 0), "high": (1, 1), "points": (), "classes": ("a", "b")}
    return {"type": "Mapped", "step": 3, "cells": b64encode(b"\0\1").decode(), **values} | changes


THREE_BYTES = b64encode(b"abc").decode()


@pytest.mark.parametrize("event", [window(), window(first_step=2**53), losses(), evaluated(confusion=[[1]]), mapped()])
def test_possible_events_are_decoded(event: dict[str, Any]) -> None:
    assert type(decode_event(json.dumps(event).encode())).__name__ == event["type"]


@pytest.mark.parametrize(
    "event",
    [
        *(make(first_step=step) for make in (window, losses) for step in (2**53 + 1, 2**63, 10**400)),
        *(window(count=count) for count in (-1, 2**40)),
        losses(values=THREE_BYTES),
        evaluated(step=10**400),
        *(evaluated(confusion=matrix) for matrix in ([[1, 2], [3]], [[1, 2]], [[]])),
        mapped(cells=THREE_BYTES),
        mapped(columns=-2, rows=-1),
        mapped(classes=("a",)),
    ],
)
def test_impossible_events_are_refused(event: dict[str, Any]) -> None:
    with pytest.raises(UNREADABLE):
        decode_event(json.dumps(event).encode())
