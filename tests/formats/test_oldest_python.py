"""The readers run on the oldest supported Python, without any of our dependencies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.formats import writers
from tests.formats.test_csvlog import LIGHTNING
from tests.formats.test_jsonl import TIME, save, state
from tests.formats.test_scan import put
from tests.formats.writers import history, losses, tensorboard, wandb

ROOT = Path(__file__).parents[2]
READ = """
import sys
from pathlib import Path
from epochtop.formats.scan import find_logs
for log in find_logs(Path(sys.argv[1])).logs:
    follower, values = log.follow(), 0
    while True:
        records = follower.read()
        if not records:
            break
        values += sum(len(record.steps) for record in records if hasattr(record, "steps"))
    follower.close()
    print(log.kind, values)
assert not {"msgspec", "numpy", "torch"} & set(sys.modules)
"""


def old_python() -> str | None:
    """The oldest interpreter on PATH that the readers support, if it is older than this one."""
    for minor in range(9, sys.version_info.minor):
        path = shutil.which(f"python3.{minor}")
        works = (
            path and subprocess.run([path, "-c", "import sqlite3"], capture_output=True, check=False).returncode == 0
        )
        if works:
            return path
    return None


def test_every_format_is_read(tmp_path: Path) -> None:
    python = old_python()
    if python is None:
        pytest.skip("no older Python is on PATH")
    put(tmp_path / "a" / "events", tensorboard(losses(5)))
    put(tmp_path / "b" / "metrics.csv", LIGHTNING)
    put(tmp_path / "c" / "log.jsonl", '{"step": 1, "loss": 1, "time": "2026-09-21T14:13:20Z"}\n')
    put(tmp_path / "d" / "run.wandb", wandb([history(0, loss=1.0)]))
    (tmp_path / "e").mkdir()
    save(tmp_path / "e", state(3), TIME)
    writers.trackio(tmp_path / "f.db", {"a": [{"loss": 1.0}]}, {})
    writers.mlflow_database(tmp_path / "g.db", [("loss", 1.0, 0)])
    done = subprocess.run(
        [python, "-c", READ, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.splitlines() == [
        "tensorboard 5", "csv 6", "jsonl 1", "wandb 1", "transformers 9", "trackio 1", "mlflow 1",
    ], done.stderr  # fmt: skip
