"""How the user has arranged the table, remembered in the home folder. Never imports Textual."""

from __future__ import annotations

from pathlib import Path

import msgspec

from epochtop.engine.protocol.events import UNREADABLE, encode
from epochtop.engine.runs.files import write_atomically
from epochtop.engine.runs.regular import read_regular
from epochtop.tui.runs_table.columns import ALWAYS, column_of

LAYOUT = "table.json"
"""File in the home folder."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Columns, order, filter and groups of the table."""

    columns: tuple[str, ...] | None = None
    """Keys of the columns after state and run; None shows duration, main metrics and the configuration that differs."""
    sort: str = "age"
    """Key of the column that decides the order."""
    descending: bool = False
    group: str = ""
    """Key of the column by which runs are grouped; empty for none."""
    filter: str = ""
    hidden: tuple[str, ...] = ()
    """Ids of runs that the user has hidden."""


_decode = msgspec.json.Decoder(Layout).decode


def load(home: Path) -> tuple[Layout, str]:
    """The layout, and why it could not be read; then it is the default one."""
    path = home / LAYOUT
    try:
        layout = _decode(read_regular(path))
    except FileNotFoundError:
        return Layout(), ""
    except (OSError, *UNREADABLE) as error:
        return Layout(), f"{path} cannot be read, so the table has its default columns: {error}"
    return _checked(layout), ""


def _checked(layout: Layout) -> Layout:
    """The layout without columns that do not exist, such as those of a newer version."""
    columns = layout.columns
    if columns is not None:
        columns = tuple(key for key in dict.fromkeys(columns) if key not in ALWAYS and column_of(key) is not None)
    return msgspec.structs.replace(
        layout,
        columns=columns,
        sort=layout.sort if column_of(layout.sort) is not None else "age",
        group=layout.group if column_of(layout.group) is not None else "",
    )


def save(home: Path, layout: Layout) -> str:
    """Store the layout. Returns why it could not be stored; empty if it was."""
    try:
        write_atomically(home / LAYOUT, encode(layout))
    except OSError as error:
        return f"cannot write {home / LAYOUT}: {error.strerror}"
    return ""
