"""`predict` reads the formats that runs are trained on: tables without delimiters, tables without a header, and images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image

from epochtop.engine.inference.predict import predict
from epochtop.engine.protocol.spec import Invalid
from tests.support.trained_runs import floats, read_table, trained, write_table

ROWS = [["a", 1.5, 3], ["b", None, 4], [None, 0.25, None]]
"""A category, a number and a number that no run needs."""


@pytest.fixture(scope="module")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    draw = np.random.default_rng(1)
    rows = [["ab"[row % 2], round(float(draw.random()), 3), row % 2 * 3 + row % 5] for row in range(60)]
    table = write_table(folder / "t.csv", ("kind", "size", "price"), rows)
    return trained(folder / "runs", dataset=f"csv:{table}", target="price", problem="regression", epochs=5)


def predicted(run: Path, new: Path) -> list[dict[str, str]]:
    """The rows of the output."""
    predict(run, new, new.with_name("out.csv"))
    return read_table(new.with_name("out.csv").read_text())


@pytest.mark.parametrize("ending", ["parquet", "feather", "jsonl"])
def test_a_table_in_another_format_is_predicted_as_its_csv_file(ending: str, table_run: Path, tmp_path: Path) -> None:
    new = tmp_path / f"new.{ending}"
    names = ("kind", "size", "stock")
    table = pyarrow.table(dict(zip(names, zip(*ROWS, strict=True), strict=True)))
    if ending == "parquet":
        pyarrow.parquet.write_table(table, new)
    elif ending == "feather":
        pyarrow.feather.write_feather(table, new)
    else:
        new.write_text(
            '{"kind": "a", "size": 1.5, "stock": 3}\n{"kind": "b", "stock": 4}\n{"kind": null, "size": 0.25}\n'
        )
    rows = predicted(table_run, new)
    cells = [["" if cell is None else str(cell) for cell in row] for row in ROWS]
    assert [[row[name] for name in names] for row in rows] == cells
    assert rows == predicted(table_run, write_table(tmp_path / "new.csv", names, cells))
    assert np.isfinite(floats(rows, "prediction")).all()


def test_texts_in_another_format_are_predicted(tmp_path: Path) -> None:
    films = [[f"this film is {mood}", mood] for mood in ("good", "bad") * 10]
    table = write_table(tmp_path / "films.csv", ("text", "label"), films)
    run = trained(tmp_path / "runs", dataset=f"text:{table}", hidden=(), width=8, epochs=5)
    new = tmp_path / "new.jsonl"
    new.write_text('{"text": "a film, good", "year": 1999}\n{"text": "a film, bad", "year": 2001}\n')
    rows = predicted(run, new)
    assert [row["year"] for row in rows] == ["1999", "2001"]
    csv = write_table(tmp_path / "new.csv", ("text", "year"), [["a film, good", 1999], ["a film, bad", 2001]])
    assert rows == predicted(run, csv)


def test_one_row_without_a_header_is_predicted_by_a_run_without_one(tmp_path: Path) -> None:
    lines = [f"{'MF'[row % 2]},{row % 7 / 8},{row % 5 / 4},{row % 7 + row % 5}" for row in range(50)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    run = trained(tmp_path / "runs", dataset=f"csv:{tmp_path / 't.csv'}", target="last", epochs=3, problem="regression")
    (tmp_path / "new.csv").write_text("M,0.5,0.25\n")
    predict(run, tmp_path / "new.csv", tmp_path / "out.csv")
    (line,) = (tmp_path / "out.csv").read_text().splitlines()
    (tmp_path / "new.csv").write_text("c3,c2,c1\n0.25,0.5,M\n")
    assert [line.rpartition(",")[2]] == [row["prediction"] for row in predicted(run, tmp_path / "new.csv")]


def test_a_folder_of_images_is_predicted_as_its_pixels(table_run: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    pixels = draw.integers(0, 120, (40, 6, 6), dtype=np.uint8) + np.uint8(120) * (np.arange(40) % 2)[
        :, None, None
    ].astype(np.uint8)
    for row, image in enumerate(pixels):
        path = tmp_path / "pets" / ("cat", "dog")[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    run = trained(tmp_path / "runs", dataset=f"images:{tmp_path / 'pets'}", model="mlp", epochs=20)
    new = tmp_path / "new"
    (new / "more").mkdir(parents=True)
    Image.fromarray(pixels[0]).save(new / "a.png")
    Image.merge("RGB", [Image.fromarray(pixels[1])] * 3).save(new / "more" / "b.png")
    (new / "c.jpg").write_bytes(b"no image")
    np.save(tmp_path / "new.npy", pixels[:2])
    expected = predicted(run, tmp_path / "new.npy")
    first, broken, second = predicted(run, new)
    assert [row["file"] for row in (first, broken, second)] == ["a.png", "c.jpg", "more/b.png"]
    assert (broken["prediction"], broken["reason"]) == ("", "cannot be read: is not an image")
    for row, pair in zip((first, second), expected, strict=True):
        assert {name: row[name] for name in pair if name != "row"} == {
            name: pair[name] for name in pair if name != "row"
        }
    assert predicted(run, new / "a.png")[0]["prediction"] == "cat"
    with pytest.raises(Invalid, match="holds images, but the run was trained on rows of another kind"):
        predict(table_run, new / "a.png", None)
