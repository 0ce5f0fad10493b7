"""Small writers of other tools' logs, after their specifications. They share no code with the readers."""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from epochtop.formats.records import Batch, Configuration, Ended, Follower, Restart

TIME = 1_790_000_000.0


# --- what a follower has read ----------------------------------------------------------------------------------


class Read:
    """Everything that a follower yields, folded as a viewer would."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.series: dict[str, dict[int, float]] = {}
        self.times: dict[str, dict[int, float]] = {}
        self.config: dict[str, Any] = {}
        self.restarts: list[Restart] = []
        self.end: Ended | None = None
        self.values = 0
        self.more()

    def more(self) -> Read:
        """Read what was written since, and close the files, from which reading continues later."""
        while records := self.follower.read():
            for record in records:
                if isinstance(record, Batch):
                    self._add(record)
                elif isinstance(record, Restart):
                    self.restarts.append(record)
                    for name in [record.series] if record.series else self.series:
                        kept = {step: value for step, value in self.series[name].items() if step < record.step}
                        self.series[name] = kept
                elif isinstance(record, Configuration):
                    self.config |= record.values
                elif isinstance(record, Ended):
                    self.end = record
        self.follower.close()
        return self

    def _add(self, batch: Batch) -> None:
        assert len(batch.steps) == len(batch.times) == len(batch.values) > 0
        self.values += len(batch.steps)
        self.series.setdefault(batch.series, {}).update(zip(batch.steps, batch.values, strict=True))
        self.times.setdefault(batch.series, {}).update(zip(batch.steps, batch.times, strict=True))


# --- protocol buffers ------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def message(*fields: tuple[int, object]) -> bytes:
    """Fields by number: int (varint), float (double), ("f", x) (32-bit float), str, bytes."""
    out = b""
    for number, value in fields:
        match value:
            case int():
                out += varint(number << 3) + varint(value)
            case float():
                out += varint(number << 3 | 1) + struct.pack("<d", value)
            case ("f", single):
                out += varint(number << 3 | 5) + struct.pack("<f", single)
            case str() | bytes():
                content = value.encode() if isinstance(value, str) else value
                out += varint(number << 3 | 2) + varint(len(content)) + content
            case _:
                raise TypeError(value)
    return out


# --- TensorBoard -----------------------------------------------------------------------------------------------


def masked_crc(data: bytes) -> int:
    """Masked CRC-32C, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecord(data: bytes, length: int | None = None) -> bytes:
    """A record; `length` claims another length than that of `data`."""
    size = struct.pack("<Q", len(data) if length is None else length)
    return size + struct.pack("<I", masked_crc(size)) + data + struct.pack("<I", masked_crc(data))


def scalar_event(step: int, name: str, value: float, time: float | None = None) -> bytes:
    """An event as torch's SummaryWriter writes it."""
    summary = message((1, message((1, name), (2, ("f", value)))))
    return message((1, TIME + step if time is None else time), *([(2, step)] if step else []), (5, summary))


def tensor_event(step: int, name: str, tensor: bytes, plugin: str = "scalars") -> bytes:
    """An event as TensorFlow 2 writes it."""
    metadata = message((1, message((1, plugin))))
    return message((1, TIME + step), (2, step), (5, message((1, message((1, name), (8, tensor), (9, metadata))))))


def tensorboard(events: Iterable[bytes]) -> bytes:
    """An event file."""
    return b"".join(map(tfrecord, [message((1, TIME), (3, "brain.Event:2")), *events]))


def losses(count: int, name: str = "train/loss") -> list[bytes]:
    """Events of a falling loss: 1 / (step + 1)."""
    return [scalar_event(step, name, 1 / (step + 1)) for step in range(count)]


def single(value: float) -> float:
    """The value as a 32-bit float keeps it."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


# --- wandb -----------------------------------------------------------------------------------------------------

BLOCK = 32_768


def wandb(records: Iterable[bytes]) -> bytes:
    """A `.wandb` file: a LevelDB log after a header of 7 bytes."""
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for record in records:
        first = True
        while True:
            left = BLOCK - len(out) % BLOCK
            if left < 7:
                out += bytes(left)
                continue
            part, record = record[: left - 7], record[left - 7 :]
            kind = (1 if first else 4) if not record else (2 if first else 3)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
            if not record:
                break
    return bytes(out)


def items(values: dict[str, Any], number: int = 1) -> list[tuple[int, object]]:
    """Items of a history or a configuration."""
    return [(number, message((1, name), (16, json.dumps(value)))) for name, value in values.items()]


def history(step: int, **values: Any) -> bytes:
    """A record with values at a step."""
    own = {**values, "_step": step, "_timestamp": TIME + step}
    return message((1, step + 1), (2, message(*items(own))))


def wandb_run(name: str, config: dict[str, Any]) -> bytes:
    """The record that describes the run."""
    return message((17, message((1, "abc123"), (3, "project"), (4, message(*items(config))), (8, name), (10, "tag"))))


# --- databases -------------------------------------------------------------------------------------------------


def trackio(path: Path, runs: dict[str, Sequence[dict[str, Any]]], config: dict[str, Any]) -> None:
    """A database of Trackio with one row per step."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, "
            "timestamp TEXT NOT NULL, run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL)"
        )
        database.execute(
            "CREATE TABLE IF NOT EXISTS configs (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, "
            "run_name TEXT NOT NULL, config TEXT NOT NULL, created_at TEXT NOT NULL, UNIQUE(run_id))"
        )
        for run, rows in runs.items():
            for step, row in enumerate(rows):
                values = (f"id-{run}", "2026-09-21T13:20:00+00:00", run, step, json.dumps(row).encode())
                database.execute(
                    "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES (?,?,?,?,?)", values
                )
            database.execute(
                "INSERT OR IGNORE INTO configs (run_id, run_name, config, created_at) VALUES (?,?,?,'')",
                (f"id-{run}", run, json.dumps(config)),
            )
        database.commit()


def mlflow_database(path: Path, values: Sequence[tuple[str, float, int]], status: str = "RUNNING") -> None:
    """A database of MLflow with one run `run1`."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT, status TEXT, start_time BIGINT, end_time BIGINT, "
            "lifecycle_stage TEXT);"
            "CREATE TABLE metrics (key TEXT, value REAL, timestamp BIGINT, run_uuid TEXT, step BIGINT, is_nan BOOLEAN, "
            "PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan));"
            "CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT, PRIMARY KEY (key, run_uuid));"
        )
        end = 1_790_000_100_000 if status == "FINISHED" else None
        database.execute("INSERT INTO runs VALUES ('run1', 'first', ?, 1790000000000, ?, 'active')", (status, end))
        database.execute("INSERT INTO runs VALUES ('run2', 'gone', 'FINISHED', 1, 2, 'deleted')")
        database.execute("INSERT INTO params VALUES ('lr', '0.1', 'run1')")
        add_mlflow_metrics(database, values)


def add_mlflow_metrics(database: sqlite3.Connection, values: Sequence[tuple[str, float, int]]) -> None:
    """Add values to `run1`."""
    rows = [
        (name, 0.0 if value != value else value, 1_790_000_000_000 + 1000 * step, "run1", step, value != value)
        for name, value, step in values
    ]
    database.executemany("INSERT INTO metrics VALUES (?,?,?,?,?,?)", rows)
    database.commit()
