"""`.wandb` files."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import pytest

from epochtop.formats.records import Description, Ended
from epochtop.formats.wandb import WandbFollower, recognize
from tests.formats.writers import BLOCK, TIME, Read, history, message, wandb, wandb_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run-abc123.wandb"


def read(path: Path, *records: bytes) -> Read:
    path.write_bytes(wandb(records))
    return Read(WandbFollower(path))


def test_history_configuration_and_exit(path: Path) -> None:
    records = [
        wandb_run("my run", {"lr": 0.1, "model": {"layers": 2}, "_wandb": {"version": 1}, "old": {"value": 3}}),
        *(
            history(step, loss=1 / (step + 1), nested={"a": step}, text="hi", image={"_type": "image"})
            for step in range(5)
        ),
        history(5, loss="NaN"),
        message((5, message((1, message((1, "later"), (16, "7")))))),
        message((18, message((1, 1), (2, 60)))),
    ]
    result = read(path, *records)
    assert result.config == {"lr": 0.1, "model/layers": 2, "old": 3, "later": 7}
    assert result.series.keys() == {"loss", "nested/a"}
    assert {step: result.series["loss"][step] for step in range(5)} == {step: 1 / (step + 1) for step in range(5)}
    assert math.isnan(result.series["loss"][5])
    assert result.times["loss"] == {step: TIME + step for step in range(6)}
    assert result.end is not None
    assert (result.end.outcome, result.end.exit_status) == ("failed", 1)


def test_the_run_is_described(path: Path) -> None:
    path.write_bytes(wandb([wandb_run("my run", {})]))
    with closing(WandbFollower(path)) as follower:
        (described,) = follower.read()
    assert described == Description(name="my run", project="project", tags=("tag",))


def test_typed_values(path: Path) -> None:
    typed = [
        (1, message((1, "number"), (6, 0.1))),
        (1, message((1, "integer"), (5, -3))),
        (1, message((1, "boolean"), (4, 1))),
        (1, message((2, "nested"), (2, "name"), (16, "2"))),
    ]
    result = read(path, message((2, message(*typed, (2, message((1, 7)))))))
    assert result.series == {"number": {7: 0.1}, "integer": {7: -3.0}, "boolean": {7: 1.0}, "nested/name": {7: 2.0}}


def test_records_that_span_blocks(path: Path) -> None:
    long = "x" * (3 * BLOCK)
    records = [record for step in range(20) for record in (history(step, loss=float(step), text=long[: step * 5000]),)]
    assert read(path, *records).series["loss"] == {step: float(step) for step in range(20)}


def test_a_file_cut_anywhere_continues_without_a_loss(path: Path) -> None:
    records = [history(step, loss=float(step), text="x" * 9_000) for step in range(8)]
    content = wandb(records)
    cuts = [
        *range(60),
        *range(BLOCK - 20, BLOCK + 60),
        *range(60, len(content), 997),
        *range(len(content) - 20, len(content)),
    ]
    for cut in cuts:
        path.write_bytes(content[:cut])
        result = Read(WandbFollower(path))
        with open(path, "ab") as file:
            file.write(content[cut:])
        assert result.more().series == {"loss": {step: float(step) for step in range(8)}}, cut
        assert result.follower.damaged == 0, cut


def test_damage_costs_the_rest_of_its_block_only(path: Path) -> None:
    records = [history(step, loss=float(step), text="x" * 3_000) for step in range(40)]
    content = bytearray(wandb(records))
    content[BLOCK + 5_000] ^= 1
    path.write_bytes(content)
    result = Read(WandbFollower(path))
    assert result.follower.damaged >= 1
    assert {0, 5, 25, 39} <= set(result.series["loss"])
    assert all(value == step for step, value in result.series["loss"].items())


def test_the_end_of_a_long_file_is_enough_for_its_last_values(path: Path) -> None:
    records = [wandb_run("my run", {"lr": 0.1}), *(history(step, loss=float(step)) for step in range(5_000))]
    path.write_bytes(wandb(records))
    result = Read(WandbFollower(path, last_bytes=BLOCK))
    assert result.series["loss"][4_999] == 4_999.0
    assert result.series["loss"][0] == 0.0
    assert result.config == {"lr": 0.1}
    assert result.values < 2_000


def test_recognition(path: Path) -> None:
    assert recognize(path, wandb([])[:10])
    assert not recognize(path, b"something else")


def test_an_interrupted_script_has_stopped(path: Path) -> None:
    end = read(path, message((18, message((1, 255))))).end
    assert end == Ended("stopped", end.time if end else 0.0, "exit status 255", 255)
