"""`predict` reads new rows in any dialect, and writes them in it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from epochtop.engine.inference.predict import predict
from tests.support.trained_runs import houses, trained

ROWS = [(50.5, 10.0), (120.25, 40.5)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("houses")
    return trained(folder / "runs", dataset=f"csv:{houses(folder / 'h.csv')}", target="price", epochs=30)


def _predicted(run: Path, folder: Path, content: bytes, decimal: str = ".", delimiter: str = ",") -> list[float]:
    """The predictions; the other cells must be those of the file."""
    (folder / "new.csv").write_bytes(content)
    predict(run, folder / "new.csv", folder / "out.csv")
    lines = (folder / "out.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].split(delimiter)[:3] == ["größe", "area", "age"]
    cells = [line.split(delimiter) for line in lines[1:]]
    expected = [["x", *(f"{number:g}".replace(".", decimal) for number in row)] for row in ROWS]
    assert [row[:3] for row in cells] == expected
    return [float(row[3].replace(decimal, ".")) for row in cells]


def test_new_rows_may_be_in_any_dialect(run: Path, tmp_path: Path) -> None:
    plain = "größe,area,age\n" + "".join(f"x,{area:g},{age:g}\n" for area, age in ROWS)
    german = plain.replace(",", ";").replace(".", ",")
    expected = _predicted(run, tmp_path, plain.encode())
    assert np.ptp(expected) > 0
    files = {
        ";": german.encode("cp1252"),
        "\t": german.replace(";", "\t").encode("utf-16"),
        "|": gzip.compress(("\n# exported\r\n" + german.replace(";", "|")).replace("\n", "\r\n").encode()),
    }
    for delimiter, content in files.items():
        assert _predicted(run, tmp_path, content, ",", delimiter) == expected


def test_decimal_commas_are_recognized_next_to_missing_values(run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("area;age\n50,5;\n;40,5\n")
    predict(run, tmp_path / "new.csv", tmp_path / "out.csv")
    predictions = [line.split(";")[2] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert all("," in prediction and "." not in prediction for prediction in predictions)
