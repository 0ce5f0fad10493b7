"""Opening the user's files: one wording for a file that is missing, a folder, unreadable, or not UTF-8.

Imports the standard library and the spec only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid


@contextmanager
def explain_errors(
    path: Path, kind: str, *, field: str = "dataset", unit: str = "row", encoding_advice: str = "save the file as UTF-8"
) -> Iterator[None]:
    """Turn errors of opening and reading `path` into Invalid for `field`.

    `kind` is the kind of file that is expected ("CSV file"); `unit` is what a line of it is called; `encoding_advice`
    says what to do about text that is not UTF-8.
    """
    try:
        yield
    except FileNotFoundError:
        raise Invalid(field, f"there is no file {path}") from None
    except IsADirectoryError:
        raise Invalid(field, f"{path} is a folder; name a {kind} in it") from None
    except OSError as error:
        raise Invalid(field, f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid(field, f"{_undecodable_byte(path, unit)}; {encoding_advice}") from None


def _undecodable_byte(path: Path, unit: str) -> str:
    """Where the first byte is that is not UTF-8."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                return f"{path}, {unit} {number}: byte 0x{line[error.start]:02x} is not UTF-8"
    return f"{path} is not UTF-8"
