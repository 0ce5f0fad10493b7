"""Texts with labels become codes of words; expected codes come from zlib's checksum."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from epochtop.engine.data.load import load
from epochtop.engine.data.text.documents import choose_columns, read_documents
from epochtop.engine.data.text.words import codes_for
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.support.trained_runs import write_table

ROWS = [["Good, good film", "pos"], ["bad", "neg"], ["", "neg"], ["no label here", ""], ["so so film", "pos"]]


def code(*words: str) -> int:
    """The code of a word, or of two neighboring words."""
    value = crc32(words[0].encode())
    if len(words) == 2:
        value = (value * 2654435761 + crc32(words[1].encode())) % 2**32
    return value % 65535 + 1


def spec_of(path: Path, **fields: object) -> RunSpec:
    return RunSpec(dataset=f"text:{path}", **fields)  # type: ignore[arg-type]


def test_words_and_pairs_of_a_small_table_by_hand(tmp_path: Path) -> None:
    path = write_table(tmp_path / "films.csv", ("text", "label"), ROWS)
    raw = read_documents(spec_of(path, context=3), path)
    assert raw.x.tolist() == [
        [code("good"), code(","), code("good"), code("good", ","), code(",", "good")],
        [code("bad"), 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [code("so"), code("so"), code("film"), code("so", "so"), code("so", "film")],
    ]
    assert (raw.kind, raw.classes, raw.y.tolist()) == ("document", ("neg", "pos"), [1, 0, 0, 1])
    assert "1 text has more than 3 words; the end is left out (context)" in raw.notes
    assert "1 row without a label is left out" in raw.notes


def test_a_transformer_reads_words(tmp_path: Path) -> None:
    path = write_table(tmp_path / "films.csv", ("text", "label"), ROWS)
    raw = read_documents(spec_of(path, model="transformer"), path)
    assert raw.x[0].tolist() == [code("good"), code(","), code("good"), code("film")]
    assert raw.ngrams == 1


def test_csv_parquet_and_json_lines_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"text": f'{word}, "said"\nhe', "label": number % 2, "id": number} for number, word in enumerate("abcdef")]
    write_table(tmp_path / "t.csv", ("id", "text", "label"), [[row["id"], row["text"], row["label"]] for row in rows])
    write_table(tmp_path / "t.tsv", ("id", "text", "label"), [[r["id"], r["text"], r["label"]] for r in rows], "\t")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    prepared = [load(spec_of(tmp_path / f"t.{kind}", test_fraction=0)) for kind in ("csv", "tsv", "jsonl", "parquet")]
    for each in prepared:
        assert each.train.x.tolist() == prepared[0].train.x.tolist()
        assert (each.train.y.tolist(), each.preparation.classes) == ([0, 1, 0, 1, 0, 1], ("0", "1"))
        assert each.preparation.columns == ("text",)
        assert "column 'id' is not used" in each.notes


@pytest.mark.parametrize(
    ("columns", "target", "text", "label"),
    [
        (("Label", "Text"), "", "Text", "Label"), (("review", "sentiment", "id"), "", "review", "sentiment"),
        (("words", "stars"), "stars", "words", "stars"), (("title", "text", "class"), "", "text", "class"),
    ],
)  # fmt: skip
def test_the_usual_names_of_columns(columns: tuple[str, ...], target: str, text: str, label: str) -> None:
    names = choose_columns("t.csv", {name: ["some words", "more words"] for name in columns}, target)
    assert (names.text, names.label) == (text, label)


def test_columns_that_cannot_be_distinguished_are_listed() -> None:
    with pytest.raises(Invalid, match=r"no column called label; name the column of labels: its columns are 'a', 'b'"):
        choose_columns("t.csv", {"a": ["x"], "b": ["y"]}, "")
    with pytest.raises(Invalid, match=r"needs one column of texts; call it text: its columns are 'a', 'b', 'y'"):
        choose_columns("t.csv", {"a": ["u v"], "b": ["v w"], "y": ["1"]}, "")


def test_new_texts_have_the_codes_of_training(tmp_path: Path) -> None:
    path = write_table(tmp_path / "films.csv", ("text", "label"), ROWS[:3])
    kept = load(spec_of(path, test_fraction=0)).preparation
    assert codes_for(["GOOD,   good film"], kept.length, kept.ngrams).tolist() == [
        [
            code("good"),
            code(","),
            code("good"),
            code("film"),
            code("good", ","),
            code(",", "good"),
            code("good", "film"),
        ]
    ]
    assert codes_for(["bad " * 9], kept.length, kept.ngrams)[0].tolist() == [code("bad")] * 4 + [code("bad", "bad")] * 3


def test_a_damaged_table_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\nfine,a\nno, quotes,b\n")
    with pytest.raises(Invalid, match=r"line 3 has 3 cells; the header has 2"):
        read_documents(spec_of(path), path)
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"text": "a", "label": 1}\n[1]\n')
    with pytest.raises(Invalid, match=r"line 2: .*each line must be one JSON object"):
        read_documents(spec_of(lines), lines)


def test_the_ending_decides_which_models_read_a_text() -> None:
    check(RunSpec(dataset="text:a.csv", target="stars", problem="classification"))
    check(RunSpec(dataset="text:a.txt", model="transformer"))
    for dataset, model, usable in (
        ("text:a.csv", "lstm", "mlp or transformer"), ("text:a.txt", "mlp", "transformer"), ("iris", "lstm", "mlp or cnn")
    ):  # fmt: skip
        with pytest.raises(Invalid, match=usable):
            check(RunSpec(dataset=dataset, model=model))  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="applies to tables only"):
        check(RunSpec(dataset="text:a.txt", model="transformer", target="b"))


def test_hashes_are_spread_evenly() -> None:
    codes = codes_for([" ".join(f"w{number}" for number in range(20_000))], 20_000, 1)[0]
    assert len(np.unique(codes)) == pytest.approx(65535 * (1 - np.exp(-20_000 / 65535)), rel=0.02)
