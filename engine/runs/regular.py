"""Opening the files of a run, which may be anything (:mod:`epochtop.configuration.regular`).

Never imports torch, numpy or Textual.
"""

from __future__ import annotations

from pathlib import Path

from epochtop.configuration import regular
from epochtop.configuration.regular import open_file as open_file
from epochtop.configuration.regular import read_regular as read_regular


def check_regular(path: Path) -> None:
    """Raises OSError for anything but a regular file."""
    regular.check_kind(path, path.stat().st_mode)


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, without its path."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
