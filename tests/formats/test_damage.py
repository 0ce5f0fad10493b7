"""Whatever a file contains, followers raise nothing but OSError, and their memory is bounded by the size of the input."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochtop.formats import csvlog, huggingface, jsonl, trackio, wandb
from epochtop.formats.decoding import growing, yaml
from epochtop.formats.records import Follower
from epochtop.formats.scan import find_logs
from epochtop.formats.tensorboard import TensorBoardFollower
from tests.formats import writers
from tests.formats.test_csvlog import LIGHTNING
from tests.formats.test_jsonl import state
from tests.formats.writers import history, losses, message, tensor_event, tensorboard, wandb_run

DAMAGES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def jsonl_rows() -> bytes:
    return b"".join(
        json.dumps({"step": step, "loss": 1 / (step + 1), "a": {"b": [1]}}).encode() + b"\n" for step in range(20)
    )


@cache
def content(kind: str) -> bytes:
    """A small log of each kind."""
    tensors = [tensor_event(step, "t", message((1, 2), (6, b"\0" * 8))) for step in range(20)]
    return {
        "tensorboard": lambda: tensorboard([*losses(20), *tensors]),
        "wandb": lambda: writers.wandb(
            [wandb_run("a", {"b": 1}), *(history(s, loss=1.0, text="x" * 3000) for s in range(20))]
        ),
        "csv": lambda: LIGHTNING.encode() * 5,
        "jsonl": jsonl_rows,
        "transformers": lambda: json.dumps(state(10), indent=1).encode(),
    }[kind]()


FOLLOW: dict[str, tuple[str, Callable[[Path], Follower]]] = {
    "tensorboard": ("events", lambda path: TensorBoardFollower(path.parent)),
    "wandb": ("run.wandb", wandb.WandbFollower),
    "csv": ("metrics.csv", csvlog.CsvFollower),
    "jsonl": ("log.jsonl", jsonl.JsonLinesFollower),
    "transformers": (huggingface.STATE, lambda path: huggingface.TrainerFollower(path.parent)),
}


def read_all(kind: str, folder: Path, data: bytes) -> int:
    """Read a file to its end, and search it. Returns the number of records."""
    folder.mkdir(exist_ok=True)
    name, follow = FOLLOW[kind]
    (folder / name).write_bytes(data)
    follower, records = follow(folder / name), 0
    for _ in range(4):  # a CSV file that shrank is read anew after some calls
        while batch := follower.read():
            records += len(batch)
    follower.modified()
    follower.close()
    for log in find_logs(folder).logs:
        log.follow(last_bytes=100).close()
    return records


@pytest.mark.parametrize("kind", FOLLOW)
@DAMAGES
@given(data=st.data())
def test_flipped_bits(kind: str, tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(content(kind))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=8)):
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    read_all(kind, tmp_path, bytes(damaged))


@pytest.mark.parametrize("kind", FOLLOW)
@DAMAGES
@given(data=st.data())
def test_parts_removed_inserted_and_repeated(kind: str, tmp_path: Path, data: st.DataObject) -> None:
    whole = content(kind)
    first, second = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    middle = data.draw(st.binary(max_size=64) | st.just(whole[first:second] * 2))
    read_all(kind, tmp_path, whole[:first] + middle + whole[second:])


@pytest.mark.parametrize("kind", FOLLOW)
@DAMAGES
@given(tail=st.binary(max_size=300))
def test_any_bytes_after_a_good_beginning(kind: str, tmp_path: Path, tail: bytes) -> None:
    read_all(kind, tmp_path, content(kind)[:100] + tail)


@DAMAGES
@given(event=st.binary(max_size=80))
def test_any_event_with_the_right_checksum(tmp_path: Path, event: bytes) -> None:
    read_all("tensorboard", tmp_path, tensorboard([event, *losses(2)]))


@DAMAGES
@given(record=st.binary(max_size=80))
def test_any_wandb_record_with_the_right_checksum(tmp_path: Path, record: bytes) -> None:
    read_all(
        "wandb", tmp_path, writers.wandb([record, message((2, record)), message((17, record)), history(0, loss=1.0)])
    )


@DAMAGES
@given(text=st.text())
def test_any_text_as_settings(text: str) -> None:
    yaml.parse(text)
    yaml.parse(f"a:\n  b: {text}\n  - {text}")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_database(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "project.db"
    path.unlink(missing_ok=True)
    writers.trackio(path, {"a": [{"loss": 1.0}] * 20}, {})
    damaged = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(20, len(damaged) - 1), min_size=1, max_size=50)):
        damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    with suppress(OSError):
        trackio.TrackioFollower(path, "id-a").read()
    find_logs(tmp_path)


@pytest.mark.parametrize("kind", ["tensorboard", "wandb", "csv", "jsonl"])
def test_memory_does_not_grow_with_the_length_of_a_log(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With reads of 8 KiB, less memory is needed than the log is long."""
    monkeypatch.setattr(growing, "READ_BYTES", 1 << 13)
    rows = 6_000
    whole = {
        "tensorboard": lambda: tensorboard([]) + writers.tfrecord(writers.scalar_event(1, "loss", 1.0)) * rows,
        "wandb": lambda: writers.wandb([history(1, loss=1.0)] * rows),
        "csv": lambda: b"step,train/loss,train/accuracy,lr\n" + b"1,0.123456789012345678,0.12345678901234,0.1\n" * rows,
        "jsonl": lambda: b'{"step": 1, "train/loss": 0.123456789012345678, "lr": 0.1}\n' * rows,
    }[kind]()
    path = tmp_path / FOLLOW[kind][0]
    path.write_bytes(whole)
    follower = FOLLOW[kind][1](path)
    follower.read()
    tracemalloc.start()
    while follower.read():
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    follower.close()
    assert peak < 200_000 < len(whole)
