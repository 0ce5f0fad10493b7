"""Large CSV files: blocks and processes read the same values as the row-by-row parser, with little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from epochtop.engine.data.tables.column import CellType, NumberColumn, Table
from epochtop.engine.data.tables.csv_files import blocks, parallel, read
from epochtop.engine.data.tables.csv_files.read import CsvOptions, read_csv
from epochtop.engine.protocol.spec import Invalid
from tests.data.tables.test_dialects import cells_of

LABELS = {
    "words": [["no", "yes", "maybe"][row % 3] for row in range(400)],
    "whole numbers": [str(row % 7) for row in range(400)],
    "numbers": [repr(row / 7) for row in range(400)],
}


def choose(names: Sequence[str]) -> Sequence[CellType]:
    return ["label" if name == "label" else "any" for name in names]


def _read_large(file: Path, monkeypatch: pytest.MonkeyPatch, parts: int, is_rounded: bool = True) -> Table:
    """The table in small blocks, in several processes."""
    with monkeypatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 1000)
        patch.setattr(parallel, "processes", lambda size: parts)
        return read_csv(file, choose, CsvOptions(is_rounded=is_rounded))


@pytest.mark.parametrize(("delimiter", "ending"), [(",", "\n"), (",", "\r\n"), (";", "\n"), ("\t", "\n")])
@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("labels", LABELS)
def test_blocks_of_numbers_and_rows_of_cells_are_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str, place: int, delimiter: str, ending: str
) -> None:
    x = np.random.default_rng(1).standard_normal((400, 4)) * 10.0 ** np.arange(-3, 5, 2)
    rows = [list(map(repr, row)) for row in x.tolist()]
    for row, label in zip(rows, LABELS[labels], strict=True):
        row.insert(place, label)
    names = ["p", "q", "r", "s"]
    names.insert(place, "label")
    file = tmp_path / "table.csv"
    file.write_bytes(ending.join(map(delimiter.join, [names, *rows])).encode())
    with monkeypatch.context() as patch:
        patch.setattr(blocks, "is_quick", lambda layout: False)
        small = read_csv(file, choose)
    for parts in (1, 3):
        large = _read_large(file, monkeypatch, parts)
        assert small.numbers is not None
        assert large.numbers is not None
        assert small.numbers.tobytes() == x.tobytes()
        assert large.numbers.tobytes() == x.astype(np.float32).tobytes()
        assert cells_of(large)["label"] == cells_of(small)["label"] == LABELS[labels]
        assert large.lines == small.lines == range(2, 402)


FILL = "".join(f"{row},{row % 7}.5,{'xyz'[row % 3]}\n" for row in range(300))
ODD = {
    "quotes": 'a,b,label\n"1",2,x\n' + FILL,
    "short numbers": "a,b,label\n.5,+1,x\n3.,2,y\n" + FILL,
    "missing values": "a,b,label\n,NA,x\n?,2,y\n" + FILL,
    "beyond float32": "a,b,label\n1e300,1,x\n" + FILL,
    "labels of both kinds": "a,b,label\n1,2,4\n" + FILL,
    "spaces": "a,b,label\n1,2, x\n 2 , 3,x \n" + FILL,
    "blank lines": "a,b,label\n\n1,2,x\n\n\n" + FILL.replace("\n17,", "\n\n17,") + "\n\n",
    "delimiters in quotes": 'a,b,label\n1,2,"x,y"\n' + FILL,
    "lines in quotes": 'a,b,label\n1,2,"x\ny"\n' + FILL + '1,2,"u\n\nv"\n' + FILL + '3,4,"w\n"\n',
    "comments": "# one\na,b,label\n" + FILL + "# two\n" + FILL,
    "late text": "a,b,label\n" + FILL + "one,2,x\n",
    "late commas": "a,b,label\n" + FILL + '"1,234",2,x\n',
    "two columns of text": "a,b,c,label\n" + "".join(f"{row},{row % 7}.5,u{row % 5},x\n" for row in range(300)),
}


@pytest.mark.parametrize("name", ODD)
def test_several_processes_read_an_odd_file_like_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = tmp_path / "table.csv"
    file.write_text(ODD[name])
    small = read_csv(file, choose)
    for parts in (1, 3):
        large = _read_large(file, monkeypatch, parts, is_rounded=name == "beyond float32")
        assert large.names == small.names
        assert cells_of(large) == cells_of(small)
        assert list(large.lines) == list(small.lines)
    lines = file.read_text().split("\n")
    if not name.startswith("lines"):
        for row in (0, len(small) // 2, len(small) - 1):
            line = lines[small.lines[row] - 1]
            assert line
            assert not line.startswith("#")


def test_a_column_that_turns_to_text_late_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,label\n" + "1,x\n" * 50 + "two,y\n" + '"1,5",y\n' * 3)
    monkeypatch.setattr(read, "SAMPLE_BYTES", 40)
    assert cells_of(read_csv(file, choose))["a"] == ["1"] * 50 + ["two", *["1,5"] * 3]
    file.write_text("a,label\n" + "1,x\n" * 50 + '"1,500",y\n' * 3)
    assert cells_of(read_csv(file, choose))["a"] == [1.0] * 50 + [1500.0] * 3


@pytest.mark.parametrize(
    ("text", "line"), [("1,2,3\n4,5\n", 303), ('1,2,x\n1,2,"y\n', 303), ("\n\n1,2\n", 304), ('1,2,"x"y\n', 302)]
)
def test_errors_in_large_files_are_those_of_small_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int
) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,b,label\n" + FILL + text + FILL)
    messages = []
    for parts in (1, 2):
        with pytest.raises(Invalid) as caught:
            _read_large(file, monkeypatch, parts)
        messages.append(caught.value.message)
    assert messages[0] == messages[1]
    assert f"line {line}" in messages[0]


def test_a_large_label_column_of_numbers_is_a_column_of_numbers(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    labels = [row / 7 for row in range(11_000)]
    file.write_text("a,label\n" + "".join(f"{row % 3},{label!r}\n" for row, label in enumerate(labels)))
    column = read_csv(file, choose).column("label")
    assert isinstance(column, NumberColumn)
    assert column.values.tolist() == labels


GROWTH = """
import resource, sys
import sklearn.model_selection, sklearn.preprocessing
from epochtop.engine.data.tables.csv_files import parallel
from epochtop.engine.data.load import load
from epochtop.engine.protocol.spec import RunSpec
parallel.processes = lambda size: int(sys.argv[2])
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
    assert file.stat().st_size >= read.LARGE_BYTES
    process = subprocess.run(
        [sys.executable, "-c", GROWTH, str(file), processes], capture_output=True, text=True, check=True
    )
    growth_kib, rows, columns, test_rows = map(int, process.stdout.split())
    assert (rows, columns, test_rows) == (160_000, 50, 40_000)
    assert growth_kib * 1024 <= 2.5 * 200_000 * 50 * np.dtype(np.float64).itemsize
