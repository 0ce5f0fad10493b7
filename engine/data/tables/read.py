"""Reading a table from the user's file, whatever its format.

Each reader is imported only when its format is read. Never imports torch.
"""

from __future__ import annotations

from pathlib import Path

from epochtop.engine.data.dataset import OnProgress, no_progress
from epochtop.engine.data.tables.column import ChooseTypes, Table
from epochtop.engine.protocol.datasets import Header

_FORMATS = {
    ".parquet": "parquet", ".feather": "feather", ".arrow": "feather", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".arff": "arff",
}  # fmt: skip


def format_of_file(path: Path) -> str:
    """The format of a table by the ending of its file; csv for other endings."""
    return _FORMATS.get(path.suffix.lower(), "csv")


def read_table(
    source: str,
    path: Path,
    choose: ChooseTypes,
    encoding: str = "auto",
    header: Header = "auto",
    report: OnProgress = no_progress,
) -> Table:
    """The table at `path`, a file in the format `source`: csv, parquet, feather, jsonl, arff or sqlite. Raises Invalid.

    The path of csv may be a pattern of several files; that of sqlite may end with `?table=NAME`. `encoding` and `header`
    apply to files of text.
    """
    if source == "parquet":
        from epochtop.engine.data.tables.arrow import read_parquet

        return read_parquet(path, choose)
    if source == "feather":
        from epochtop.engine.data.tables.arrow import read_feather

        return read_feather(path, choose)
    if source == "jsonl":
        from epochtop.engine.data.tables.json_lines import read_json_lines

        return read_json_lines(path, choose, encoding)
    if source == "arff":
        from epochtop.engine.data.tables.arff import read_arff

        return read_arff(path, choose, encoding)
    if source == "sqlite":
        from epochtop.engine.data.tables.sqlite import read_sqlite, split_query

        file, table = split_query(str(path))
        return read_sqlite(Path(file), table, choose)
    from epochtop.engine.data.tables.csv_files.read import CsvOptions, read_csv

    return read_csv(path, choose, CsvOptions(encoding, header), report)


def files_at(source: str, path: Path) -> list[Path]:
    """The files that are read for `path`; empty if there are none."""
    if source == "sqlite":
        return [Path(str(path).partition("?")[0])]
    if source == "csv":
        from epochtop.engine.data.tables.csv_files.files import files_of

        return files_of(path)
    return [path]
