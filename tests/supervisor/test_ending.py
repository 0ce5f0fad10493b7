"""How a command ended: what the last windows of its log say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from epochtop.recording.json_text import encode_line
from epochtop.recording.series import columns_of, logged
from epochtop.supervisor import ending


def write_log(log: Path, values: list[float], window: int = 10) -> None:
    """A log of one series, in windows of some steps."""
    rows = [(step, {"train/loss": value}) for step, value in enumerate(values)]
    parts = [rows[first : first + window] for first in range(0, len(rows), window)]
    log.write_bytes(b"".join(encode_line(event) for part in parts for event in logged(columns_of(part), 1.0, 1.0)))


def test_a_loss_that_is_not_finite_at_the_end_is_the_reason(tmp_path: Path) -> None:
    write_log(tmp_path / "events.jsonl", [0.1] * 25 + [math.nan] * 25)
    last = ending.last_event(tmp_path, 0, "", 0.0)
    assert (last["outcome"], last["steps"], last["reason"]) == ("finished", 50, "train/loss is NaN since step 25")
    last = ending.last_event(tmp_path, 0, "me", 0.0)
    assert last["reason"] == "stopped by me; train/loss is NaN since step 25"


def test_the_first_step_is_open_if_only_the_end_of_a_long_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "events.jsonl"
    write_log(log, [0.5] * 10 + [math.inf] * 1000)
    monkeypatch.setattr(ending, "TAIL_BYTES", log.stat().st_size // 2)
    steps, sentence = ending.last_windows(log)
    assert steps == 1010
    assert sentence.startswith("train/loss is infinite since step ")
    assert sentence.endswith(" or earlier")
