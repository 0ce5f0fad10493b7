"""CSV files whose rows are copied unchanged, with columns appended."""

from __future__ import annotations

import csv
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from epochtop.engine.data.tables.header import delimiter_of
from epochtop.engine.protocol.spec import Invalid


@dataclass(frozen=True)
class RowFile:
    """A CSV file with a header row. It is read twice, so it must be a regular file."""

    path: Path
    delimiter: str
    names: tuple[str, ...]

    def rows(self) -> Iterator[list[str]]:
        """The cells of every row below the header, without empty lines."""
        with open(self.path, encoding="utf-8-sig", newline="") as file:
            file.readline()
            yield from (cells for cells in csv.reader(file, delimiter=self.delimiter, strict=True) if cells)

    def numeric(self) -> tuple[str, ...]:
        """Names of the columns with a number in the first row."""
        first = next(self.rows(), [])
        return tuple(name for name, cell in zip(self.names, first, strict=False) if _is_number(cell))


def open_rows(path: Path) -> RowFile:
    """The file at `path` with its header. Raises Invalid unless it is a regular file of UTF-8 text with a header."""
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise Invalid("", f"{path} is not a regular file, but it must be read twice; save it to a file first")
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
        if not first.strip():
            raise Invalid("", f"{path} is empty; it needs a header row with column names")
        delimiter = delimiter_of(first)
        return RowFile(path, delimiter, tuple(name.strip() for name in next(csv.reader([first], delimiter=delimiter))))
    except FileNotFoundError:
        raise Invalid("", f"there is no file {path}") from None
    except IsADirectoryError:
        raise Invalid("", f"{path} is a folder; give a CSV file") from None
    except OSError as error:
        raise Invalid("", f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid("", f"{path} is not UTF-8 text; predict needs a CSV file") from None
    except csv.Error as error:
        raise Invalid("", f"{path}, row 1: {error}") from None


def write_rows(file: RowFile, output: Path | None, names: Sequence[str], added: Iterable[Sequence[str]]) -> None:
    """Write the rows of `file` with appended cells to `output` or standard output. Raises Invalid.

    `names` are the appended columns, `added` their cells by row. The output file is complete or absent.
    """
    if output is not None and output.exists() and output.samefile(file.path):
        raise Invalid("", "--output would overwrite the input file; give it another name")
    with _written(output) as target:
        writer = csv.writer(target, delimiter=file.delimiter, lineterminator="\n")
        writer.writerow([*file.names, *names])
        writer.writerows([*cells, *more] for cells, more in zip(file.rows(), added, strict=True))


@contextmanager
def _written(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    special = output.exists() and not stat.S_ISREG(output.stat().st_mode)  # a pipe, /dev/null
    try:
        with open(output if special else aside, "w", encoding="utf-8", newline="") as target:
            yield target
        if not special:
            aside.replace(output)
    except OSError as error:
        raise Invalid("", f"cannot write {output}: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
