"""CSV files in the dialects that programs and people write read back as the values that were written."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochtop.engine.data.columns.selection import ColumnSelection
from epochtop.engine.data.tables.column import CellType, NumberColumn, Table, TextColumn, TimeColumn
from epochtop.engine.data.tables.csv_files.read import CsvOptions, read_csv
from epochtop.engine.protocol.spec import Invalid, RunSpec


def last_is_label(names: Sequence[str]) -> Sequence[CellType]:
    """All columns are features except the last one."""
    return [*(("any",) * (len(names) - 1)), "label"]


def cells_of(table: Table) -> dict[str, list[Any]]:
    """The values of each column; None is missing."""
    values: dict[str, list[Any]] = {}
    for column in table.columns:
        if isinstance(column, TextColumn):
            values[column.name] = [None if code < 0 else column.texts[code] for code in column.codes.tolist()]
        elif isinstance(column, TimeColumn):
            values[column.name] = column.values.astype("datetime64[D]").astype(str).tolist()
        else:
            values[column.name] = [None if math.isnan(value) else value for value in column.values.tolist()]
    return values


def read(tmp_path: Path, content: str | bytes, **options: Any) -> Table:
    file = tmp_path / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv(file, last_is_label, CsvOptions(**options))


PLAIN = "a,b,kind\n0.5,1,x\n-1.25,2,y\n3,4,x\n"
EXPECTED = {"a": [0.5, -1.25, 3.0], "b": [1.0, 2.0, 4.0], "kind": ["x", "y", "x"]}
SAME: dict[str, tuple[str | bytes, int]] = {
    "plain": (PLAIN, 2),
    "byte order mark": (b"\xef\xbb\xbf" + PLAIN.encode(), 2),
    "utf-16 with mark": (PLAIN.encode("utf-16"), 2),
    "utf-16 without mark": (PLAIN.encode("utf-16-le"), 2),
    "crlf": (PLAIN.replace("\n", "\r\n"), 2),
    "cr": (PLAIN.replace("\n", "\r"), 2),
    "no last line end": (PLAIN.rstrip(), 2),
    "semicolons": (PLAIN.replace(",", ";"), 2),
    "tabs": (PLAIN.replace(",", "\t"), 2),
    "bars": (PLAIN.replace(",", "|"), 2),
    "runs of blanks": (PLAIN.replace(",", "   "), 2),
    "blanks at both ends": ("\n".join(f"  {line}  " for line in PLAIN.replace(",", " ").splitlines()), 2),
    "decimal commas": (PLAIN.replace(",", ";").replace(".", ","), 2),
    "decimal commas in quotes": ('a,b,kind\n"0,5",1,x\n"-1,25",2,y\n3,4,x\n', 2),
    "space, then quote": ('"a", "b", "kind"\n"0.5", 1, "x"\n-1.25, "2", "y"\n3, 4, "x"\n', 2),
    "sep line": ("sep=;\n" + PLAIN.replace(",", ";"), 3),
    "quoted sep line": ('"sep=;"\n' + PLAIN.replace(",", ";"), 3),
    "comments": ("# made in May\n#, unit: mm\n" + PLAIN, 4),
    "header in a comment": ("# made in May\n# " + PLAIN, 3),
    "blank first lines": ("\n  \n" + PLAIN, 4),
    "delimiters at ends of rows": (PLAIN.replace("x\n", "x,\n").replace("y\n", "y,\n"), 2),
    "delimiters at all ends": (PLAIN.replace("\n", ",\n"), 2),
    "units": ("a,b,kind\nmm,kg,\n" + PLAIN.partition("\n")[2], 3),
    "line break in a header": ('a,"b",kind\n'.replace('"b"', '"\nb"') + PLAIN.partition("\n")[2], 3),
    "currency and percent": ("a,b,kind\n$0.50,1 %,x\n-$1.25,2 %,y\n$3.00,4 %,x\n", 2),
    "parentheses": ("a,b,kind\n$0.50,1,x\n($1.25),2,y\n$3.00,4,x\n", 2),
    "gzip": (gzip.compress(PLAIN.encode()), 2),
    "bzip2": (bz2.compress(PLAIN.encode()), 2),
    "xz": (lzma.compress(PLAIN.encode()), 2),
    "gzip of utf-16": (gzip.compress(PLAIN.encode("utf-16")), 2),
}


@pytest.mark.parametrize("dialect", SAME)
def test_a_table_is_the_same_in_every_dialect(tmp_path: Path, dialect: str) -> None:
    content, first_line = SAME[dialect]
    table = read(tmp_path, content)
    assert cells_of(table) == EXPECTED
    assert table.where(0) == f"{tmp_path / 't.csv'}, line {first_line}"


def test_zstd_is_read_where_a_package_for_it_is_installed(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    assert cells_of(read(tmp_path, pyarrow.compress(PLAIN.encode(), "zstd", asbytes=True))) == EXPECTED


COLUMNS: dict[str, tuple[list[str], list[Any]]] = {
    "thousands": (["1,234", "56", "7,890,123.5"], [1234, 56, 7890123.5]),
    "thousands with blanks": (["1 234,5", "56", "7 890"], [1234.5, 56, 7890]),
    "thousands with apostrophes": (["1'234.5", "56", "7'890"], [1234.5, 56, 7890]),
    "points and a decimal comma": (["1.234,5", "1.000", "0,25"], [1234.5, 1000, 0.25]),
    "euros": (["1.234,50 €", "3 €", "-2,00 €"], [1234.5, 3, -2]),
    "dollars": (["$1,234.00", "$3", "-$2"], [1234, 3, -2]),
    "missing values": (["1", "#N/A", "."], [1, None, None]),
    "more missing values": (["N.A.", "2", "missing"], [None, 2, None]),
    "dates": (["2024-01-31", "", "2024-02-01"], ["2024-01-31", None, "2024-02-01"]),
    "underscores": (["1_000", "2_000", "3"], ["1_000", "2_000", "3"]),
    "version numbers": (["1.2.3", "1.10.0", "2.0.0"], ["1.2.3", "1.10.0", "2.0.0"]),
    "numbers and text": (["1", "two", "3"], ["1", "two", "3"]),
    "nothing": (["", "", ""], [None, None, None]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_cells_are_read_as_what_they_are(tmp_path: Path, name: str) -> None:
    cells, values = COLUMNS[name]
    rows = "".join(f'"{cell}",{kind}\n' for cell, kind in zip(cells, "xyx", strict=True))
    assert cells_of(read(tmp_path, f"a,kind\n{rows}"))["a"] == values


def test_a_label_is_text_as_written(tmp_path: Path) -> None:
    table = read(tmp_path, "a,code\n1,01\n2,1\n3,NA\n4,-\n5,\n")
    assert cells_of(table)["code"] == ["01", "1", "NA", "-", None]


def test_labels_that_are_numbers_carry_their_values(tmp_path: Path) -> None:
    label = read(tmp_path, 'a,price\n1,"$1,200"\n2,$30\n3,NA\n').column("price")
    assert isinstance(label, TextColumn)
    assert label.numbers is not None
    np.testing.assert_equal(label.numbers[label.codes], [1200, 30, np.nan])


def test_letters_of_other_encodings_are_read(tmp_path: Path) -> None:
    text = "größe,kind\n1,süß\n2,€\n"
    assert cells_of(read(tmp_path, text.encode("cp1252"))) == {"größe": [1.0, 2.0], "kind": ["süß", "€"]}
    assert "Windows-1252" in read(tmp_path, text.encode("cp1252")).notes[0]
    assert cells_of(read(tmp_path, "a,kind\n1,да\n2,нет\n".encode("cp1251"), encoding="cp1251"))["kind"] == [
        "да",
        "нет",
    ]
    with pytest.raises(Invalid, match=r"line 1: byte 0xf6 is not UTF-8"):
        read(tmp_path, text.encode("latin-1", "replace"), encoding="utf-8")


def test_a_file_without_a_header_has_numbered_columns(tmp_path: Path) -> None:
    rows = PLAIN.partition("\n")[2]
    assert cells_of(read(tmp_path, rows, header="no")) == dict(zip(("c1", "c2", "c3"), EXPECTED.values(), strict=True))
    with pytest.raises(Invalid, match=r"line 1: .* only numbers; if it is a row, set header to no"):
        read(tmp_path, "1,2\n3,4\n")


ABALONE = "M,0.455,0.365,15\nM,0.35,0.265,7\nF,0.53,0.42,9\nM,0.44,0.365,10\n"
WITHOUT: dict[str, str] = {
    "letters and numbers": ABALONE,
    "numbers": "5.1,3.5,0\n4.9,3.0,0\n6.3,2.5,1\n",
    "pixels": "7,0,0,254,0\n2,0,13,255,0\n1,0,0,3,0\n",
    "letters only": "p,x,s\ne,x,y\np,b,s\ne,x,w\n",
    "a gap in the first row": "?,1.5,a\n3,2.5,b\n4,0.5,a\n",
    "decimal commas": "1,5;2,25;a\n0,5;3,75;b\n1,25;2,5;a\n",
    "blanks": '18.0   8   307.0   "chevrolet chevelle"\n15.0   8   350.0   "buick skylark"\n26.5   4   97.0   "vw"\n',
    "names that differ": "1,0,3,Braund,22\n2,1,1,Cumings,38\n4,1,3,Heikkinen,26\n",
}
WITH: dict[str, str] = {
    "names": PLAIN,
    "names of numbered columns": "0,1,2,kind\n5,1,9,x\n4,2,9,y\n4,2,9,x\n5,2,1,y\n",
    "years": "2019,2020,2021,kind\n1.5,2,3,x\n4,5,6,y\n",
    "letters only": "habitat,cap\nwoods,x\npath,b\nwoods,x\n",
    "a name and a number": "id,7\n1,2.5\n2,3.5\n",
    "units": "a,b,kind\nmm,kg,\n1,2,x\n3,4,y\n5,6,x\n",
    "repeated": "size,kind\n1,x\n2,y\nsize,kind\n3,x\n",
    "nothing below": "1.5,2.5,a\n",
}


@pytest.mark.parametrize("case", [*WITHOUT, *WITH])
def test_the_first_row_is_the_header_unless_it_holds_data(tmp_path: Path, case: str) -> None:
    for content, has_header in ((WITHOUT.get(case), False), (WITH.get(case), True)):
        if content is not None:
            table = read(tmp_path, content)
            assert (table.names[0] == "c1") == (not has_header)
            assert (
                any("line 1 looks like data, so the columns are called c1" in note for note in table.notes)
                != has_header
            )


def test_a_first_row_with_the_name_of_the_target_is_the_header(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("1990,1995,2005\n1.5,2,3\n4,5,6\n")
    spec = RunSpec(dataset=f"csv:{file}", target="2005", problem="regression")
    assert read_csv(file, ColumnSelection(spec)).names == ("1990", "1995", "2005")
    for part in ("1", "2"):
        (tmp_path / f"part-{part}.csv").write_text(ABALONE if part == "1" else "F,0.1,0.2,3\n")
    assert len(read_csv(tmp_path / "part-*.csv", last_is_label)) == 5


def test_repeated_and_absent_names_are_made_unique(tmp_path: Path) -> None:
    table = read(tmp_path, "a,a,,a.1,kind\n1,2,3,4,x\n5,6,7,8,y\n")
    assert table.names == ("a", "a.2", "Unnamed: 2", "a.1", "kind")
    assert "repeats 'a'" in table.notes[0]
    assert read(tmp_path, '"a" "b"\n"1" 0.5 x\n"2" 1.5 y\n').names == ("", "a", "b")  # as R writes it


LINES: dict[str, tuple[str, str]] = {
    "short": ("a,b,kind\n1,2,x\n\n# no comment,\n", "line 4 has 2 cells; the header has 3"),
    "after a cell of two lines": ('a,b,kind\n"1\n",2,x\n3,4\n', "line 4 has 2 cells; the header has 3"),
    "after comments": ("# one\n\na,b,kind\n# two\n1,2,x\n3,4,y,z\n", "line 6 has 4 cells; the header has 3"),
    "open quote": ('a,b,kind\n1,2,x\n3,"4,y\n5,6,x\n', "line 3: unexpected end of data"),
    "text after a quote": ('a,b,kind\n1,2,x\n\n"3"4,5,y\n', "line 4: "),
}


@pytest.mark.parametrize("name", LINES)
def test_errors_name_the_line_that_an_editor_shows(tmp_path: Path, name: str) -> None:
    content, message = LINES[name]
    with pytest.raises(Invalid, match=f"t.csv, {message}"):
        read(tmp_path, content)


def test_rows_know_their_lines(tmp_path: Path) -> None:
    table = read(tmp_path, 'a,kind\n1,"x\nx"\n\n2,y\n \n3,z\n')
    assert list(table.lines) == [2, 5, 7]


FOREIGN: dict[str, tuple[bytes, str]] = {
    "workbook": (b"PK\x03\x04\x14\0\0\0\0\0[Content_Types].xml", "Excel workbook; convert it: libreoffice"),
    "old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel workbook"),
    "zip": (b"PK\x03\x04\x14\0\0\0\0\0data.csv", "zip file; extract it: unzip t.csv"),
    "html": (b"\n<!DOCTYPE html><html><body>404", "HTML or XML page"),
    "json lines": (b'{"a": 1, "kind": "x"}\n', "--dataset jsonl:t.csv"),
    "json": (b'[\n {"a": 1}]', "jq -c"),
    "parquet": (b"PAR1\x15\x04", "--dataset parquet:t.csv"),
    "zip in gzip": (gzip.compress(b"PK\x03\x04"), "zip file"),
    "bytes": (b"a,b\n\x00\x01\x02", "NUL bytes"),
    "torn gzip": (gzip.compress(PLAIN.encode() * 100)[:-12], "damaged gzip data"),
    "empty": (b"", "is empty"),
    "blank": (b"\n \n", "is empty"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_recognized(tmp_path: Path, name: str) -> None:
    content, message = FOREIGN[name]
    with pytest.raises(Invalid, match=message):
        read(tmp_path, content)


def test_several_files_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "part-1.csv").write_text("a,b,kind\n1,2,x\n")
    (tmp_path / "part-2.csv").write_text("a;b;kind\n3,5;u;y\n4;v;x\n")
    table = read_csv(tmp_path / "part-*.csv", last_is_label)
    assert cells_of(table) == {"a": [1, 3.5, 4], "b": ["2", "u", "v"], "kind": ["x", "y", "x"]}
    assert table.where(2) == f"{tmp_path / 'part-2.csv'}, line 3"
    (tmp_path / "part-3.csv").write_text("a,c,kind\n1,2,x\n")
    with pytest.raises(Invalid, match="not all of them have the column 'b'"):
        read_csv(tmp_path / "part-*.csv", last_is_label)
    with pytest.raises(Invalid, match="no file matches"):
        read_csv(tmp_path / "parts-*.csv", last_is_label)


def test_unreadable_numbers_are_kept_with_their_rows(tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("a,b\n1,2\nmany,?\n1_000,4\n")
    table = read_csv(file, lambda names: ["number"] * len(names))
    column = table.column("a")
    assert isinstance(column, NumberColumn)
    np.testing.assert_equal(column.values, [1, np.nan, np.nan])
    assert column.unreadable == {1: "many", 2: "1_000"}


# --- any table in any dialect ------------------------------------------------------------------------------

NUMBERS = st.floats(-1e6, 1e6).map(lambda value: round(value, 4))
WORDS = st.text("abcdefg üß'\"\n;,|\t", min_size=1, max_size=6).map(str.strip).filter(lambda text: text.strip('"'))


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, list[Any]], bytes, dict[str, Any]]:
    """Values, and the file that a program of some country wrote of them."""
    rows = draw(st.integers(2, 8))
    numbers = draw(st.lists(st.lists(st.none() | NUMBERS, min_size=rows, max_size=rows), min_size=1, max_size=3))
    words = draw(st.lists(st.lists(WORDS, min_size=rows, max_size=rows), min_size=0, max_size=2))
    labels = [["yes", "no"][row % 2] for row in range(rows)]
    values: dict[str, list[Any]] = {f"n {place}": column for place, column in enumerate(numbers)}
    values |= {f"w{place}": column for place, column in enumerate(words)} | {"kind": labels}
    comma = draw(st.booleans())
    delimiter = draw(st.sampled_from(";\t|" if comma else ",;\t|"))
    missing = draw(st.sampled_from(["", "NA", "?", "n/a"]))
    text = io.StringIO(newline="")
    text.write(draw(st.sampled_from(["", "\n", f"sep={delimiter}\n", "# a comment\n"])))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quoting = csv.QUOTE_ALL if end == "\r" else draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow(values)
    for row in zip(*values.values(), strict=True):
        cells = [missing if cell is None else f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row]
        writer.writerow(
            cell.replace(".", ",") if comma and isinstance(value, float) else cell
            for cell, value in zip(cells, row, strict=True)
        )
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return values, text.getvalue().encode(encoding), {"encoding": "latin-1" if encoding == "latin-1" else "auto"}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables())
def test_any_table_reads_back_in_any_dialect(tmp_path: Path, table: tuple[Any, bytes, dict[str, Any]]) -> None:
    values, content, options = table
    expected = {
        name: [cell.replace("\r", "\n").strip() if isinstance(cell, str) else cell for cell in column]
        for name, column in values.items()
    }
    assert cells_of(read(tmp_path, content, **options)) == expected
