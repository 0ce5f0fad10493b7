"""Large CSV files: blocks and processes read the same values as the row-by-row parser, with little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from epochtop.engine.data.tables import csv
from epochtop.engine.data.tables.csv import read_csv
from epochtop.engine.protocol.spec import Invalid
from tests.data.test_tables import quiet

LABELS = {
    "words": [["no", "yes", "maybe"][row % 3] for row in range(400)],
    "whole numbers": [str(row % 7) for row in range(400)],
    "numbers": [repr(row / 7) for row in range(400)],
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("parts", [1, 3])
def test_both_csv_readers_read_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, labels: str, place: int, delimiter: str, ending: str
) -> None:
    x = np.random.default_rng(1).standard_normal((400, 4)) * 10.0 ** np.arange(-3, 5, 2)
    rows = [list(map(repr, row)) for row in x.tolist()]
    for row, label in zip(rows, LABELS[labels], strict=True):
        row.insert(place, label)
    names = ["p", "q", "r", "s"]
    names.insert(place, "label")
    file = tmp_path / "table.csv"
    file.write_bytes(ending.join(map(delimiter.join, [names, *rows])).encode())
    small = read_csv(file, "label", quiet)
    monkeypatch.setattr(csv, "_read_rows", None)  # a fall back would fail
    monkeypatch.setattr(csv, "LARGE_BYTES", 0)
    monkeypatch.setattr("epochtop.engine.data.tables.csv_blocks.BLOCK_BYTES", 1000)
    monkeypatch.setattr("epochtop.engine.data.tables.csv_blocks.processes", lambda size: parts)
    large = read_csv(file, "label", quiet)
    assert small.x.tobytes() == x.tobytes()
    assert large.x.tobytes() == x.astype(np.float32).tobytes()
    assert (large.y.tolist(), large.classes, large.columns) == (small.y.tolist(), small.classes, small.columns)


ODD = {
    "quotes": 'a,label\n"1",x\n2,y\n3,x\n',
    "short numbers": "a,label\n.5,x\n+1,y\n3.,x\n",
    "beyond float32": "a,label\n1e300,x\n2,y\n3,x\n",
    "labels of both kinds": "a,label\n1,x\n2,4\n3,x\n",
    "labels in short numbers": "a,label\n1,.5\n2,1.\n3,.25\n",
    "spaces around labels": "a,label\n1, x\n2,x \n3,y\n",
    "old ends of lines": "a,label\r1,x\r2,y\r3,x\r",
    "blank lines": "a,label\n\n1,x\n\n2,y\n\n\n3,x\n\n",
    "quoted delimiter": 'a,label\n1,"x,y"\n2,y\n3,y\n',
}


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", ODD)
def test_a_large_file_that_is_not_plain_is_read_like_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parts: int
) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(ODD[name].encode())
    small = read_csv(file, "label", quiet)
    monkeypatch.setattr(csv, "LARGE_BYTES", 0)
    monkeypatch.setattr("epochtop.engine.data.tables.csv_blocks.processes", lambda size: parts)
    large = read_csv(file, "label", quiet)
    assert (large.x.tolist(), large.y.tolist(), large.classes) == (small.x.tolist(), small.y.tolist(), small.classes)
    assert len(small.x) == 3


@pytest.mark.parametrize(
    "text", ["1,2,3\n4,5\n", "1;5,2,x\n1,2,y\n", "1,,x\n2,3,y\n", "1,inf,x\n2,3,y\n", "1,a,x\n2,3,y\n"]
)
def test_errors_in_large_files_are_those_of_small_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,b,label\n" + text)
    messages = []
    for size in (0, 10**9):
        monkeypatch.setattr(csv, "LARGE_BYTES", size)
        with pytest.raises(Invalid) as caught:
            read_csv(file, "label", quiet)
        messages.append(caught.value.message)
    assert messages[0] == messages[1]
    assert "row " in messages[0]


GROWTH = """
import resource, sys
import sklearn.model_selection, sklearn.preprocessing
from epochtop.engine.data.tables import csv, csv_blocks
from epochtop.engine.data.load import load
from epochtop.engine.protocol.spec import RunSpec
csv_blocks.processes = lambda size: int(sys.argv[2])
csv._read_rows = None
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = load(RunSpec(dataset="csv:" + sys.argv[1], target="label", scaling="standard"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *made.train.x.shape, len(made.test))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in other units elsewhere")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_large_table_is_not_held_as_text_or_copied_twice(tmp_path: Path, processes: str) -> None:
    lines = [",".join(f"{value:.6f}" for value in row) for row in np.random.default_rng(1).standard_normal((1000, 50))]
    body = "".join(f"{line},{'yes' if number % 3 else 'no'}\n" for number, line in enumerate(lines))
    file = tmp_path / "table.csv"
    file.write_text(",".join(f"c{place}" for place in range(50)) + ",label\n" + body * 200)
    assert file.stat().st_size >= csv.LARGE_BYTES
    process = subprocess.run(
        [sys.executable, "-c", GROWTH, str(file), processes], capture_output=True, text=True, check=True
    )
    growth_kib, rows, columns, test_rows = map(int, process.stdout.split())
    assert (rows, columns, test_rows) == (160_000, 50, 40_000)
    assert growth_kib * 1024 <= 2.5 * 200_000 * 50 * np.dtype(np.float64).itemsize
