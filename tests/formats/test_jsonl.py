"""JSON Lines and Hugging Face's trainer_state.json."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from epochtop.formats import huggingface, jsonl
from tests.formats.writers import TIME, Read


def read(path: Path, *rows: object) -> Read:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Read(jsonl.JsonLinesFollower(path))


def test_numbers_are_series_and_nested_names_are_joined(tmp_path: Path) -> None:
    rows = [
        {"config": {"lr": 0.1, "model": {"layers": 2}}},
        {"step": 1, "timestamp": TIME, "loss": 0.5, "eval": {"accuracy": 0.9}, "name": "x", "done": True, "bad": None},
        {"global_step": 2, "time": "2026-09-21T14:13:20Z", "loss": float("nan")},
        {"epoch": 3, "time": TIME * 1000, "loss": "Infinity"},
        {"event": "no step"},
    ]
    result = read(tmp_path / "log.jsonl", *rows)
    assert result.config == {"lr": 0.1, "model/layers": 2}
    assert result.series.keys() == {"loss", "eval/accuracy", "done"}
    loss = result.series["loss"]
    assert (loss[1], loss[3], math.isnan(loss[2])) == (0.5, math.inf, True)
    assert result.times["loss"] == dict.fromkeys((1, 2, 3), TIME)


def test_a_complete_object_without_a_newline_counts(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}')
    result = Read(jsonl.JsonLinesFollower(path))
    assert result.series == {"loss": {1: 0.5, 2: 0.25}}
    with open(path, "a") as file:
        file.write('\n{"step": 3, "loss": 0.125}\n')
    assert result.more().series["loss"] == {1: 0.5, 2: 0.25, 3: 0.125}
    assert result.values == 3


def test_a_file_cut_at_any_byte_continues(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    content = b"".join(json.dumps({"step": step, "loss": {"a": 1 / (step + 1)}}).encode() + b"\n" for step in range(4))
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        result = Read(jsonl.JsonLinesFollower(path))
        with open(path, "ab") as file:
            file.write(content[cut:])
        assert result.more().series == {"loss/a": {step: 1 / (step + 1) for step in range(4)}}
        assert (result.values, result.follower.damaged) == (4, 0), cut


def test_bad_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step":1,"loss":1}\n{"step":\n[1]\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"step":2,"loss":2}\n')
    result = Read(jsonl.JsonLinesFollower(path))
    assert result.series == {"loss": {1: 1.0, 2: 2.0}}
    assert result.follower.damaged == 4


def test_a_number_with_a_thousand_digits_is_not_a_value(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step":1,"loss":1,"x":{"9" * 1000}}}\n{{"step":{"9" * 30},"loss":2}}\n')
    assert Read(jsonl.JsonLinesFollower(path)).series == {"loss": {1: 1.0}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"step":1,"loss":2}\n', True),
        ('{"run":"a"}\n{"step":1,"loss":2}\n', True),
        ('{"step":1}\n', False),
        ('{"epoch":0.25,"loss":2}\n', False),
        ('{"type":"Losses","first_step":0,"values":""}\n', False),
        ('{"text":"a dataset"}\n', False),
        ("[1, 2]\n", False),
    ],
)
def test_recognition(tmp_path: Path, text: str, expected: bool) -> None:
    assert jsonl.recognize(tmp_path / "x", text.encode()) is expected


# --- trainer_state.json ----------------------------------------------------------------------------------------


def state(steps: int, **more: Any) -> dict[str, Any]:
    entries = [
        {"epoch": step / 10, "learning_rate": 0.1, "loss": 1 / step, "step": step} for step in range(1, steps + 1)
    ]
    return {"best_metric": None, "epoch": 1.0, "global_step": steps, "log_history": entries, "max_steps": 100, **more}


def save(folder: Path, content: dict[str, Any], time: float) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / huggingface.STATE
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    os.utime(path, (time, time))


def test_the_newest_checkpoint_continues_the_run(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint-5", state(5), TIME)
    result = Read(huggingface.TrainerFollower(tmp_path))
    assert result.config == {"max_steps": 100}
    assert result.series["train/loss"] == {step: 1 / step for step in range(1, 6)}
    later = state(10)
    later["log_history"].append({"epoch": 1.0, "eval_loss": 0.5, "step": 10})
    save(tmp_path / "checkpoint-10", later, TIME + 60)
    result.more()
    assert result.series["train/loss"] == {step: 1 / step for step in range(1, 11)}
    assert result.series["eval/loss"] == {10: 0.5}
    assert result.restarts == []


def test_a_run_that_went_back_to_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, state(5), TIME)
    result = Read(huggingface.TrainerFollower(tmp_path))
    other = state(4)
    other["log_history"][3]["loss"] = 9.0
    save(tmp_path, other, TIME + 60)
    assert list(result.more().series["train/loss"].items()) == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 9.0)]


def test_a_state_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    content = json.dumps(state(3), indent=2)
    for cut in range(0, len(content), 7):
        path = tmp_path / huggingface.STATE
        path.write_text(content[:cut])
        result = Read(huggingface.TrainerFollower(tmp_path))
        assert result.series == {}
        path.write_text(content)
        os.utime(path, (TIME + cut, TIME + cut))
        assert len(result.more().series["train/loss"]) == 3
    assert huggingface.recognize(path, content[:4096].encode())
