"""The files of a table: one, or all that match a pattern.

Imports the standard library and the spec only.
"""

from __future__ import annotations

from glob import glob, has_magic
from pathlib import Path

from epochtop.engine.protocol.spec import Invalid


def files_of(pattern: Path) -> list[Path]:
    """The files that `pattern` names, sorted by name; a path without `*`, `?` or `[` names itself. Raises Invalid."""
    if pattern.name == "-" and not pattern.exists():
        raise Invalid(
            "dataset", "csv:- reads standard input; pipe a table into it: epochtop train --dataset csv:- < FILE"
        )
    if not has_magic(str(pattern)) or pattern.exists():
        return [pattern]
    paths = sorted(Path(name) for name in glob(str(pattern)))  # noqa: PTH207 - the pattern may be absolute
    if not paths:
        raise Invalid("dataset", f"no file matches {pattern}")
    return paths
